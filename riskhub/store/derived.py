"""The tables that are made from landings: replaced a day at a time, never half a day.

Each write names the days it covers and is one transaction: what those days held is deleted, what
they hold now is inserted, and a lock on the day keeps a second writer of it waiting. So a killed
run leaves whole days, and running a day twice gives the same rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from riskhub.controlbus.events import NewEvent
from riskhub.store.bulk import add_rows
from riskhub.store.claims import note_progress
from riskhub.store.engine import reading, writing
from riskhub.store.events import append_events
from riskhub.store.landing import Landed, landed_at, midnight
from riskhub.store.tables import (
    risk_metrics,
    risk_tails,
    snapshot_stress,
    snapshot_weights,
    snapshots,
    validated_snapshots,
)

_DAY_LOCK = 0x646179

Row = Mapping[str, Any]
Worlds = Collection[str] | None
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PendingDay:
    """A UTC day of `as_of` with landings that are not computed yet, and how many."""

    day: date
    count: int
    first_position: int
    newest_receipt: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """What is not computed yet, by day, as of a landing position `head`."""

    head: int
    days: tuple[PendingDay, ...]

    @property
    def done_up_to(self) -> int:
        """Everything that landed up to this position is computed."""
        firsts = [day.first_position - 1 for day in self.days]
        return min([self.head, *firsts])


class DerivedStore:
    """The derived tables of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def write_days(
        self,
        tables: Mapping[str, Sequence[Row]],
        days: Sequence[date],
        *,
        replace: bool,
        read_up_to: int | None = None,
        worlds: Worlds = None,
        run_id: str | None = None,
        told: Sequence[NewEvent] = (),
    ) -> None:
        """Write the rows of some days to tables (by name) in one transaction.

        Args:
            days: every day that a row belongs to.
            replace: delete what the days hold first; otherwise only rows of the same landings are
                replaced, which is how a run adds what landed since the last one.
            read_up_to: the newest landing that these rows were made from. Rows of later ones are
                not replaced: another run has added them since.
            worlds: the worlds that the rows are about; None is all.
            run_id: the run to note the days for, under the first table; see `riskhub.store.claims`.
            told: events that tell of it.
        """
        with writing(self.engine) as connection:
            lock_days(connection, days)
            replace_rows(
                connection, tables, days, replace=replace, read_up_to=read_up_to, worlds=worlds
            )
            if run_id is not None:
                note_progress(connection, run_id, next(iter(tables)), days)
            append_events(connection, told)

    def accepted_on(
        self,
        first: date,
        last: date,
        *,
        missing_from: str | None = None,
        worlds: Worlds = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Landed]:
        """Accepted snapshots of the days `first` to `last`, in landing order.

        Args:
            missing_from: only those that have no row in this table yet.
            worlds: only of these; None is all.
            after: only those that landed after this position.
            limit: how many, at most.
        """
        position = validated_snapshots.c.position
        query = (
            sa.select(position)
            .where(validated_snapshots.c.day.between(first, last))
            .where(validated_snapshots.c.accepted, position > after)
        )
        if missing_from is not None:
            query = query.where(_missing(missing_from, position))
        if worlds is not None:
            query = query.where(validated_snapshots.c.world_id.in_(worlds))
        with reading(self.engine) as connection:
            return landed_at(connection, query, limit)

    def weights_of(self, first: date, last: date) -> dict[int, dict[str, float]]:
        """Weights by landing position, of the days `first` to `last`."""
        of_days = snapshot_weights.c.day.between(first, last)
        return self._weights(sa.select(snapshot_weights).where(of_days))

    def weights_at(self, positions: Sequence[int]) -> dict[int, dict[str, float]]:
        """Weights by landing position, of these landings; those without any are left out."""
        weights: dict[int, dict[str, float]] = {}
        for chunk in _chunks(positions, 500):
            held = snapshot_weights.c.position.in_(chunk)
            weights |= self._weights(sa.select(snapshot_weights).where(held))
        return weights

    def landings_per_day(self, first: date, last: date) -> dict[date, int]:
        """How many snapshots have their `as_of` on each UTC day; a day without any is left out."""
        with reading(self.engine) as connection:
            day = _day_of(connection, snapshots.c.as_of)
            counts = connection.execute(
                sa.select(day, sa.func.count())
                .where(snapshots.c.as_of >= midnight(first))
                .where(snapshots.c.as_of < midnight(last) + timedelta(days=1))
                .group_by(day)
            )
            return {_as_date(day): count for day, count in counts}

    def verdicts_on(self, first: date, last: date) -> list[Row]:
        """Every validated snapshot of the days, with its verdict and reasons."""
        return self._rows_of_days(validated_snapshots, first, last)

    def metrics_on(self, first: date, last: date) -> list[Row]:
        """Risk metrics of the days (one row per snapshot), without their tails."""
        return self._rows_of_days(risk_metrics, first, last)

    def tails_on(self, first: date, last: date) -> list[Row]:
        """VaR and ES of the days, a row per snapshot, method and level."""
        return self._rows_of_days(risk_tails, first, last)

    def _rows_of_days(
        self, table: sa.Table, first: date, last: date, *where: sa.ColumnElement[bool]
    ) -> list[Row]:
        query = sa.select(table).where(table.c.day.between(first, last), *where)
        with reading(self.engine) as connection:
            rows = connection.execute(query.order_by(*table.primary_key.columns))
            return [dict(row._mapping) for row in rows]

    def tail_history(self, world_id: str, *, stage: str, method: str, level: str) -> list[Row]:
        """A world's VaR and ES by `as_of`, oldest first, each with its day and landing position."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(
                    risk_metrics.c.position,
                    risk_metrics.c.day,
                    risk_metrics.c.as_of,
                    risk_tails.c.var,
                    risk_tails.c.es,
                )
                .join(risk_tails, risk_tails.c.position == risk_metrics.c.position)
                .where(risk_metrics.c.world_id == world_id, risk_metrics.c.stage == stage)
                .where(risk_tails.c.method == method, risk_tails.c.level == level)
                .order_by(risk_metrics.c.as_of, risk_metrics.c.position)
            )
            return [dict(row._mapping) for row in rows]

    def _weights(self, query: sa.Select[Any]) -> dict[int, dict[str, float]]:
        ordered = query.order_by(snapshot_weights.c.position, snapshot_weights.c.symbol)
        weights: dict[int, dict[str, float]] = {}
        with reading(self.engine) as connection:
            for row in connection.execute(ordered):
                weights.setdefault(row.position, {})[row.symbol] = row.weight
        return weights

    def pending_days(self, *, after: int = 0, stage: str | None = None) -> Pending:
        """What landed after a position and has no verdict, or is accepted and lacks numbers.

        Args:
            after: landings up to this position are known to be done.
            stage: only landings of this stage.
        """
        # The head is read before the rest: a row that lands in between is then pending, or waits
        # for the next look, but can't be taken for done.
        with reading(self.engine) as connection:
            head = connection.execute(sa.select(sa.func.max(snapshots.c.position))).scalar() or 0
            day = _day_of(connection, snapshots.c.as_of)
            query = (
                sa.select(
                    day,
                    sa.func.count(),
                    sa.func.min(snapshots.c.position),
                    sa.func.max(snapshots.c.received_at),
                )
                .outerjoin(validated_snapshots, _made_of(validated_snapshots, after))
                .outerjoin(risk_metrics, _made_of(risk_metrics, after))
                .outerjoin(snapshot_stress, _made_of(snapshot_stress, after))
                .where(snapshots.c.position > after)
                .where(
                    sa.or_(
                        validated_snapshots.c.position.is_(None),
                        sa.and_(
                            validated_snapshots.c.accepted,
                            sa.or_(
                                risk_metrics.c.position.is_(None),
                                snapshot_stress.c.position.is_(None),
                            ),
                        ),
                    )
                )
                .group_by(day)
                .order_by(day)
            )
            if stage is not None:
                query = query.where(snapshots.c.stage == stage)
            days = [
                PendingDay(_as_date(day), count, first_position, newest_receipt)
                for day, count, first_position, newest_receipt in connection.execute(query)
            ]
            return Pending(head, tuple(days))


def _made_of(table: sa.Table, after: int) -> sa.ColumnElement[bool]:
    """What joins a table to its snapshot, of those behind a position.

    That is said of both: planners don't conclude it, and would look up each landing by itself.
    """
    return sa.and_(table.c.position == snapshots.c.position, table.c.position > after)


def _missing(table_name: str, position: sa.Column[int]) -> sa.ColumnElement[bool]:
    table = snapshots.metadata.tables[table_name]
    return ~sa.exists().where(table.c.position == position)


def replace_rows(
    connection: sa.Connection,
    tables: Mapping[str, Sequence[Row]],
    days: Sequence[date],
    *,
    replace: bool,
    read_up_to: int | None,
    worlds: Worlds,
) -> None:
    """What `DerivedStore.write_days` does to its tables, in a transaction of the caller."""
    for name, rows in tables.items():
        table = snapshots.metadata.tables[name]
        if replace:
            held = sa.delete(table).where(table.c.day.in_(days))
            if read_up_to is not None:
                held = held.where(table.c.position <= read_up_to)
            if worlds is not None:
                held = held.where(_of_worlds(table, worlds, days))
            connection.execute(held)
        if "position" in table.c:
            delete_landings(connection, table, {row["position"] for row in rows})
        add_rows(connection, table, rows)


def _of_worlds(
    table: sa.Table, worlds: Collection[str], days: Sequence[date]
) -> sa.ColumnElement[bool]:
    if "world_id" in table.c:
        return table.c.world_id.in_(worlds)
    theirs = sa.select(validated_snapshots.c.position).where(
        validated_snapshots.c.day.in_(days), validated_snapshots.c.world_id.in_(worlds)
    )
    return table.c.position.in_(theirs)


def delete_landings(connection: sa.Connection, table: sa.Table, positions: Iterable[int]) -> None:
    """Delete what a table holds of some landings."""
    for chunk in _chunks(sorted(positions), 500):
        connection.execute(sa.delete(table).where(table.c.position.in_(chunk)))


def _day_of(connection: sa.Connection, instant: sa.Column[datetime]) -> sa.ColumnElement[Any]:
    """The UTC day of an instant, as the database groups by it; see `_as_date`."""
    if connection.dialect.name == "postgresql":
        return sa.cast(sa.func.timezone("UTC", instant), sa.Date)
    return sa.type_coerce(instant, sa.BigInteger) // 86_400_000_000


def _as_date(day: date | int) -> date:
    return day if isinstance(day, date) else date(1970, 1, 1) + timedelta(days=day)


def lock_days(connection: sa.Connection, days: Iterable[date]) -> None:
    """Wait for other writers of these days. In SQLite the transaction is the lock already."""
    if connection.dialect.name == "postgresql":
        for day in sorted(days):  # one order for everybody, so two writers can't deadlock
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_DAY_LOCK, day.toordinal())))


def _chunks(items: Sequence[_T], size: int) -> Iterable[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
