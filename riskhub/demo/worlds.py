"""Six portfolios over the price panel: their weights, day by day. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from riskhub.prices import PricePanel
from riskhub.risk import drift


@dataclass(frozen=True, slots=True)
class World:
    """A portfolio of equal parts, drifting with prices, made equal again at month-ends or never."""

    world_id: str
    symbols: tuple[str, ...]
    rebalanced: bool


def worlds_of(panel: PricePanel) -> tuple[World, ...]:
    """The demo's six worlds."""
    return (
        World("ew20", panel.symbols, rebalanced=True),
        World("buyhold", panel.symbols, rebalanced=False),
        World("banks", ("BAC", "JPM"), rebalanced=True),
        World("energy", ("CVX", "XOM", "RRC"), rebalanced=True),
        World("tech3", ("AAPL", "AMD", "MSFT"), rebalanced=True),
        World("defensive", ("JNJ", "KO", "PEP", "PG", "WMT"), rebalanced=True),
    )


def weights_by_day(world: World, panel: PricePanel) -> Iterator[tuple[date, NDArray[np.float64]]]:
    """The weights (N,) at each close of the panel, in the order of `world.symbols`; they sum to 1.

    Equal on the panel's first day, and on each month's last trading day when rebalanced.
    """
    columns = panel.columns(world.symbols)
    equal = np.full(len(columns), 1.0 / len(columns))
    weights = equal
    yield panel.days[0], weights
    month_ends = {
        day
        for day, following in zip(panel.days, panel.days[1:], strict=False)
        if following.month != day.month
    }
    for day, row in zip(panel.return_days, panel.returns, strict=True):
        weights = drift(weights, row[columns])
        weights = equal if world.rebalanced and day in month_ends else weights / weights.sum()
        yield day, weights
