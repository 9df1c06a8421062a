"""Kupiec's test: are there as many exceedances as there should be?"""

from dataclasses import dataclass
from fractions import Fraction
from math import log, log1p
from typing import SupportsIndex

from riskhub.risk.backtest.distributions import binomial_two_sided, chi_square_sf
from riskhub.risk.backtest.inputs import (
    SIGNIFICANCE,
    Alpha,
    checked_significance,
    counted,
    exact_alpha,
)


@dataclass(frozen=True, slots=True)
class Kupiec:
    """The proportion of failures against alpha.

    `statistic`: LR_uc >= 0. `p_value`: by the chi-square law with one degree of freedom.
    `p_value_exact`: by the binomial law, of the outcomes that are no more probable than this one.
    `reject` goes by the first, as published, and `reject_exact` by the second.
    """

    observations: int
    exceedances: int
    alpha: Fraction
    significance: float
    statistic: float
    p_value: float
    p_value_exact: float
    reject: bool

    @property
    def expected(self) -> float:
        """How many exceedances a right VaR has on average: observations * alpha."""
        return float(self.observations * self.alpha)

    @property
    def rate(self) -> float:
        """Exceedances per observation, to be held against alpha."""
        return self.exceedances / self.observations

    @property
    def reject_exact(self) -> bool:
        """Whether the exact p-value is at most the significance."""
        return self.p_value_exact <= self.significance


def kupiec(
    observations: SupportsIndex,
    exceedances: SupportsIndex,
    alpha: Alpha,
    *,
    significance: float = SIGNIFICANCE,
) -> Kupiec:
    """Unconditional coverage, two-sided: too few exceedances count against a VaR as well.

    LR_uc = 2 (x log(x / (n alpha)) + (n - x) log((n - x) / (n (1 - alpha)))), 0 log 0 = 0: P.
    Kupiec, "Techniques for verifying the accuracy of risk measurement models", J. Derivatives 3
    (1995). His table prints `N < 7` for 255 days at 1 %, without a lower end; by the formula no
    exceedance at all is rejected too (5.13 > 3.84). The exact test does not reject it.

    `observations` n >= 1, `exceedances` x in [0, n], `alpha` as in `exact_alpha`.
    Raises `BadAlpha`, `BadCount`, `TooFewObservations`, `BadSignificance`.
    """
    days, hits = counted(observations, exceedances)
    tail = exact_alpha(alpha)
    limit = checked_significance(significance)
    statistic = unconditional_coverage(days, hits, tail)
    p_value = chi_square_sf(statistic, 1)
    return Kupiec(
        observations=days,
        exceedances=hits,
        alpha=tail,
        significance=limit,
        statistic=statistic,
        p_value=p_value,
        p_value_exact=binomial_two_sided(days, hits, tail),
        reject=p_value <= limit,
    )


def unconditional_coverage(days: int, hits: int, alpha: Fraction) -> float:
    """LR_uc of checked inputs; >= 0."""
    ratio = 0.0
    if hits:
        ratio += hits * _log(Fraction(hits, days) / alpha)
    if days > hits:
        ratio += (days - hits) * _log(Fraction(days - hits, days) / (1 - alpha))
    return max(0.0, 2.0 * ratio)


def _log(x: Fraction) -> float:
    """Also near 1 to the last digits, where the float of x has lost them."""
    return log1p(float(x - 1)) if 2 * x > 1 and x < 2 else log(x.numerator) - log(x.denominator)
