"""VaR and ES by the Cornish-Fisher expansion: a normal quantile bent by skewness and kurtosis.

Outside the domain in which the expansion keeps quantiles in order it is refused, for there the
99 % VaR can lie below the 95 % one: Maillard, "A User's Guide to the Cornish Fisher Expansion"
(2012, SSRN 1997178).

The expansion's S and K are the sample's skewness and excess kurtosis themselves. Maillard's
second warning stands: the bent distribution has somewhat other moments than S and K.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, finite_returns
from riskhub.risk.levels import Level
from riskhub.risk.returns import moments
from riskhub.risk.var import Tail, standard_normal_tail

_F = TypeVar("_F", float, Floats)


class OutsideMaillardDomain(RiskInputError):
    """The Cornish-Fisher expansion is not monotone at this skewness and excess kurtosis."""

    def __init__(self, skewness: float, kurtosis: float) -> None:
        super().__init__(
            f"skewness S = {skewness:.6g} and excess kurtosis K = {kurtosis:.6g} lie outside "
            "Maillard's domain: the Cornish-Fisher expansion is not monotone there"
        )
        self.skewness = skewness
        self.kurtosis = kurtosis


def cornish_fisher(returns: ArrayLike, level: Level) -> Tail:
    """VaR and ES of daily returns (n,), n >= 2, from their first four moments.

    Mean and deviation (ddof=1) as in `normal`, skewness and kurtosis as in `shape`. Raises
    `OutsideMaillardDomain`, `TooFewReturns`, `NotFinite`, `WrongShape`, `BadLevel`.
    """
    series = finite_returns(returns, at_least=2)
    return cornish_fisher_from_moments(*moments(series), *shape(series), level)


def cornish_fisher_var(returns: ArrayLike, level: Level) -> float:
    """The VaR of `cornish_fisher`, positive, as a fraction of equity. Raises as it does."""
    return cornish_fisher(returns, level).var


def cornish_fisher_from_moments(
    mean: float, sigma: float, skewness: float, kurtosis: float, level: Level
) -> Tail:
    """VaR = -mean + sigma w(z) with z the c-quantile of N(0, 1) and, of the losses, s = -S:

    w(z) = z + (z^2 - 1) s/6 + (z^3 - 3z) K/24 - (2z^3 - 5z) s^2/36

    ES = -mean + sigma phi(z)/(1 - c) (1 + z s/6 + (z^2 - 1) K/24 - (2z^2 - 1) s^2/36), which is
    the mean of w beyond z, as in Maillard's paper. Each term follows from
    integral_z^inf He_n phi = He_{n-1}(z) phi(z) for the Hermite polynomials He_n.

    `mean`, `sigma` (>= 0) per day; `skewness` of the returns, so negative for a fat loss tail;
    `kurtosis` in excess of the normal's 3. Raises `OutsideMaillardDomain`, `NotFinite`,
    `BadLevel`, and `RiskInputError` for a negative sigma.
    """
    if not np.isfinite([mean, sigma, skewness, kurtosis]).all():
        raise NotFinite(f"moments {mean}, {sigma}, {skewness}, {kurtosis} must be finite")
    if sigma < 0:
        raise RiskInputError(f"sigma {sigma} is negative")
    if not in_maillard_domain(skewness, kurtosis):
        raise OutsideMaillardDomain(skewness, kurtosis)
    var, es = bent_tail(skewness, kurtosis, level)
    return Tail(
        method="cornish_fisher",
        level=level,
        var=sigma * var - mean,
        es=sigma * es - mean,
        rank=None,
        var_next=None,
    )


def bent_tail(skewness: _F, kurtosis: _F, level: Level) -> tuple[_F, _F]:
    """VaR and ES of mean 0 and sigma 1. Raises `BadLevel`; the domain is not checked here."""
    z, es = standard_normal_tail(level)
    s, k = -skewness / 6, kurtosis / 24
    square = s * s
    return (
        z + (z * z - 1) * s + (z * z - 3) * z * k - (2 * z * z - 5) * z * square,
        es * (1 + z * s + (z * z - 1) * k - (2 * z * z - 1) * square),
    )


def in_maillard_domain(skewness: float, kurtosis: float) -> bool:
    """Whether w is monotone in z: S^2/9 - 4 (K/8 - S^2/6) (1 - K/8 + 5 S^2/36) <= 0.

    That is the discriminant of w'; both factors are then >= 0, so S = 0 allows K in [0, 8], and
    no K is allowed beyond |S| = 6 (sqrt(2) - 1), about 2.485. `kurtosis` is in excess of 3.
    """
    s, k = skewness / 6, kurtosis / 24
    curvature, slope = 3 * k - 6 * s * s, 1 - 3 * k + 5 * s * s
    return curvature >= 0 and slope >= 0 and s * s <= curvature * slope


def shape(returns: ArrayLike) -> tuple[float, float]:
    """Skewness m3 / m2^1.5 and excess kurtosis m4 / m2^2 - 3 of returns (n,), n >= 2.

    m_j are the central moments of the sample, divided by n (no bias correction: Joanes and Gill's
    g1 and g2, The Statistician 47, 1998). Of returns that are all equal, both are 0: there is
    nothing to bend. Raises `TooFewReturns`, `WrongShape`, and `NotFinite` also on overflow.
    """
    skewness, kurtosis = shapes(finite_returns(returns, at_least=2)[np.newaxis])
    return float(skewness[0]), float(kurtosis[0])


def shapes(rows: Floats) -> tuple[Floats, Floats]:
    """`shape` of each row of (m, n) finite returns: two arrays (m,). Raises `NotFinite`."""
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = rows - rows.mean(axis=1)[:, np.newaxis]
        size = np.abs(deviation).max(axis=1)
        flat = (size == 0) | (rows.max(axis=1) == rows.min(axis=1))
        # In units of the largest deviation: the fourth power of a small return underflows.
        deviation /= np.where(flat, 1.0, size)[:, np.newaxis]
        square = deviation * deviation
        m2 = np.where(flat, 1.0, square.mean(axis=1))
        m3 = (square * deviation).mean(axis=1)
        m4 = (square * square).mean(axis=1)
        skewness = np.where(flat, 0.0, m3 / (m2 * np.sqrt(m2)))
        kurtosis = np.where(flat, 0.0, m4 / (m2 * m2) - 3.0)
    if not (np.isfinite(skewness).all() and np.isfinite(kurtosis).all()):
        raise NotFinite("returns are too large to have a kurtosis")
    return skewness, kurtosis
