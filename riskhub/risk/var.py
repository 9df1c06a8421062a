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

Method = Literal[
    "historical",
    "normal",
    "cornish_fisher",
    "student_t",
    "ewma",
    "filtered_historical",
    "monte_carlo",
]


@dataclass(frozen=True, slots=True)
class Tail:
    """VaR and ES by one method at one level; es >= var, both finite or refused as `NotFinite`.

    `rank`: the VaR is the rank-th worst return (historical), scaled return (filtered_historical)
    or draw (monte_carlo). `var_next`: the VaR had the convention picked the next rank, so
    `var - var_next` is what the convention is worth; None where there is no next one. Both are
    None for the methods with a formula.
    """

    method: Method
    level: Level
    var: float
    es: float
    rank: int | None
    var_next: float | None

    def __post_init__(self) -> None:
        if not (isfinite(self.var) and isfinite(self.es)):
            raise NotFinite(f"the {self.method} VaR {self.var} and ES {self.es} are not finite")


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


def historical_from_sorted(ascending: Floats, level: Level, method: Method = "historical") -> Tail:
    """As `historical`, for finite returns (n,) that are sorted already, worst first.

    They are not checked: one sort serves every level. `method` says what the sorted values are,
    where they are not the returns as they were. Raises `TooFewReturns`, `BadLevel`, and
    `NotFinite` when a sum of them overflows.
    """
    n = len(ascending)
    k = rank(n, level)
    worst = ascending[:k]
    var = 0.0 - float(worst[-1])  # `0.0 -` leaves no -0.0
    with np.errstate(over="ignore"):
        excess = float((worst[-1] - worst).sum())
    return Tail(
        method=method,
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


def normal_from_moments(mean: float, sigma: float, level: Level, method: Method = "normal") -> Tail:
    """VaR = -mean + sigma z, ES = -mean + sigma phi(z) / (1 - c), with z the c-quantile of N(0, 1).

    `mean` and `sigma` (>= 0) of daily returns, per day. `method` says where they come from.
    McNeil, Frey and Embrechts, "Quantitative Risk Management" (2015), section 2.3. Raises
    `NotFinite`, `BadLevel`, and `RiskInputError` for a negative sigma.
    """
    if not (isfinite(mean) and isfinite(sigma)):
        raise NotFinite(f"mean {mean} and sigma {sigma} must be finite")
    if sigma < 0:
        raise RiskInputError(f"sigma {sigma} is negative")
    z, es = standard_normal_tail(level)
    return Tail(
        method=method,
        level=level,
        var=sigma * z - mean,
        es=sigma * es - mean,
        rank=None,
        var_next=None,
    )


def standard_normal_tail(level: Level) -> tuple[float, float]:
    """VaR z and ES phi(z) / (1 - c) of N(0, 1). Raises `BadLevel`."""
    alpha = tail_mass(1, level)
    z = -_STANDARD.inv_cdf(alpha)  # from the small side: 1 - 1e-17 is no float, 1e-17 is
    return z, _STANDARD.pdf(z) / alpha


def historical_var(returns: ArrayLike, level: Level) -> float:
    """The VaR of `historical`, a positive loss as a fraction of equity. Raises as it does."""
    return historical(returns, level).var


def historical_es(returns: ArrayLike, level: Level) -> float:
    """The ES of `historical`, a positive loss as a fraction of equity. Raises as it does."""
    return historical(returns, level).es


def normal_var(returns: ArrayLike, level: Level) -> float:
    """The VaR of `normal`, a positive loss as a fraction of equity. Raises as it does."""
    return normal(returns, level).var


_STANDARD = NormalDist()
