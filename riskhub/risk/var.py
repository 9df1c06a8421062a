"""Value at risk and expected shortfall of one return series.

A loss is L = -r. Both numbers are losses: positive when money is lost, as a fraction of equity,
over one day (the horizon of the returns). A negative one is a gain even in the tail.
"""

from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, finite_returns
from riskhub.risk.levels import Level, rank, tail_mass
from riskhub.risk.returns import moments

Method = Literal["historical", "normal"]


@dataclass(frozen=True, slots=True)
class Tail:
    """VaR and ES by one method at one level; es >= var.

    `rank`: the VaR is the rank-th worst return. `var_next`: the VaR had the convention picked the
    next rank, so `var - var_next` is what the convention is worth; None where there is no next
    one. Both are None for the normal method.
    """

    method: Method
    level: Level
    var: float
    es: float
    rank: int | None
    var_next: float | None


def historical(returns: ArrayLike, level: Level) -> Tail:
    """VaR and ES of the empirical distribution of daily returns (n,), n >= 1.

    VaR is the k-th worst loss, k = ceil(n (1 - c)), without interpolation: the upper c-quantile
    of the losses; when n (1 - c) is whole, `var_next` is the lower one. With fewer than 1/(1 - c)
    returns it is the worst loss, whatever the level.

    ES averages the worst n (1 - c) losses, the last one in part where that is not whole: Acerbi
    and Tasche, "On the coherence of expected shortfall", J. Banking & Finance 26 (2002). Computed
    as VaR + sum(max(L - VaR, 0)) / (n (1 - c)), which is the same number (Rockafellar and
    Uryasev, same volume): the loss taken in part is the VaR itself and exceeds it by nothing.

    Raises `TooFewReturns`, `NotFinite`, `WrongShape`, `BadLevel`.
    """
    return historical_from_sorted(np.sort(finite_returns(returns)), level)


def historical_from_sorted(ascending: Floats, level: Level) -> Tail:
    """As `historical`, for finite returns (n,) that are sorted already, worst first.

    They are not checked: one sort serves every level. Raises `TooFewReturns`, `BadLevel`.
    """
    n = len(ascending)
    k = rank(n, level)
    worst = ascending[:k]
    var = 0.0 - float(worst[-1])  # `0.0 -` leaves no -0.0
    excess = float((worst[-1] - worst).sum())
    return Tail(
        method="historical",
        level=level,
        var=var,
        es=var + excess / tail_mass(n, level),
        rank=k,
        var_next=0.0 - float(ascending[k]) if k < n else None,
    )


def normal(returns: ArrayLike, level: Level) -> Tail:
    """VaR and ES of the normal distribution with the mean and deviation of returns (n,), n >= 2.

    Raises `TooFewReturns`, `NotFinite`, `WrongShape`, `BadLevel`.
    """
    return normal_from_moments(*moments(returns), level)


def normal_from_moments(mean: float, sigma: float, level: Level) -> Tail:
    """VaR = -mean + sigma z, ES = -mean + sigma phi(z) / (1 - c), with z the c-quantile of N(0, 1).

    `mean` and `sigma` (>= 0) of daily returns, per day. McNeil, Frey and Embrechts, "Quantitative
    Risk Management" (2015), section 2.3. Raises `NotFinite`, `BadLevel`, and `RiskInputError` for
    a negative sigma.
    """
    if not (isfinite(mean) and isfinite(sigma)):
        raise NotFinite(f"mean {mean} and sigma {sigma} must be finite")
    if sigma < 0:
        raise RiskInputError(f"sigma {sigma} is negative")
    alpha = tail_mass(1, level)
    z = -_STANDARD.inv_cdf(alpha)  # from the small side: 1 - 1e-17 is no float, 1e-17 is
    return Tail(
        method="normal",
        level=level,
        var=sigma * z - mean,
        es=sigma * _STANDARD.pdf(z) / alpha - mean,
        rank=None,
        var_next=None,
    )


_STANDARD = NormalDist()
