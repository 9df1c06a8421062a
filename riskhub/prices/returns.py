"""The returns of single days as rows, and those among them that a person should look at."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub.prices.panel import PricePanel

# Half the price is a 2:1 split. It is still seen on a day on which the stock gained 10 %.
SPLIT_LIKE = 0.45

Row = dict[str, Any]


def return_days_among(panel: PricePanel, days: Iterable[date]) -> list[date]:
    """Those of the days that have returns, oldest first."""
    return sorted(set(panel.return_days).intersection(days))


def returns_on(panel: PricePanel, days: Sequence[date]) -> NDArray[np.float64]:
    """(n, N) simple returns of n days that have some, in their order; a copy."""
    rows = [bisect_left(panel.return_days, day) for day in days]
    found: NDArray[np.float64] = panel.returns[rows]
    return found


def return_rows(panel: PricePanel, days: Iterable[date]) -> list[Row]:
    """Rows of `asset_returns`: each symbol's simple return of each day that has one.

    A day that is no trading day has none, nor has the first of the panel. A return needs the prices
    of its day and of the trading day before, and no other.
    """
    trading = return_days_among(panel, days)
    return [
        _row(day, symbol, value) | {"prices_digest": panel.digest}
        for day, values in zip(trading, returns_on(panel, trading), strict=True)
        for symbol, value in zip(panel.symbols, values, strict=True)
    ]


def split_like(panel: PricePanel, days: Sequence[date]) -> list[Row]:
    """The returns beyond 45 % of days that have some: the price may lack an adjustment."""
    returns = returns_on(panel, days)
    found = np.argwhere(np.abs(returns) > SPLIT_LIKE)
    return [_row(days[at], panel.symbols[of], returns[at, of]) for at, of in found]


def extremes(panel: PricePanel, days: Sequence[date], count: int) -> list[Row]:
    """The `count` worst and `count` best returns of days that have some, worst first."""
    returns = returns_on(panel, days)
    order = np.argsort(returns, axis=None, kind="stable")
    if len(order) > 2 * count:
        order = np.concatenate([order[:count], order[-count:]])
    places = np.column_stack(np.unravel_index(order, returns.shape))
    return [_row(days[at], panel.symbols[of], returns[at, of]) for at, of in places]


def _row(day: date, symbol: str, value: np.float64) -> Row:
    return {"day": day, "symbol": symbol, "simple_return": float(value)}
