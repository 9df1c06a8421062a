"""Euler contributions: which positions a portfolio's VaR and ES come from.

VaR and ES are homogeneous of degree one in the weights, so by Euler's theorem they are the sum of
w_i times their derivative in w_i: Tasche, "Risk contributions and performance measurement" (1999);
McNeil, Frey and Embrechts, "Quantitative Risk Management" (2015), section 8.5. A position that
hedges contributes a negative amount. Contributions add up to VaR and ES within 1e-12 of the sum of
their sizes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import fitting, risky_volatility
from riskhub.risk.inputs import Floats, RiskInputError, WrongShape, finite_array
from riskhub.risk.levels import Level, rank, tail_mass
from riskhub.risk.returns import portfolio_returns
from riskhub.risk.var import Tail, historical_from_sorted, normal_from_moments

NEAR_ZERO = 1e-9


class NothingToShare(RiskInputError):
    """The total is no loss, or is next to nothing beside its parts: shares of it mean nothing."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each position adds to the VaR and the ES of `tail`; arrays (N,), read-only.

    `marginal_var`, `marginal_es`: the derivative in the weight, a loss per unit of weight.
    `component_var`, `component_es`: weight times derivative, a loss as a fraction of equity.
    """

    tail: Tail
    marginal_var: Floats = field(repr=False, compare=False)
    marginal_es: Floats = field(repr=False, compare=False)
    component_var: Floats = field(repr=False, compare=False)
    component_es: Floats = field(repr=False, compare=False)

    def var_shares(self) -> Floats:
        """(N,) each position's fraction of the VaR, summing to 1: 0.25 is 25 per cent of it.

        Raises `NothingToShare` when the VaR is below 1e-9 of the sum of the components' sizes,
        which covers a VaR that is zero, or a gain.
        """
        return shares(self.component_var, "value at risk")

    def es_shares(self) -> Floats:
        """(N,) each position's fraction of the ES, summing to 1. Raises as `var_shares`."""
        return shares(self.component_es, "expected shortfall")


def euler_contributions(
    weights: ArrayLike, covariance: ArrayLike, level: Level, means: ArrayLike | None = None
) -> Contributions:
    """Normal VaR and ES of a portfolio, split over its positions.

    With sigma = sqrt(w' C w): marginal VaR_i = z (C w)_i / sigma - mu_i, and marginal ES_i the
    same with phi(z) / (1 - c) for z; components are w_i times that.

    Args:
        weights: (N,), signed fractions of equity.
        covariance: (N, N), daily, ddof as it was made.
        level: exact.
        means: (N,) mean returns per day; None is zero, as is usual over one day.

    Raises:
        NoRisk: the variance is within 1e-10 of what it would be did nothing hedge; its root has
            no derivative at zero. Of a portfolio without positions, too.
        NotPsd: the portfolio's variance is negative.
        RiskInputError: `NotFinite`, `WrongShape`, `NotSymmetric`, `BadLevel`.
    """
    vector, matrix = fitting(weights, covariance)
    mean = np.zeros_like(vector) if means is None else finite_array(means, 1, "means")
    if mean.shape != vector.shape:
        raise WrongShape(f"{len(mean)} means for {len(vector)} weights")
    sigma = risky_volatility(vector, matrix)
    unit = normal_from_moments(0.0, 1.0, level)
    slope = matrix @ vector / sigma
    return _contributions(
        normal_from_moments(float(mean @ vector), sigma, level),
        vector,
        unit.var * slope - mean,
        unit.es * slope - mean,
    )


def historical_contributions(
    weights: ArrayLike, scenarios: ArrayLike, level: Level
) -> Contributions:
    """Historical VaR and ES of a portfolio, split over its positions.

    The component VaR is the position's loss in the scenario that is the VaR, the k-th worst; one
    scenario decides it, so it is much noisier than the component ES. That is the mean of the
    position's losses over the tail of n (1 - c) scenarios, the k-th in part where that is not
    whole: Acerbi and Tasche's weights, as in `historical`. Scenarios of the same portfolio return
    are ranked oldest first.

    `weights`: (N,), signed fractions of equity. `scenarios`: (n, N), simple returns, n >= 1.
    Raises `TooFewReturns`, `WrongShape`, `NotFinite`, `BadLevel`.
    """
    vector = finite_array(weights, 1, "weights")
    matrix = finite_array(scenarios, 2, "scenarios")
    outcomes = portfolio_returns(matrix, vector)
    n = len(outcomes)
    k = rank(n, level)
    order = np.argsort(outcomes, kind="stable")
    tail_losses = 0.0 - matrix[order[:k]]
    mass = tail_mass(n, level)
    parts = np.ones(k)
    parts[-1] = mass - (k - 1)
    return _contributions(
        historical_from_sorted(outcomes[order], level),
        vector,
        tail_losses[-1].copy(),
        parts @ tail_losses / mass,
    )


def _contributions(tail: Tail, weights: Floats, by_var: Floats, by_es: Floats) -> Contributions:
    # `+ 0.0` leaves no -0.0
    arrays = (by_var, by_es, weights * by_var + 0.0, weights * by_es + 0.0)
    for array in arrays:
        finite_array(array, 1, "contributions")
        array.setflags(write=False)
    return Contributions(tail, *arrays)


def shares(components: ArrayLike, name: str = "total") -> Floats:
    """(N,) each component's fraction of the sum of the components (N,), summing to 1.

    Raises `NothingToShare`, calling the sum by `name`, when it is below 1e-9 of the sum of the
    components' sizes, which covers one that is zero, or a gain; `NotFinite`, `WrongShape`.
    """
    vector = finite_array(components, 1, "components")
    total, size = float(vector.sum()), float(np.abs(vector).sum())
    if total <= NEAR_ZERO * size:
        raise NothingToShare(f"the {name} is {total:g}: no loss to have shares of")
    result: Floats = vector / total
    return result
