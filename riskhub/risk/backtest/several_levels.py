"""Kratz, Lok and McNeil's test: VaR at several levels at once, which is a test of the tail.

"Multinomial VaR backtests: a simple implicit approach to backtesting expected shortfall",
J. Banking & Finance 88 (2018).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.backtest.distributions import chi_square_sf
from riskhub.risk.backtest.inputs import (
    SIGNIFICANCE,
    Alpha,
    BadAlpha,
    BadCount,
    TooFewObservations,
    checked_significance,
    exact_alpha,
    whole,
)
from riskhub.risk.inputs import Floats, RiskInputError, WrongShape, finite_array

SIMULATIONS = 10_000


class CrossedLevels(RiskInputError):
    """A VaR that is smaller than one at a lower level of the same day."""


@dataclass(frozen=True, slots=True)
class MultinomialStatistic:
    """One way to measure how far the counts are from what was expected; >= 0.

    `p_value`: by the chi-square law with `degrees_of_freedom`, which is not whole for Nass.
    `p_value_simulated`: by the simulated law for this many observations. `reject` goes by the
    first, `reject_simulated` by the second.
    """

    statistic: float
    degrees_of_freedom: float
    p_value: float
    p_value_simulated: float
    significance: float

    @property
    def reject(self) -> bool:
        """Whether the p-value is at most the significance."""
        return self.p_value <= self.significance

    @property
    def reject_simulated(self) -> bool:
        """Whether the simulated p-value is at most the significance."""
        return self.p_value_simulated <= self.significance


@dataclass(frozen=True, slots=True)
class Multinomial:
    """How many days exceeded none, just one, ..., all of N values at risk.

    `alphas`: descending. `counts`, `expected`: N + 1 of each. `statistic`, `p_value` and `reject`
    are those of Nass, which keeps its size whatever N is.
    """

    observations: int
    alphas: tuple[Fraction, ...]
    counts: tuple[int, ...]
    expected: tuple[float, ...]
    significance: float
    simulations: int
    seed: int
    pearson: MultinomialStatistic
    nass: MultinomialStatistic
    likelihood_ratio: MultinomialStatistic

    @property
    def statistic(self) -> float:
        """That of Nass."""
        return self.nass.statistic

    @property
    def p_value(self) -> float:
        """That of Nass."""
        return self.nass.p_value

    @property
    def reject(self) -> bool:
        """Whether Nass rejects."""
        return self.nass.reject


def multinomial_alphas(alpha: Alpha, count: SupportsIndex = 4) -> tuple[Fraction, ...]:
    """Their N levels c_j = c + (j - 1) / N (1 - c), as alphas: alpha, ..., alpha / N.

    They start at c = 97.5 % and find N = 4 or more worth having. Raises `BadAlpha`, `BadCount`.
    """
    tail = exact_alpha(alpha)
    n = whole(count, "levels", at_least=1)
    return tuple(tail * Fraction(n - j, n) for j in range(n))


def multinomial(
    var: ArrayLike,
    losses: ArrayLike,
    alphas: Sequence[Alpha],
    *,
    significance: float = SIGNIFICANCE,
    simulations: SupportsIndex = SIMULATIONS,
    seed: SupportsIndex = 0,
) -> Multinomial:
    """The test for forecasts `var` (n, N), n >= 1, one column per alpha, and `losses` (n,).

    Made and paired as in `exceedances`; at a smaller alpha a VaR is no smaller. The null: the days
    are independent, and each exceeds the j-th VaR with probability alphas[j].

    Raises `CrossedLevels`, `WrongShape`, `NotFinite`, and as `multinomial_from_counts`.
    """
    forecast = finite_array(var, 2, "values at risk")
    actual = finite_array(losses, 1, "losses")
    if forecast.shape != (len(actual), len(alphas)):
        raise WrongShape(
            f"values at risk of the shape {forecast.shape} for {len(actual)} losses"
            f" and {len(alphas)} alphas"
        )
    crossed = (np.diff(forecast, axis=1) < 0).any(axis=1).sum()
    if crossed:
        raise CrossedLevels(f"on {crossed} day(s) a value at risk is smaller at a smaller alpha")
    exceeded = (actual[:, np.newaxis] > forecast).sum(axis=1)
    return multinomial_from_counts(
        np.bincount(exceeded, minlength=len(alphas) + 1).tolist(),
        alphas,
        significance=significance,
        simulations=simulations,
        seed=seed,
    )


def multinomial_from_counts(
    counts: Sequence[SupportsIndex],
    alphas: Sequence[Alpha],
    *,
    significance: float = SIGNIFICANCE,
    simulations: SupportsIndex = SIMULATIONS,
    seed: SupportsIndex = 0,
) -> Multinomial:
    """The test for N alphas, strictly descending, and N + 1 counts O_0, ..., O_N.

    O_j days exceeded just j of the values at risk; p_j is the probability of that, n = sum O_j.
    Pearson: S = sum (O_j - n p_j)^2 / (n p_j), chi-square with N degrees of freedom.
    Nass: c S with c = 2 E(S) / var(S), chi-square with c E(S) degrees of freedom, E(S) = N,
    var(S) = 2 N - (N^2 + 4 N + 1) / n + sum(1 / p_j) / n.
    Likelihood ratio: 2 sum O_j log(O_j / (n p_j)), 0 log 0 = 0, chi-square with N: the
    alternative is any other multinomial, not just the ones of normal losses.

    Simulated p-values are (1 + #{S simulated >= S}) / (1 + simulations). Same seed, same numbers,
    with the same numpy.

    Raises `BadAlpha`, `BadCount`, `TooFewObservations`, `BadSignificance`, `WrongShape`.
    """
    tails = _descending(alphas)
    observed = [whole(count, "a count") for count in counts]
    if len(observed) != len(tails) + 1:
        raise WrongShape(f"{len(observed)} counts for {len(tails)} alphas")
    n = sum(observed)
    if n < 1:
        raise TooFewObservations(n, 1)
    limit = checked_significance(significance)
    runs, start = whole(simulations, "simulations", at_least=1), whole(seed, "seed")

    probabilities = [
        high - low for high, low in zip((Fraction(1), *tails), (*tails, Fraction(0)), strict=True)
    ]
    floats = np.array([float(p) for p in probabilities])
    expected = n * floats
    simulated = np.random.default_rng(start).multinomial(n, floats / floats.sum(), runs)

    def held(
        measure: Callable[[Floats, Floats], Floats], scale: float, degrees: float
    ) -> MultinomialStatistic:
        statistic = float(measure(np.array([observed], dtype=float), expected)[0])
        null = measure(simulated.astype(float), expected)
        reached = int((null >= statistic - 1e-9 * max(1.0, statistic)).sum())
        return MultinomialStatistic(
            statistic=scale * statistic,
            degrees_of_freedom=degrees,
            p_value=chi_square_sf(scale * statistic, degrees),
            p_value_simulated=(1 + reached) / (1 + runs),
            significance=limit,
        )

    levels = len(tails)
    scale = _nass_scale(n, probabilities)
    return Multinomial(
        observations=n,
        alphas=tails,
        counts=tuple(observed),
        expected=tuple(expected.tolist()),
        significance=limit,
        simulations=runs,
        seed=start,
        pearson=held(_pearson, 1.0, levels),
        nass=held(_pearson, scale, scale * levels),
        likelihood_ratio=held(_likelihood_ratio, 1.0, levels),
    )


def _descending(alphas: Sequence[Alpha]) -> tuple[Fraction, ...]:
    tails = tuple(exact_alpha(alpha) for alpha in alphas)
    if not tails:
        raise BadCount("at least one alpha is needed")
    if any(high <= low for high, low in pairwise(tails)):
        raise BadAlpha("alphas must descend strictly: the levels rise")
    return tails


def _pearson(counts: Floats, expected: Floats) -> Floats:
    result: Floats = (np.square(counts - expected) / expected).sum(axis=1)
    return result


def _likelihood_ratio(counts: Floats, expected: Floats) -> Floats:
    logs = np.log(np.where(counts > 0, counts / expected, 1.0))
    result: Floats = np.maximum(2.0 * (counts * logs).sum(axis=1), 0.0)
    return result


def _nass_scale(n: int, probabilities: Sequence[Fraction]) -> float:
    """c = 2 E(S) / var(S). 1 where S does not vary: one day, and two cells of one half."""
    levels = len(probabilities) - 1
    spread = sum((1 / p for p in probabilities), Fraction(0)) - (levels * levels + 4 * levels + 1)
    variance = 2 * levels + spread / n
    return float(2 * levels / variance) if variance else 1.0
