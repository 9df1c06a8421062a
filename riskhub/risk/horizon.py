"""VaR and ES over several days.

By overlapping windows of compounded returns. The square root of time is another number, which
supposes independent days of one distribution and mean zero: it is there when asked for by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, finite_returns
from riskhub.risk.levels import Level
from riskhub.risk.returns import Ruin
from riskhub.risk.var import Tail, historical

Rule = Literal["overlapping", "square_root_of_time"]


class BadHorizon(RiskInputError):
    """A horizon of less than one day."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """A tail over `days` days, positive losses as fractions of equity at the start of them.

    `windows`: how many overlapping windows it was made from, with which rank and var_next count;
    of these only about windows / days are independent. None by the square root of time.
    """

    days: int
    rule: Rule
    windows: int | None
    tail: Tail


def overlapping(
    returns: ArrayLike,
    level: Level,
    days: int,
    method: Callable[[ArrayLike, Level], Tail] = historical,
) -> Horizon:
    """VaR and ES over `days` days from daily returns (n,), n >= days, by `overlapping_returns`.

    `method` takes the n - days + 1 overlapping returns and the level: `historical`, `normal`,
    ... Raises as it does, and as `overlapping_returns`.
    """
    compounded = overlapping_returns(returns, days)
    return Horizon(days, "overlapping", len(compounded), method(compounded, level))


def square_root_of_time(tail: Tail, days: int) -> Horizon:
    """A daily tail times sqrt(days): Basel Committee, "Overview of the Amendment to the Capital
    Accord to incorporate market risks" (1996), which lets one-day numbers be scaled to ten days.

    True for independent normal days of mean zero; a mean in the tail is scaled with it. Raises
    `BadHorizon`.
    """
    root = sqrt(_checked(days))
    following = None if tail.var_next is None else tail.var_next * root
    scaled = replace(tail, var=tail.var * root, es=tail.es * root, var_next=following)
    return Horizon(days, "square_root_of_time", None, scaled)


def overlapping_returns(returns: ArrayLike, days: int) -> Floats:
    """(n - days + 1,) compounded returns of every `days` days on end, oldest first.

    Entry t is (1 + r_t) ... (1 + r_{t + days - 1}) - 1, to the last bit the same in every series
    that holds those days. Raises `BadHorizon`, `TooFewReturns` for n < days, `Ruin` for a return
    below -100 %, after which there is nothing to compound, `NotFinite` on overflow, `WrongShape`.
    """
    series = finite_returns(returns, at_least=_checked(days))
    if days == 1:
        return series.copy()  # 1 + r - 1 is not r
    if (series < -1.0).any():
        raise Ruin(f"a day lost {-float(series.min()):.2%} of equity")
    growth = 1.0 + series
    count = len(series) - days + 1
    wealth = growth[:count].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for day in range(1, days):
            wealth *= growth[day : day + count]
    if not np.isfinite(wealth).all():
        raise NotFinite(f"returns compounded over {days} days overflow")
    wealth -= 1.0
    return wealth


def _checked(days: int) -> int:
    if days < 1:
        raise BadHorizon(f"a horizon of {days} days")
    return days
