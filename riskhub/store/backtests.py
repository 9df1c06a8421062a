"""Outcomes of forecasts and their backtests: what is read to make them, and the rows themselves.

`var_outcomes` says which snapshot was the forecast of a day and what it then lost; beside it stand
the forecasts, in `risk_tails` under the same landing position. `var_backtests` is made from both.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from riskhub.store.claims import note_progress
from riskhub.store.derived import Row, Worlds, lock_days, replace_rows
from riskhub.store.engine import reading, writing
from riskhub.store.reading import Position
from riskhub.store.tables import (
    quarantine,
    risk_metrics,
    risk_tails,
    snapshot_weights,
    snapshots,
    validated_snapshots,
    var_backtests,
    var_outcomes,
)

WorldDay = tuple[str, str, date]
Met = tuple[str, str, date, str, float, float, float]

_FORECAST = (
    var_outcomes.c.world_id,
    var_outcomes.c.stage,
    var_outcomes.c.day,
    risk_tails.c.method,
    var_outcomes.c.loss,
    risk_tails.c.var,
    risk_tails.c.es,
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The newest measured snapshot of a world, a stage and a UTC day."""

    position: Position
    world_id: str
    stage: str
    day: date
    as_of: datetime
    received_at: datetime


class BacktestStore:
    """The outcomes and backtests of one database; each call is one statement or transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    # -- what outcomes are made from --------------------------------------------------------------

    def forecasts_on(self, first: date, last: date, *, worlds: Worlds = None) -> list[Forecast]:
        """Of each world, stage and day the newest snapshot that has tails, by `as_of`.

        The newest has the greatest `as_of`, then landed last. `worlds`: only of these; None is all.
        """
        newest_first = risk_metrics.c.as_of.desc(), risk_metrics.c.position.desc()
        of_one_day = risk_metrics.c.world_id, risk_metrics.c.stage, risk_metrics.c.day
        ranked = (
            sa.select(
                risk_metrics.c.position,
                *of_one_day,
                risk_metrics.c.as_of,
                sa.func.row_number()
                .over(partition_by=of_one_day, order_by=newest_first)
                .label("place"),
            )
            .where(risk_metrics.c.day.between(first, last), _has_tails())
            .where(_of(risk_metrics, worlds))
            .subquery()
        )
        query = (
            sa.select(
                *(ranked.c[name] for name in ("position", "world_id", "stage", "day", "as_of")),
                snapshots.c.received_at,
            )
            .join(snapshots, snapshots.c.position == ranked.c.position)
            .where(ranked.c.place == 1)
            .order_by(ranked.c.as_of, ranked.c.position)
        )
        with reading(self.engine) as connection:
            return [Forecast(**dict(row._mapping)) for row in connection.execute(query)]

    # -- outcomes ---------------------------------------------------------------------------------

    def write_outcomes(
        self,
        rows: Sequence[Row],
        days: Sequence[date],
        *,
        worlds: Worlds = None,
        run_id: str | None = None,
    ) -> None:
        """Replace `var_outcomes` of some days, in one transaction; as `DerivedStore.write_days`.

        Where an outcome is another one now, or none any more, the world's backtests from that day
        on say what is not so: they are deleted, and computed again.
        """
        with writing(self.engine) as connection:
            lock_days(connection, days)
            before = _outcomes_of(connection, days, worlds)
            backtested = _backtested_on(connection, days, worlds)
            replace_rows(
                connection,
                {var_outcomes.name: rows},
                days,
                replace=True,
                read_up_to=None,
                worlds=worlds,
            )
            now = {_key(row): (row["position"], row["loss"]) for row in rows}
            changed = {key for key in before | now if before.get(key) != now.get(key)}
            first_changed: dict[tuple[str, str], date] = {}
            for world_id, stage, day in changed | (backtested - now.keys()):
                known = first_changed.get((world_id, stage), day)
                first_changed[world_id, stage] = min(day, known)
            for (world_id, stage), day in sorted(first_changed.items()):
                connection.execute(
                    sa.delete(var_backtests).where(
                        var_backtests.c.world_id == world_id,
                        var_backtests.c.stage == stage,
                        var_backtests.c.day >= day,
                    )
                )
            if run_id is not None:
                note_progress(connection, run_id, var_outcomes.name, days)

    def outcomes_on(self, first: date, last: date, *, worlds: Worlds = None) -> list[Row]:
        """Every outcome of the days, by day, world and stage."""
        table = var_outcomes
        query = (
            sa.select(table)
            .where(table.c.day.between(first, last), _of(table, worlds))
            .order_by(table.c.day, table.c.world_id, table.c.stage)
        )
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def newest_outcome_day(self, worlds: Worlds = None) -> date | None:
        """The last day that has an outcome."""
        query = sa.select(sa.func.max(var_outcomes.c.day)).where(_of(var_outcomes, worlds))
        with reading(self.engine) as connection:
            day: date | None = connection.execute(query).scalar()
            return day

    # -- outcomes with the forecasts that met them ------------------------------------------------

    def met_forecasts(
        self,
        world_id: str,
        *,
        stage: str,
        methods: Collection[str] | None = None,
        levels: Collection[str] | None = None,
        first: date = date.min,
        last: date = date.max,
    ) -> list[Row]:
        """A world's outcomes with each VaR and ES that they met, by day of the outcome.

        A row per day, method and level: `day`, `forecast_day`, `loss`, `hindsight`, `method`,
        `level`, `var`, `es`. None is any method or level; the days bound the outcome.
        """
        query = (
            sa.select(
                *(var_outcomes.c[name] for name in ("day", "forecast_day", "loss", "hindsight")),
                *(risk_tails.c[name] for name in ("method", "level", "var", "es")),
            )
            .join(risk_tails, risk_tails.c.position == var_outcomes.c.position)
            .where(var_outcomes.c.world_id == world_id, var_outcomes.c.stage == stage)
            .where(var_outcomes.c.day.between(first, last))
            .order_by(var_outcomes.c.day, risk_tails.c.method, risk_tails.c.level)
        )
        if methods is not None:
            query = query.where(risk_tails.c.method.in_(methods))
        if levels is not None:
            query = query.where(risk_tails.c.level.in_(levels))
        with reading(self.engine) as connection:
            found = connection.execute(query)
            names = tuple(found.keys())
            return [dict(zip(names, row, strict=True)) for row in found]

    def met_on(self, first: date, last: date, *, level: str, worlds: Worlds = None) -> list[Met]:
        """Every outcome of the days with the forecasts at one level, oldest first.

        Each `(world_id, stage, day, method, loss, var, es)`.
        """
        query = (
            sa.select(*_FORECAST)
            .join(risk_tails, risk_tails.c.position == var_outcomes.c.position)
            .where(var_outcomes.c.day.between(first, last), _of(var_outcomes, worlds))
            .where(risk_tails.c.level == level)
            .order_by(var_outcomes.c.day)
        )
        with reading(self.engine) as connection:
            return [tuple(row) for row in connection.execute(query)]

    def met_before(
        self, day: date, count: int, *, world_id: str, stage: str, method: str, level: str
    ) -> list[tuple[float, float, float]]:
        """The last `count` outcomes before a day that a method had forecasts for, oldest first.

        Each `(loss, var, es)`.
        """
        its_tail = sa.and_(
            risk_tails.c.position == var_outcomes.c.position,
            risk_tails.c.method == method,
            risk_tails.c.level == level,
        )
        query = (
            sa.select(var_outcomes.c.loss, risk_tails.c.var, risk_tails.c.es)
            .join(risk_tails, its_tail)
            .where(var_outcomes.c.world_id == world_id, var_outcomes.c.stage == stage)
            .where(var_outcomes.c.day < day)
            .order_by(var_outcomes.c.day.desc())
            .limit(count)
        )
        with reading(self.engine) as connection:
            found = [(loss, var, es) for loss, var, es in connection.execute(query)]
        return found[::-1]

    # -- backtests --------------------------------------------------------------------------------

    def backtests(
        self,
        world_id: str,
        *,
        stage: str | None = None,
        method: str | None = None,
        level: str | None = None,
        first: date = date.min,
        last: date = date.max,
    ) -> list[Row]:
        """A world's stored backtests by day, stage, method and level; None is any of them."""
        table = var_backtests
        query = (
            sa.select(table)
            .where(table.c.world_id == world_id, table.c.day.between(first, last))
            .order_by(table.c.day, table.c.stage, table.c.method, table.c.level)
        )
        for column, wanted in ((table.c.stage, stage), (table.c.method, method)):
            if wanted is not None:
                query = query.where(column == wanted)
        if level is not None:
            query = query.where(table.c.level == level)
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def newest_backtests(self, up_to: date = date.max) -> list[Row]:
        """Every backtest of the last day, no later than `up_to`, that has any."""
        table = var_backtests
        newest = sa.select(sa.func.max(table.c.day)).where(table.c.day <= up_to).scalar_subquery()
        query = (
            sa.select(table)
            .where(table.c.day == newest)
            .order_by(table.c.world_id, table.c.stage, table.c.method, table.c.level)
        )
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    # -- what is missing --------------------------------------------------------------------------

    def measured_after(self, position: Position) -> set[WorldDay]:
        """The worlds, stages and days of what landed after a position and has tails."""
        query = (
            sa.select(risk_metrics.c.world_id, risk_metrics.c.stage, risk_metrics.c.day)
            .where(risk_metrics.c.position > position, _has_tails())
            .distinct()
        )
        with reading(self.engine) as connection:
            return {(world_id, stage, day) for world_id, stage, day in connection.execute(query)}

    def holding_others(self, first: date, last: date, symbols: Collection[str]) -> set[Position]:
        """The landings of the days that hold something else than these symbols."""
        held = snapshot_weights
        query = (
            sa.select(held.c.position)
            .where(held.c.day.between(first, last), held.c.symbol.not_in(symbols))
            .distinct()
        )
        with reading(self.engine) as connection:
            return set(connection.execute(query).scalars())

    def without_backtest(self, level: str) -> set[WorldDay]:
        """The outcomes with a forecast at a level that no backtest counts. Reads all there are."""
        forecast = sa.exists().where(
            risk_tails.c.position == var_outcomes.c.position, risk_tails.c.level == level
        )
        known = var_outcomes.c.world_id, var_outcomes.c.stage, var_outcomes.c.day
        tested = var_backtests.c.world_id, var_backtests.c.stage, var_backtests.c.day
        query = sa.except_(
            sa.select(*known).where(forecast),
            sa.select(*tested).where(var_backtests.c.level == level),
        )
        with reading(self.engine) as connection:
            return {(world_id, stage, day) for world_id, stage, day in connection.execute(query)}

    def quarantined_days(self) -> set[WorldDay]:
        """The worlds, stages and days of what is in the quarantine."""
        verdict = validated_snapshots.c
        query = (
            sa.select(verdict.world_id, verdict.stage, verdict.day)
            .join(quarantine, quarantine.c.position == verdict.position)
            .distinct()
        )
        with reading(self.engine) as connection:
            return {(world_id, stage, day) for world_id, stage, day in connection.execute(query)}

    def backtested_on(self, days: Collection[date]) -> set[WorldDay]:
        """The worlds and stages that have backtests on these days."""
        with reading(self.engine) as connection:
            return _backtested_on(connection, sorted(days), None)


def _key(row: Row) -> WorldDay:
    return row["world_id"], row["stage"], row["day"]


def _of(table: sa.Table, worlds: Worlds) -> sa.ColumnElement[bool]:
    return sa.true() if worlds is None else table.c.world_id.in_(worlds)


def _has_tails() -> sa.ColumnElement[bool]:
    return sa.exists().where(risk_tails.c.position == risk_metrics.c.position)


def _outcomes_of(
    connection: sa.Connection, days: Sequence[date], worlds: Worlds
) -> dict[WorldDay, tuple[Any, Any]]:
    query = sa.select(var_outcomes).where(var_outcomes.c.day.in_(days), _of(var_outcomes, worlds))
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return {_key(row): (row["position"], row["loss"]) for row in rows}


def _backtested_on(
    connection: sa.Connection, days: Sequence[date], worlds: Worlds
) -> set[WorldDay]:
    table = var_backtests
    found: set[WorldDay] = set()
    for start in range(0, len(days), 500):
        query = (
            sa.select(table.c.world_id, table.c.stage, table.c.day)
            .where(table.c.day.in_(days[start : start + 500]), _of(table, worlds))
            .distinct()
        )
        found.update((world_id, stage, day) for world_id, stage, day in connection.execute(query))
    return found
