"""Christoffersen's tests: does an exceedance today make one tomorrow more likely?"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import lgamma, log

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.backtest.coverage import unconditional_coverage
from riskhub.risk.backtest.distributions import chi_square_sf
from riskhub.risk.backtest.hits import hit_series
from riskhub.risk.backtest.inputs import (
    SIGNIFICANCE,
    Alpha,
    TooFewObservations,
    checked_significance,
    exact_alpha,
)
from riskhub.risk.inputs import Floats

_NEGLIGIBLE = 1e-18


@dataclass(frozen=True, slots=True)
class ConditionalCoverage:
    """As many exceedances as alpha says, and none more likely after another.

    `statistic`: LR_cc = LR_uc + LR_ind. `p_value`: chi-square, two degrees of freedom.
    `p_value_exact`: by the law of LR_cc when every day exceeds with probability alpha by itself.
    `reject` goes by the first, `reject_exact` by the second.
    """

    alpha: Fraction
    significance: float
    unconditional: float
    independence: float
    statistic: float
    p_value: float
    p_value_exact: float
    reject: bool

    @property
    def reject_exact(self) -> bool:
        """Whether the exact p-value is at most the significance."""
        return self.p_value_exact <= self.significance


@dataclass(frozen=True, slots=True)
class Christoffersen:
    """The test of independence, and that of conditional coverage where alpha was given.

    `statistic`, `p_value`, `p_value_exact` and `reject` are those of independence: LR_ind, the
    chi-square law with one degree of freedom, and the exact law given the number of exceedances.
    `n01`: how many days that did not exceed were followed by one that did, and so on. `after_calm`
    and `after_exceedance`: the estimated probability of an exceedance; None where no day tells.
    `undefined`: why the data say nothing about independence, and then the statistic is 0 and both
    p-values are 1; None where they say something.
    """

    observations: int
    exceedances: int
    n00: int
    n01: int
    n10: int
    n11: int
    after_calm: float | None
    after_exceedance: float | None
    significance: float
    statistic: float
    p_value: float
    p_value_exact: float
    reject: bool
    undefined: str | None
    conditional_coverage: ConditionalCoverage | None

    @property
    def reject_exact(self) -> bool:
        """Whether the exact p-value is at most the significance."""
        return self.p_value_exact <= self.significance


def christoffersen(
    hits: ArrayLike, alpha: Alpha | None = None, *, significance: float = SIGNIFICANCE
) -> Christoffersen:
    """Independence against a first-order Markov chain; with alpha also conditional coverage.

    LR_ind = -2 log (L(p, p) / L(p01, p11)), where L(p, q) = (1-p)^n00 p^n01 (1-q)^n10 q^n11,
    p01 = n01 / (n00 + n01), p11 = n11 / (n10 + n11), p = (n01 + n11) / (n - 1), and 0 log 0 = 0:
    Christoffersen, "Evaluating interval forecasts", International Economic Review 39 (1998).
    He conditions on the first day; LR_uc in LR_cc = LR_uc + LR_ind is Kupiec's over all n days
    here, as it is in practice, so the three numbers add up as they are shown.

    The exact law of LR_ind is that of x exceedances placed on n days at random, every placement
    alike; it needs no alpha. That of LR_cc sums it over x with binomial weights.

    `hits`: (n,) booleans or zeros and ones, oldest first, n >= 2, one day after the other: a day
    left out makes neighbours of two that were none. Raises `TooFewObservations`, `NotHits`,
    `WrongShape`, `BadAlpha`, `BadSignificance`.
    """
    series = hit_series(hits)
    n = len(series)
    if n < 2:
        raise TooFewObservations(n, 2)
    tail = None if alpha is None else exact_alpha(alpha)
    limit = checked_significance(significance)

    before, after = series[:-1].astype(np.int64), series[1:].astype(np.int64)
    n00, n01, n10, n11 = (int(count) for count in np.bincount(2 * before + after, minlength=4))
    x = int(series.sum())
    statistic = float(_independence(*(np.array([float(m)]) for m in (n00, n01, n10, n11)))[0])
    p_value = chi_square_sf(statistic, 1)
    log_factorial = np.array([lgamma(m + 1.0) for m in range(n + 1)])
    return Christoffersen(
        observations=n,
        exceedances=x,
        n00=n00,
        n01=n01,
        n10=n10,
        n11=n11,
        after_calm=n01 / (n00 + n01) if n00 + n01 else None,
        after_exceedance=n11 / (n10 + n11) if n10 + n11 else None,
        significance=limit,
        statistic=statistic,
        p_value=p_value,
        p_value_exact=min(1.0, _as_dependent(n, x, statistic, log_factorial)),
        reject=p_value <= limit,
        undefined=_why_undefined(n00 + n01, n10 + n11),
        conditional_coverage=None
        if tail is None
        else _conditional_coverage(n, x, tail, statistic, limit, log_factorial),
    )


def _why_undefined(from_calm: int, from_exceedance: int) -> str | None:
    if not from_exceedance:
        return "no day follows an exceedance"
    if not from_calm:
        return "no day follows one without an exceedance"
    return None


def _independence(n00: Floats, n01: Floats, n10: Floats, n11: Floats) -> Floats:
    """LR_ind of each table of transitions; >= 0."""
    chain = _log_likelihood(n00, n01) + _log_likelihood(n10, n11)
    result: Floats = np.maximum(2.0 * (chain - _log_likelihood(n00 + n10, n01 + n11)), 0.0)
    return result


def _log_likelihood(no: Floats, yes: Floats) -> Floats:
    """Of a Bernoulli sample at its maximum. The counts are whole, so max(., 1) is 0 log 0 = 0."""
    total = np.maximum(no + yes, 1.0)
    result: Floats = no * np.log(np.maximum(no, 1.0) / total)
    result += yes * np.log(np.maximum(yes, 1.0) / total)
    return result


def _as_dependent(n: int, x: int, at_least: float, log_factorial: Floats) -> float:
    """P(LR_ind >= at_least) when each placement of x exceedances on n days is as likely.

    Rounding must not part what is equal, hence the small allowance.
    """
    threshold = at_least - 1e-9 * max(1.0, at_least)
    if threshold <= 0:
        return 1.0
    everything = log_factorial[n] - log_factorial[x] - log_factorial[n - x]
    return sum(
        float(np.exp(log_count[_independence(*table) >= threshold] - everything).sum())
        for log_count, table in _placements(n, x, log_factorial)
    )


def _placements(
    n: int, x: int, log_factorial: Floats
) -> Iterator[tuple[Floats, tuple[Floats, Floats, Floats, Floats]]]:
    """How many placements (log) have which table of transitions, for 0 < x < n.

    By whether the first and the last day exceed: x exceedances in r runs and n - x calm days in
    the runs between them, C(x-1, r-1) C(n-x-1, z-1) ways. With x = 0 or x = n nothing depends on
    anything, and there is nothing to list.
    """
    calm = n - x
    if not (x and calm):
        return
    for first, last in product((0, 1), (0, 1)):
        runs = np.arange(max(1, first + last), min(x, calm - 1 + first + last) + 1)
        calm_runs = runs + 1 - first - last
        log_count = (
            log_factorial[x - 1]
            - log_factorial[runs - 1]
            - log_factorial[x - runs]
            + log_factorial[calm - 1]
            - log_factorial[calm_runs - 1]
            - log_factorial[calm - calm_runs]
        )
        n00, n01, n10, n11 = calm - calm_runs, runs - first, runs - last, x - runs
        yield (
            log_count,
            (n00.astype(float), n01.astype(float), n10.astype(float), n11.astype(float)),
        )


def _conditional_coverage(
    n: int, x: int, alpha: Fraction, independence: float, limit: float, log_factorial: Floats
) -> ConditionalCoverage:
    unconditional = unconditional_coverage(n, x, alpha)
    statistic = unconditional + independence
    p_value = chi_square_sf(statistic, 2)
    return ConditionalCoverage(
        alpha=alpha,
        significance=limit,
        unconditional=unconditional,
        independence=independence,
        statistic=statistic,
        p_value=p_value,
        p_value_exact=_as_uncovered(n, alpha, statistic, log_factorial),
        reject=p_value <= limit,
    )


def _as_uncovered(n: int, alpha: Fraction, at_least: float, log_factorial: Floats) -> float:
    """P(LR_cc >= at_least) when each of n days exceeds with probability alpha by itself.

    Counts that are themselves all but impossible are taken as reaching it without being looked
    at: that adds less than n 1e-18.
    """
    counts = np.arange(n + 1)
    log_odds = log(alpha.numerator) - log(alpha.denominator - alpha.numerator)
    weights = np.exp(
        log_factorial[n]
        - log_factorial
        - log_factorial[::-1]
        + counts * log_odds
        + n * log(1 - alpha)
    )
    total = float(weights[weights < _NEGLIGIBLE].sum())
    for x in counts[weights >= _NEGLIGIBLE].tolist():
        rest = at_least - unconditional_coverage(n, x, alpha)
        total += float(weights[x]) * _as_dependent(n, x, rest, log_factorial)
    return min(1.0, total)
