"""Acerbi and Szekely's tests: were the losses beyond VaR as large as ES said?"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import fsum, isfinite, sqrt
from statistics import NormalDist
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.backtest.distributions import student_t_tail
from riskhub.risk.backtest.hits import exceedances
from riskhub.risk.backtest.inputs import (
    SIGNIFICANCE,
    Alpha,
    TooFewObservations,
    checked_significance,
    exact_alpha,
    whole,
)
from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, WrongShape, finite_array

SIMULATIONS = 10_000

_DRAWS_AT_ONCE = 1_000_000  # of exceedances: what bounds the memory. It is part of the seed's word
_MOST_DEGREES = 1e6
_WIDE_TAIL = 0.2  # beyond this share the whole law is drawn and its tail kept


class BadShortfall(RiskInputError):
    """An ES that is not positive, so nothing is a multiple of it, or is less than its VaR."""


@dataclass(frozen=True, slots=True)
class ShortfallStatistic:
    """One of the two statistics; negative when losses were larger than ES said.

    `p_value`: simulated, one-sided: P(Z <= statistic) under the null. `critical_value`: the test
    rejects below it; None where there are too few simulations for the significance. All three are
    None where the statistic is undefined, and nothing is rejected then.
    """

    statistic: float | None
    p_value: float | None
    critical_value: float | None
    reject: bool


@dataclass(frozen=True, slots=True)
class AcerbiSzekely:
    """Z1 and Z2, with what their null was.

    `statistic`, `p_value` and `reject` are Z2's, which tests ES and the number of exceedances
    together; Z1 tests ES given that VaR is right. `undefined` says why Z1 is not there.
    `degrees_of_freedom`: of Student's t in the null; None is the normal law.
    """

    observations: int
    exceedances: int
    alpha: Fraction
    significance: float
    degrees_of_freedom: float | None
    simulations: int
    seed: int
    z1: ShortfallStatistic
    z2: ShortfallStatistic
    undefined: str | None

    @property
    def statistic(self) -> float | None:
        """Z2."""
        return self.z2.statistic

    @property
    def p_value(self) -> float | None:
        """That of Z2."""
        return self.z2.p_value

    @property
    def reject(self) -> bool:
        """Whether Z2 rejects."""
        return self.z2.reject


def acerbi_szekely(
    var: ArrayLike,
    es: ArrayLike,
    losses: ArrayLike,
    alpha: Alpha,
    *,
    degrees_of_freedom: float | None = None,
    significance: float = SIGNIFICANCE,
    simulations: SupportsIndex = SIMULATIONS,
    seed: SupportsIndex = 0,
) -> AcerbiSzekely:
    """Z1 and Z2 of Acerbi and Szekely, "Backtesting expected shortfall", Risk (December 2014).

    With losses L = -X and I = 1 where L > VaR, over n days with N exceedances:
    Z1 = 1 - sum(I L / ES) / N, and Z2 = 1 - sum(I L / ES) / (n alpha). Under the null both have
    mean 0 (Z1 given N > 0); both are negative when risk was understated, and the tests are
    one-sided: a cautious forecast is not rejected. Signs and formulas are the paper's.

    The null, from which p-values are drawn: the days are independent; each exceeds with
    probability alpha; and beyond VaR the loss is distributed as the tail of a normal law (with
    1 < `degrees_of_freedom` <= 1e6, of a Student t) of the location and scale that give just this
    VaR and this ES on this day. Nothing else of the law enters. A p-value is
    (1 + #{Z simulated <= Z}) / (1 + simulations); that of Z1 counts simulations with N > 0.

    `var`, `es`, `losses`: (n,), n >= 1, fractions of equity, made and paired as in `exceedances`;
    es > 0 and es >= var. The same seed gives the same numbers with the same numpy; the order of
    the days does not matter. Work and memory follow the exceedances, not the days.

    Raises `BadShortfall`, `WrongShape`, `NotFinite`, `TooFewObservations`, `BadAlpha`,
    `BadSignificance`, `BadCount`, and `RiskInputError` for degrees of freedom out of range.
    """
    hits = exceedances(var, losses)
    n = len(hits)
    if n < 1:
        raise TooFewObservations(n, 1)
    tail, limit = exact_alpha(alpha), checked_significance(significance)
    runs, start = whole(simulations, "simulations", at_least=1), whole(seed, "seed")
    _check_degrees(degrees_of_freedom)
    actual = finite_array(losses, 1, "losses")
    shortfall, spread = _shortfall_and_spread(finite_array(var, 1, "values at risk"), es)

    with np.errstate(over="ignore"):
        multiples = actual[hits] / shortfall[hits]
    if not np.isfinite(multiples).all():
        raise NotFinite("losses are too large as multiples of their expected shortfalls")
    count = len(multiples)
    total = _exact_sum(multiples)
    generator = np.random.default_rng(start)
    sums, counts = _simulate(generator, spread, float(tail), degrees_of_freedom, runs)
    seen = counts > 0
    return AcerbiSzekely(
        observations=n,
        exceedances=count,
        alpha=tail,
        significance=limit,
        degrees_of_freedom=degrees_of_freedom,
        simulations=runs,
        seed=start,
        z1=_held_against(1.0 - total / count, 1.0 - sums[seen] / counts[seen], limit)
        if count
        else ShortfallStatistic(None, None, None, False),
        z2=_held_against(1.0 - total / float(n * tail), 1.0 - sums / float(n * tail), limit),
        undefined=None if count else "Z1: no day exceeds its value at risk",
    )


def _check_degrees(degrees: float | None) -> None:
    if degrees is not None and not 1 < degrees <= _MOST_DEGREES:
        raise RiskInputError(
            f"{degrees} degrees of freedom: ES needs more than 1, and beyond 1e6 t is normal"
        )


def _shortfall_and_spread(forecast: Floats, es: ArrayLike) -> tuple[Floats, Floats]:
    """ES, and 1 - VaR / ES: how far the mean excess reaches, as a share of ES."""
    shortfall = finite_array(es, 1, "expected shortfalls")
    if shortfall.shape != forecast.shape:
        raise WrongShape(f"{len(shortfall)} expected shortfalls for {len(forecast)} values at risk")
    for what, wrong in (
        ("not positive", shortfall <= 0),
        ("less than the value at risk", shortfall < forecast),
    ):
        if wrong.any():
            raise BadShortfall(f"the expected shortfall is {what} on {wrong.sum()} day(s)")
    with np.errstate(over="ignore"):
        spread = 1.0 - forecast / shortfall
    if not np.isfinite(spread).all():
        raise NotFinite("values at risk are too large as multiples of their expected shortfalls")
    return shortfall, spread


def _exact_sum(values: Floats) -> float:
    try:
        return fsum(values.tolist())
    except OverflowError as error:
        raise NotFinite("losses are too large to be added") from error


def _held_against(statistic: float, simulated: Floats, limit: float) -> ShortfallStatistic:
    if not (isfinite(statistic) and np.isfinite(simulated).all()):
        raise NotFinite("losses are too large as multiples of their expected shortfalls")
    of = 1 + len(simulated)
    p_value = (1 + int((simulated <= statistic).sum())) / of
    near = int(limit * of)  # limit is a float: compared as the p-value is
    rank = next(k for k in (near + 1, near, near - 1) if k / of <= limit)
    return ShortfallStatistic(
        statistic=statistic,
        p_value=p_value,
        critical_value=float(np.partition(simulated, rank - 1)[rank - 1]) if rank else None,
        reject=p_value <= limit,
    )


def _simulate(
    generator: np.random.Generator,
    spread: Floats,
    alpha: float,
    degrees: float | None,
    runs: int,
) -> tuple[Floats, Floats]:
    """(runs,) sums of L / ES over exceedances under the null, and (runs,) how many there were.

    Given an exceedance, L / ES = 1 + spread (E - 1), where E is the excess over VaR as a multiple
    of its mean: the law of E is the same on every day.
    """
    n = len(spread)
    ordered = np.sort(spread)  # so that the order of the days does not matter
    at_once = max(1, min(runs, int(_DRAWS_AT_ONCE / (n * alpha))))
    sums, counts = np.empty(runs), np.empty(runs)
    for first in range(0, runs, at_once):
        part = slice(first, min(first + at_once, runs))
        size = part.stop - first
        run, day = np.divmod(_bernoulli(generator, size * n, alpha), n)
        excess = np.concatenate([np.empty(0), *_excesses(generator, len(run), alpha, degrees)])
        with np.errstate(over="ignore", invalid="ignore"):
            multiple = 1.0 + ordered[day] * (excess - 1.0)
            sums[part] = np.bincount(run, weights=multiple, minlength=size)
        counts[part] = np.bincount(run, minlength=size)
    return sums, counts


def _bernoulli(
    generator: np.random.Generator, trials: int, probability: float
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which of the trials succeed, ascending. By the gaps between them: failures cost nothing."""
    expected = trials * probability
    batch = int(expected + 6 * sqrt(expected)) + 10
    parts, last = [], -1
    while last < trials:
        gaps = np.minimum(generator.geometric(probability, batch), trials + 1)
        parts.append(last + np.cumsum(gaps))
        last = int(parts[-1][-1])
    places = np.concatenate(parts)
    return places[: np.searchsorted(places, trials)]


def _excesses(
    generator: np.random.Generator, size: int, alpha: float, degrees: float | None
) -> Iterator[Floats]:
    """`size` draws of (Y - q) / E(Y - q | Y > q) given Y > q, in pieces; P(Y > q) = alpha."""
    if degrees is None:
        standard = NormalDist()
        q = -standard.inv_cdf(alpha)
        mean = standard.pdf(q) / alpha
    else:
        q, mean = student_t_tail(alpha, degrees)
    missing = size
    while missing:
        batch = missing + missing // 2 + 10
        drawn = (
            _kept_of_all(generator, batch, q, degrees)
            if alpha > _WIDE_TAIL
            else _kept_of_tail(generator, batch, q, degrees)
        )[:missing]
        missing -= len(drawn)
        yield (drawn - q) / (mean - q)


def _kept_of_all(
    generator: np.random.Generator, batch: int, q: float, degrees: float | None
) -> Floats:
    drawn = (
        generator.standard_normal(batch)
        if degrees is None
        else generator.standard_t(degrees, batch)
    )
    size = np.abs(drawn)
    return size[size > q]


def _kept_of_tail(
    generator: np.random.Generator, batch: int, q: float, degrees: float | None
) -> Floats:
    """Marsaglia's tail method: Technometrics 6 (1964) for the normal; the same for Student's t.

    Given Y > q the candidate has a squared size with an exponential tail (for t, 1 + Y^2 / nu has
    a Pareto tail), and is kept with the probability that corrects its density.
    """
    uniform = 1.0 - generator.random(batch)
    if degrees is None:
        size = np.sqrt(q * q - 2.0 * np.log(uniform))
        keep = q / size
    else:
        scale = 1.0 + q * q / degrees
        size = np.sqrt(degrees * (scale * uniform ** (-2.0 / degrees) - 1.0))
        keep = np.sqrt((1.0 + degrees / np.square(size)) / (1.0 + degrees / (q * q)))
    result: Floats = size[generator.random(batch) < keep]
    return result
