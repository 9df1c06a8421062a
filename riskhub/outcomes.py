"""Forecasts held against what happened: each VaR of a world with the loss of the next trading day.

The forecast of a day is that of its last snapshot, and the outcome is what the portfolio, as it was
weighted then, lost on the next trading day of the price panel. So a forecast never has seen its
outcome.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from riskhub.prices import PricePanel, UnknownSymbol
from riskhub.risk import Level, format_level
from riskhub.store import Store


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n forecasts and their outcomes, oldest first; losses positive, fractions of equity.

    `days`: of the outcomes. `forecast_days`: of the forecasts, each before its outcome. `left_out`:
    forecasts without an outcome in the panel: of its last day, or of symbols without prices.
    """

    forecast_days: tuple[date, ...]
    days: tuple[date, ...]
    var: NDArray[np.float64]
    es: NDArray[np.float64]
    losses: NDArray[np.float64]
    left_out: int

    def between(self, first: date, last: date) -> "Outcomes":
        """The outcomes of the days `first` to `last`."""
        kept = [number for number, day in enumerate(self.days) if first <= day <= last]
        return Outcomes(
            forecast_days=tuple(self.forecast_days[number] for number in kept),
            days=tuple(self.days[number] for number in kept),
            var=self.var[kept],
            es=self.es[kept],
            losses=self.losses[kept],
            left_out=self.left_out,
        )


def outcomes(
    store: Store, panel: PricePanel, world_id: str, *, stage: str, method: str, level: Level
) -> Outcomes:
    """Every forecast of a world by one method at one level that has an outcome.

    Raises `StoreUnavailable`, and `BadLevel` for a level that no decimal gives exactly.
    """
    history = store.tail_history(world_id, stage=stage, method=method, level=format_level(level))
    weights = store.weights_history(world_id, stage=stage)
    last_of_day = {row["day"]: row for row in history}
    row_of = {day: row for row, day in enumerate(panel.return_days)}
    found, left_out = [], 0
    for known_on, known in last_of_day.items():
        day = panel.next_trading_day(known_on)
        held = weights.get(known["position"])
        try:
            columns = panel.columns(tuple(held)) if held else None
        except UnknownSymbol:
            columns = None
        if day is None or held is None or columns is None:
            left_out += 1
            continue
        loss = -float(np.dot(list(held.values()), panel.returns[row_of[day], columns]))
        found.append((known_on, day, known["var"], known["es"], loss))
    return Outcomes(
        forecast_days=tuple(each[0] for each in found),
        days=tuple(each[1] for each in found),
        var=np.array([each[2] for each in found]),
        es=np.array([each[3] for each in found]),
        losses=np.array([each[4] for each in found]),
        left_out=left_out,
    )
