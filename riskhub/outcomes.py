"""What forecasts met: the loss of the next trading day, of the portfolio as it was weighted then.

The forecast of a trading day is the newest snapshot, among those with numbers, whose UTC day lies
from the trading day before up to the day before. So a forecast never has seen its outcome, unless
it landed after it: that is history which was filled in later, and is marked as `hindsight`.

What happened is what the price panel says, also for a snapshot that was measured on returns of its
own. A portfolio with a symbol that the panel does not have meets nothing that could be known.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub.metrics import CODE_VERSION
from riskhub.portfolio import CLOSE_UTC
from riskhub.prices import PricePanel, UnknownSymbol
from riskhub.risk import LEVELS, Level, format_level, parse_level, portfolio_returns
from riskhub.store import Store
from riskhub.store.backtests import Forecast, WorldDay

LEVEL: Level = LEVELS[-1]  # that of the stored backtests: Basel's 99 %


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n forecasts of one method and what they met, oldest first; losses positive, of equity.

    `days`: of the outcomes. `forecast_days`: of the forecasts, each before its outcome. `var`,
    `es`, `losses`: (n,). `hindsight`: (n,), which forecasts landed after their outcome. `ladder`:
    `var` (n,) at every level that all of the forecasts have.
    """

    forecast_days: tuple[date, ...]
    days: tuple[date, ...]
    var: NDArray[np.float64]
    es: NDArray[np.float64]
    losses: NDArray[np.float64]
    hindsight: NDArray[np.bool_]
    ladder: Mapping[Level, NDArray[np.float64]]

    def between(self, first: date, last: date) -> "Outcomes":
        """The outcomes of the days `first` to `last`."""
        kept = [number for number, day in enumerate(self.days) if first <= day <= last]
        return Outcomes(
            forecast_days=tuple(self.forecast_days[number] for number in kept),
            days=tuple(self.days[number] for number in kept),
            var=self.var[kept],
            es=self.es[kept],
            losses=self.losses[kept],
            hindsight=self.hindsight[kept],
            ladder={level: var[kept] for level, var in self.ladder.items()},
        )


@dataclass(frozen=True, slots=True)
class OutcomeRows:
    """Rows of `var_outcomes`, and the forecasts whose outcome cannot be known, each with why."""

    rows: list[dict[str, Any]]
    unknown: list[dict[str, Any]]


def outcomes_of_days(
    store: Store, panel: PricePanel, days: Collection[date], *, worlds: Collection[str] | None
) -> OutcomeRows:
    """The outcomes of those of these days that are trading days of the panel.

    Reads forecasts from before each day, the day's returns, and nothing later. `worlds`: only of
    these; None is all. Raises `StoreUnavailable`.
    """
    asked = set(days)
    trading = [row for row, day in enumerate(panel.return_days) if day in asked]
    if not trading:
        return OutcomeRows([], [])
    # Row i of the returns ends on panel.days[i + 1] and begins on panel.days[i].
    first, last = panel.days[trading[0]], panel.return_days[trading[-1]] - timedelta(days=1)
    wanted = {panel.return_days[row]: row for row in trading}
    forecasts = _by_outcome(store.forecasts_on(first, last, worlds=worlds), panel)
    due = {key: forecast for key, forecast in forecasts.items() if key[2] in wanted}
    weights = store.weights_at([forecast.position for forecast in due.values()])
    found = OutcomeRows([], [])
    for (world_id, stage, day), forecast in sorted(due.items(), key=lambda item: item[0][::-1]):
        held = weights.get(forecast.position)
        if held is None:
            continue  # rejected or removed since it was read: it is no forecast any more
        known = {
            "position": forecast.position,
            "day": day,
            "world_id": world_id,
            "stage": stage,
            "forecast_day": forecast.day,
        }
        try:
            columns = panel.columns(sorted(held))
        except UnknownSymbol as error:
            found.unknown.append(known | {"why": str(error)})
            continue
        returns = panel.returns[wanted[day], columns][np.newaxis]
        (earned,) = portfolio_returns(returns, [held[symbol] for symbol in sorted(held)])
        found.rows.append(
            known
            | {
                "loss": 0.0 - float(earned),
                "hindsight": forecast.received_at > datetime.combine(day, CLOSE_UTC, tzinfo=UTC),
                "prices_digest": panel.digest,
                "code_version": CODE_VERSION,
            }
        )
    return found


def outcomes(
    store: Store,
    world_id: str,
    *,
    stage: str,
    method: str,
    level: Level,
    first: date = date.min,
    last: date = date.max,
) -> Outcomes:
    """Every stored outcome of a world, from `first` to `last`, that a method had a forecast for.

    Raises `StoreUnavailable`, and `BadLevel` for a level that no decimal gives exactly.
    """
    met = outcomes_by_method(
        store, world_id, stage=stage, methods=[method], level=level, first=first, last=last
    )
    return met.get(method) or _laid_out([], format_level(level))


