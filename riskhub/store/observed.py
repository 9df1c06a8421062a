"""What the exit engine observes: of each world and stage the newest, or all of some days.

Rows as the tables have them. What is in the quarantine has no numbers, and its age counts for none.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.landing import midnight
from riskhub.store.reading import Position
from riskhub.store.tables import (
    quarantine,
    risk_metrics,
    risk_tails,
    snapshot_stress,
    snapshots,
    stress_results,
    var_backtests,
    world_stages,
)

Row = dict[str, Any]
Kinds = Collection[tuple[str, str]]
"""Methods and levels."""

_CHUNK = 500
_LANDED = ("position", "world_id", "stage", "version", "as_of", "digest", "received_at",
           "expires_at")  # fmt: skip
_IN_QUARANTINE = sa.exists().where(
    quarantine.c.position == snapshots.c.position, quarantine.c.until.is_(None)
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A row of `risk_metrics`, its tails, and what its stress results say.

    `stressed`: whether there are any. `stress`: each scenario with its P&L, or why there is none;
    scenarios that have a VaR and no P&L are left out.
    """

    metrics: Row
    tails: list[Row]
    stressed: bool
    stress: list[tuple[str, float | None, str | None]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known now: rows by world and stage."""

    worlds: list[tuple[str, str]]
    numbers: list[Numbers] = field(default_factory=list)
    landed: list[Row] = field(default_factory=list)
    backtests: list[Row] = field(default_factory=list)
    rejected: frozenset[Position] = frozenset()


class ObservedStore:
    """What is observed in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def observed(
        self,
        *,
        worlds: Collection[str] | None,
        tails: Kinds,
        zones: Kinds,
        without_stages: Collection[str] = (),
        positions: Collection[Position] = (),
    ) -> Observed:
        """The newest of each world and stage, of one state of the database.

        Args:
            worlds: only of these; None is all.
            tails: the methods and levels of the tails that are wanted.
            zones: the same of backtests.
            without_stages: not of these.
            positions: which of these are in the quarantine.
        """
        with one_state(self.engine) as connection:
            keys = sa.select(world_stages.c.world_id, world_stages.c.stage)
            if worlds is not None:
                keys = keys.where(world_stages.c.world_id.in_(worlds))
            if without_stages:
                keys = keys.where(world_stages.c.stage.not_in(without_stages))
            found = [(world, stage) for world, stage in connection.execute(keys)]
            of_keys = keys.subquery("of_keys")
            newest = sa.select(_newest_measured(of_keys)).select_from(of_keys)
            measured = connection.execute(newest).scalars().all()
            return Observed(
                found,
                _numbers(connection, [each for each in measured if each is not None], tails),
                _newest_landed(connection, of_keys),
                _newest_backtests(connection, of_keys, zones),
                _rejected(connection, positions),
            )

    def numbers_by_day(
        self, first: date, last: date, *, worlds: Collection[str] | None, tails: Kinds
    ) -> Iterator[list[Numbers]]:
        """Every measured snapshot of the days, by `as_of` and landing, a day at a time.

        Of the same `as_of` of a world and a stage the last that landed: it corrects the others.
        """
        days = sa.select(risk_metrics.c.day).where(risk_metrics.c.day.between(first, last))
        if worlds is not None:
            days = days.where(risk_metrics.c.world_id.in_(worlds))
        with reading(self.engine) as connection:
            there_are = connection.execute(days.distinct().order_by("day")).scalars().all()
            for day in there_are:
                query = sa.select(risk_metrics.c.position).where(risk_metrics.c.day == day)
                if worlds is not None:
                    query = query.where(risk_metrics.c.world_id.in_(worlds))
                of_day = _numbers(connection, connection.execute(query).scalars().all(), tails)
                corrected = {_moment(each.metrics): each for each in of_day}
                yield sorted(corrected.values(), key=lambda each: _order(each.metrics))

    def landed_between(
        self, first: date, last: date, *, worlds: Collection[str] | None
    ) -> list[Row]:
        """Every snapshot of the days that is not in the quarantine, by `as_of` and landing."""
        query = (
            sa.select(*(snapshots.c[name] for name in _LANDED))
            .where(snapshots.c.as_of >= midnight(first))
            .where(sa.not_(snapshots.c.as_of >= midnight(date.fromordinal(last.toordinal() + 1))))
            .where(~_IN_QUARANTINE)
            .order_by(snapshots.c.as_of, snapshots.c.received_at, snapshots.c.position)
        )
        if worlds is not None:
            query = query.where(snapshots.c.world_id.in_(worlds))
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def backtests_between(
        self, first: date, last: date, *, worlds: Collection[str] | None, zones: Kinds
    ) -> list[Row]:
        """The backtests of the days, by day."""
        if not zones:
            return []
        query = (
            sa.select(var_backtests)
            .where(var_backtests.c.day.between(first, last), _is_one_of(var_backtests, zones))
            .order_by(var_backtests.c.day, var_backtests.c.world_id, var_backtests.c.stage)
        )
        if worlds is not None:
            query = query.where(var_backtests.c.world_id.in_(worlds))
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def measured_days(self) -> tuple[date, date] | None:
        """The first and the last day that has risk numbers."""
        bounds = sa.select(sa.func.min(risk_metrics.c.day), sa.func.max(risk_metrics.c.day))
        with reading(self.engine) as connection:
            first, last = connection.execute(bounds).one()
            return None if first is None else (first, last)


def _newest_measured(of_keys: sa.Subquery) -> sa.ScalarSelect[Position]:
    return (
        sa.select(risk_metrics.c.position)
        .where(risk_metrics.c.world_id == of_keys.c.world_id)
        .where(risk_metrics.c.stage == of_keys.c.stage)
        .order_by(risk_metrics.c.as_of.desc(), risk_metrics.c.position.desc())
        .limit(1)
        .correlate(of_keys)
        .scalar_subquery()
    )


def _newest_landed(connection: sa.Connection, of_keys: sa.Subquery) -> list[Row]:
    newest = (
        sa.select(snapshots.c.position)
        .where(snapshots.c.world_id == of_keys.c.world_id)
        .where(snapshots.c.stage == of_keys.c.stage, ~_IN_QUARANTINE)
        .order_by(
            snapshots.c.as_of.desc(), snapshots.c.received_at.desc(), snapshots.c.position.desc()
        )
        .limit(1)
        .correlate(of_keys)
        .scalar_subquery()
    )
    positions = connection.execute(sa.select(newest).select_from(of_keys)).scalars().all()
    found: list[Row] = []
    for chunk in _chunks([each for each in positions if each is not None]):
        query = sa.select(*(snapshots.c[name] for name in _LANDED))
        rows = connection.execute(query.where(snapshots.c.position.in_(chunk)))
        found.extend(dict(row._mapping) for row in rows)
    return found


def _newest_backtests(connection: sa.Connection, of_keys: sa.Subquery, zones: Kinds) -> list[Row]:
    found: list[Row] = []
    table, others = var_backtests, var_backtests.alias("others")
    for method, level in sorted(zones):
        newest = (
            sa.select(sa.func.max(others.c.day))
            .where(others.c.world_id == of_keys.c.world_id, others.c.stage == of_keys.c.stage)
            .where(others.c.method == method, others.c.level == level)
            .correlate(of_keys)
            .scalar_subquery()
        )
        query = sa.select(table).join(
            of_keys,
            sa.and_(table.c.world_id == of_keys.c.world_id, table.c.stage == of_keys.c.stage),
        )
        one_kind = query.where(table.c.method == method, table.c.level == level)
        rows = connection.execute(one_kind.where(table.c.day == newest))
        found.extend(dict(row._mapping) for row in rows)
    return found


def _numbers(
    connection: sa.Connection, positions: Sequence[Position], tails: Kinds
) -> list[Numbers]:
    """The numbers of these landings, by position."""
    found: list[Numbers] = []
    for chunk in _chunks(sorted(positions)):
        metrics = _rows_at(connection, risk_metrics, chunk)
        tails_of = _by_position(
            _rows_at(connection, risk_tails, chunk, _is_one_of(risk_tails, tails)) if tails else []
        )
        stress_of = _by_position(
            _rows_at(
                connection,
                stress_results,
                chunk,
                stress_results.c.origin == "riskhub",
                sa.or_(
                    stress_results.c.pnl.is_not(None), stress_results.c.unavailable.is_not(None)
                ),
            )
        )
        held = snapshot_stress.c.position.in_(chunk)
        stressed = set(
            connection.execute(sa.select(snapshot_stress.c.position).where(held)).scalars()
        )
        for row in metrics:
            position = row["position"]
            stress = [
                (each["scenario"], each["pnl"], each["unavailable"])
                for each in stress_of.get(position, [])
            ]
            found.append(Numbers(row, tails_of.get(position, []), position in stressed, stress))
    return found


def _rows_at(
    connection: sa.Connection,
    table: sa.Table,
    positions: Sequence[Position],
    *which: sa.ColumnElement[bool],
) -> list[Row]:
    query = sa.select(table).where(table.c.position.in_(positions), *which)
    rows = connection.execute(query.order_by(*table.primary_key.columns))
    return [dict(row._mapping) for row in rows]


def _by_position(rows: Sequence[Row]) -> dict[Position, list[Row]]:
    return {
        position: list(of_one)
        for position, of_one in groupby(rows, key=lambda row: row["position"])
    }


def _is_one_of(table: sa.Table, kinds: Kinds) -> sa.ColumnElement[bool]:
    return sa.or_(
        *(
            sa.and_(table.c.method == method, table.c.level == level)
            for method, level in sorted(kinds)
        )
    )


def _rejected(connection: sa.Connection, positions: Collection[Position]) -> frozenset[Position]:
    found: set[Position] = set()
    for chunk in _chunks(sorted(positions)):
        query = sa.select(quarantine.c.position).where(
            quarantine.c.position.in_(chunk), quarantine.c.until.is_(None)
        )
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def _moment(row: Row) -> tuple[str, str, datetime]:
    return row["world_id"], row["stage"], row["as_of"]


def _order(row: Row) -> tuple[datetime, Position]:
    return row["as_of"], row["position"]


def _chunks(positions: Sequence[Position]) -> Iterator[Sequence[Position]]:
    return (positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK))
