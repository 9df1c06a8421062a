"""How much of a portfolio sits in how few names.

Weights are (N,) signed fractions of equity. Long and short count alike towards concentration.
"""

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import fitting, risky_volatility, volatilities
from riskhub.risk.inputs import RiskInputError, finite_array

EIGENVALUE_GAP = 1e-9  # eigenvalues nearer than this fraction of the largest count as one


class NothingHeld(RiskInputError):
    """Every weight is zero, so nothing is concentrated in anything."""


class AmbiguousBets(RiskInputError):
    """The principal components that a portfolio bets on are not unique."""


def gross(weights: ArrayLike) -> float:
    """sum |w|: gross exposure as a fraction of equity, >= 0. Raises `NotFinite`, `WrongShape`."""
    return float(np.abs(finite_array(weights, 1, "weights")).sum())


def net(weights: ArrayLike) -> float:
    """sum w: net exposure as a signed fraction of equity. Raises `NotFinite`, `WrongShape`."""
    return float(finite_array(weights, 1, "weights").sum())


def largest(weights: ArrayLike) -> float:
    """max |w|: the largest position, long or short, as a fraction of equity, >= 0.

    Raises `NotFinite`, `WrongShape`.
    """
    return float(np.abs(finite_array(weights, 1, "weights")).max(initial=0.0))


def herfindahl(weights: ArrayLike) -> float:
    """sum (|w_i| / sum |w|)^2, in [1/N, 1]: 1/N for equal sizes, 1 for a single name.

    The Herfindahl-Hirschman index of gross exposure. Raises `NothingHeld`, `NotFinite`,
    `WrongShape`.
    """
    size = np.abs(finite_array(weights, 1, "weights"))
    total = size.sum()
    if total == 0:
        raise NothingHeld("every weight is zero")
    return float(np.square(size / total).sum())


def effective_names(weights: ArrayLike) -> float:
    """1 / herfindahl, in [1, N]: how many equal positions would be as concentrated.

    Raises as `herfindahl`.
    """
    return 1.0 / herfindahl(weights)


def diversification_ratio(weights: ArrayLike, covariance: ArrayLike) -> float:
    """sum |w_i| sigma_i / sqrt(w' C w), >= 1: how much of the single risks is diversified away.

    Choueifaty and Coignard, "Toward maximum diversification", J. Portfolio Management 35 (2008),
    with |w| for w, so that it is defined for shorts: a hedge diversifies. `covariance`: (N, N),
    daily. Raises `NoRisk` where hedges leave no variance to divide by (or nothing is held),
    `NotPsd`, `NoVariance` for a negative variance, `NotSymmetric`, `NotFinite`, `WrongShape`.
    """
    vector, matrix = fitting(weights, covariance)
    return float(np.abs(vector) @ volatilities(matrix)) / risky_volatility(vector, matrix)


def effective_bets(weights: ArrayLike, covariance: ArrayLike) -> float:
    """exp(-sum p_k ln p_k), in [1, N]: over how many uncorrelated bets the variance is spread.

    The bets are the principal components: p_k = (e_k' w)^2 lambda_k / w' C w, with e_k, lambda_k
    the eigenvectors and eigenvalues of `covariance` (N, N), daily. Meucci, "Managing
    diversification", Risk 22 (2009). Shorts need no special care: it divides by the variance.

    Components of one eigenvalue are not unique, and each choice gives another number. Where they
    carry variance of the portfolio together, raises `AmbiguousBets`; raises also as
    `diversification_ratio`.
    """
    vector, matrix = fitting(weights, covariance)
    risky_volatility(vector, matrix)
    values, vectors = np.linalg.eigh(matrix)
    carried = np.square(vector @ vectors) * np.maximum(values, 0.0)
    shares = carried / carried.sum()
    same = np.diff(values) <= EIGENVALUE_GAP * values[-1]
    groups = np.cumsum(np.concatenate(([True], ~same)))
    for group in np.unique(groups[1:][same]):
        if shares[groups == group].sum() > EIGENVALUE_GAP:
            raise AmbiguousBets("the portfolio bets on components of one and the same eigenvalue")
    held = shares[shares > 0]
    return float(np.exp(-(held * np.log(held)).sum()))