def outcomes_by_method(
    store: Store,
    world_id: str,
    *,
    stage: str,
    methods: Collection[str] | None,
    level: Level,
    first: date = date.min,
    last: date = date.max,
) -> dict[str, Outcomes]:
    """As `outcomes`, of several methods (None is every one) that have any, by name."""
    asked = format_level(level)
    rows = store.met_forecasts(
        world_id,
        stage=stage,
        methods=methods,
        levels=sorted({asked, *map(format_level, LEVELS)}),
        first=first,
        last=last,
    )
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    laid_out = {method: _laid_out(of_one, asked) for method, of_one in sorted(by_method.items())}
    return {method: found for method, found in laid_out.items() if found.days}


def due_outcomes(store: Store, panel: PricePanel, *, after: int, first_day: date) -> set[WorldDay]:
    """The outcomes that can be known and are missing, or belong to a forecast that was overtaken.

    Args:
        after: what landed up to this position is known to be done; with 0 all of history is looked
            at, and also what has an outcome without a backtest, or a backtest and no outcome any
            more because its forecast was rejected.
        first_day: outcomes before this day are not asked for.
    """
    measured = _by_outcome_day(store.measured_after(after), panel, first_day)
    due = _outdated(store, panel, measured)
    if after == 0:
        due |= {key for key in store.without_backtest(format_level(LEVEL)) if key[2] >= first_day}
        rejected = _by_outcome_day(store.quarantined_days(), panel, first_day)
        backtested = rejected & store.backtested_on({day for _, _, day in rejected})
        due |= backtested - _stored(store, backtested).keys()
    return due


def _outdated(store: Store, panel: PricePanel, asked: set[WorldDay]) -> set[WorldDay]:
    """Those whose stored outcome is not that of the newest forecast, though it could be."""
    if not asked:
        return set()
    days = sorted({day for _, _, day in asked})
    first = panel.days[panel.days.index(days[0]) - 1]
    last = days[-1] - timedelta(days=1)
    forecasts = _by_outcome(store.forecasts_on(first, last), panel)
    stored = _stored(store, asked)
    unknown = store.holding_others(first, last, panel.symbols)
    return {
        key
        for key in asked
        if key in forecasts
        and forecasts[key].position != stored.get(key)
        and (forecasts[key].position not in unknown or key in stored)
    }


def _stored(store: Store, asked: Collection[WorldDay]) -> dict[WorldDay, int]:
    if not asked:
        return {}
    days = [day for _, _, day in asked]
    rows = store.outcomes_on(min(days), max(days))
    return {(row["world_id"], row["stage"], row["day"]): row["position"] for row in rows}


def _by_outcome(forecasts: Iterable[Forecast], panel: PricePanel) -> dict[WorldDay, Forecast]:
    """The forecast of each world, stage and trading day; `forecasts` by `as_of`."""
    newest: dict[WorldDay, Forecast] = {}
    for forecast in forecasts:
        day = panel.next_trading_day(forecast.day)
        if day is not None and forecast.day >= panel.days[0]:
            newest[forecast.world_id, forecast.stage, day] = forecast
    return newest


def _by_outcome_day(
    forecast_days: Iterable[WorldDay], panel: PricePanel, first_day: date
) -> set[WorldDay]:
    found = set()
    for world_id, stage, forecast_day in forecast_days:
        day = panel.next_trading_day(forecast_day)
        if day is not None and day >= first_day and forecast_day >= panel.days[0]:
            found.add((world_id, stage, day))
    return found


def _laid_out(rows: Sequence[Mapping[str, Any]], asked: str) -> Outcomes:
    """The rows of one method, by day, as columns."""
    at_level = [row for row in rows if row["level"] == asked]
    by_level: dict[str, dict[date, float]] = {format_level(level): {} for level in LEVELS}
    for row in rows:
        by_level.setdefault(row["level"], {})[row["day"]] = row["var"]
    days = tuple(row["day"] for row in at_level)
    return Outcomes(
        forecast_days=tuple(row["forecast_day"] for row in at_level),
        days=days,
        var=np.array([row["var"] for row in at_level], dtype=float),
        es=np.array([row["es"] for row in at_level], dtype=float),
        losses=np.array([row["loss"] for row in at_level], dtype=float),
        hindsight=np.array([row["hindsight"] for row in at_level], dtype=bool),
        ladder={
            parse_level(level): np.array([var[day] for day in days])
            for level, var in by_level.items()
            if days and all(day in var for day in days)
        },
    )
