"""Every number of one return series, in one pass: what a backfill calls for each day."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import finite_returns
from riskhub.risk.levels import LEVELS, Level
from riskhub.risk.returns import annualised, drawdowns, moments
from riskhub.risk.var import Method, Tail, historical_from_sorted, normal_from_moments


@dataclass(frozen=True, slots=True)
class RiskNumbers:
    """The risk of a series of n daily returns.

    `mean`, `volatility`: per day, ddof=1. `annualised_volatility`: per 252 days. `max_drawdown`,
    `current_drawdown`: positive fractions of the peak. `tails`: the historical one at each level,
    then the normal one at each level.
    """

    n: int
    mean: float
    volatility: float
    annualised_volatility: float
    max_drawdown: float
    current_drawdown: float
    tails: tuple[Tail, ...]

    def tail(self, method: Method, level: Level) -> Tail:
        """The tail by that method at that level. Raises LookupError when it was not measured."""
        for tail in self.tails:
            if tail.method == method and tail.level == level:
                return tail
        raise LookupError(f"no {method} tail at {level}")


def measure(returns: ArrayLike, levels: Sequence[Level] = LEVELS) -> RiskNumbers:
    """All numbers of daily returns (n,), n >= 2, oldest first.

    Raises `TooFewReturns`, `NotFinite`, `WrongShape`, `BadLevel`.
    """
    series = finite_returns(returns, at_least=2)
    mean, sigma = moments(series)
    depth = drawdowns(series)
    ascending = np.sort(series)
    return RiskNumbers(
        n=len(series),
        mean=mean,
        volatility=sigma,
        annualised_volatility=annualised(sigma),
        max_drawdown=float(depth.max()),
        current_drawdown=float(depth[-1]),
        tails=(
            *(historical_from_sorted(ascending, level) for level in levels),
            *(normal_from_moments(mean, sigma, level) for level in levels),
        ),
    )
