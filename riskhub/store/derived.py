"""The tables that are made from landings: replaced a day at a time, never half a day.

Each write names the days it covers and is one transaction: what those days held is deleted, what
they hold now is inserted, and a lock on the day keeps a second writer of it waiting. So a killed
run leaves whole days, and running a day twice gives the same rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from riskhub.store.engine import reading, writing
from riskhub.store.landing import Landed
from riskhub.store.tables import (
    risk_metrics,
    risk_tails,
    snapshot_weights,
    snapshots,
    symbol_budgets,
    validated_snapshots,
)

_DAY_LOCK = 0x646179

Row = Mapping[str, Any]
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
        rejected: Sequence[int] = (),
    ) -> None:
        """Write the rows of some days to tables (by name) in one transaction.

        Args:
            days: every day that a row belongs to.
            replace: delete what the days hold first; otherwise only rows of the same landings are
                replaced, which is how a run adds what landed since the last one.
            read_up_to: the newest landing that these rows were made from. Rows of later ones are
                not replaced: another run has added them since.
            rejected: landings whose verdict is no: nothing that was made from them may stay.
        """
        with writing(self.engine) as connection:
            _lock_days(connection, days)
            for name, rows in tables.items():
                table = snapshots.metadata.tables[name]
                if replace:
                    held = sa.delete(table).where(table.c.day.in_(days))
                    if read_up_to is not None:
                        held = held.where(table.c.position <= read_up_to)
                    connection.execute(held)
                _delete_landings(connection, table, {row["position"] for row in rows})
                for rows_chunk in _chunks(rows, 5_000):
                    connection.execute(sa.insert(table), list(rows_chunk))
            for table in (snapshot_weights, risk_metrics, risk_tails):
                _delete_landings(connection, table, rejected)

    def accepted_on(
        self,
        first: date,
        last: date,
        *,
        missing_from: str | None = None,
    ) -> list[Landed]:
        """Accepted snapshots of the days `first` to `last`, in landing order.

        Args:
            missing_from: only those that have no row in this table yet.
        """
        with reading(self.engine) as connection:
            query = (
                sa.select(
                    validated_snapshots.c.position,
                    validated_snapshots.c.world_id,
                    validated_snapshots.c.version,
                    validated_snapshots.c.as_of,
                    validated_snapshots.c.stage,
                    validated_snapshots.c.digest,
                    snapshots.c.body,
                )
                .join(snapshots, snapshots.c.position == validated_snapshots.c.position)
                .where(validated_snapshots.c.day.between(first, last))
                .where(validated_snapshots.c.accepted)
                .order_by(validated_snapshots.c.position)
            )
            if missing_from is not None:
                query = query.where(_missing(missing_from, validated_snapshots.c.position))
            return [Landed(*row) for row in connection.execute(query)]

    def weights_of(
        self, first: date, last: date, *, missing_from: str | None = None
    ) -> dict[int, dict[str, float]]:
        """Weights by landing position, of the days `first` to `last`.

        Args:
            missing_from: only of landings that have no row in this table yet.
        """
        query = sa.select(snapshot_weights).where(snapshot_weights.c.day.between(first, last))
        if missing_from is not None:
            query = query.where(_missing(missing_from, snapshot_weights.c.position))
        return self._weights(query)

    def verdicts_on(self, first: date, last: date) -> list[Row]:
        """Every validated snapshot of the days, with its verdict and reasons."""
        return self._rows_of_days(validated_snapshots, first, last)

    def quarantined_on(self, first: date, last: date) -> list[Row]:
        """The rejected snapshots of the days, with their reasons."""
        rejected = ~validated_snapshots.c.accepted
        return self._rows_of_days(validated_snapshots, first, last, rejected)

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

    def weights_history(self, world_id: str, *, stage: str) -> dict[int, dict[str, float]]:
        """A world's weights by landing position."""
        verdict = validated_snapshots.c.position == snapshot_weights.c.position
        return self._weights(
            sa.select(snapshot_weights)
            .join(validated_snapshots, verdict)
            .where(snapshot_weights.c.world_id == world_id, validated_snapshots.c.stage == stage)
        )

    def _weights(self, query: sa.Select[Any]) -> dict[int, dict[str, float]]:
        ordered = query.order_by(snapshot_weights.c.position, snapshot_weights.c.symbol)
        weights: dict[int, dict[str, float]] = {}
        with reading(self.engine) as connection:
            for row in connection.execute(ordered):
                weights.setdefault(row.position, {})[row.symbol] = row.weight
        return weights

    def pending_days(self, *, after: int = 0, stage: str | None = None) -> Pending:
        """What landed after a position and has no verdict, or is accepted and has no metrics.

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
                .outerjoin(
                    validated_snapshots, validated_snapshots.c.position == snapshots.c.position
                )
                .outerjoin(risk_metrics, risk_metrics.c.position == snapshots.c.position)
                .where(snapshots.c.position > after)
                .where(
                    sa.or_(
                        validated_snapshots.c.position.is_(None),
                        sa.and_(validated_snapshots.c.accepted, risk_metrics.c.position.is_(None)),
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

    def add_budgets(self, rows: Sequence[Row]) -> None:
        """Add one cycle's budgets to the history."""
        with writing(self.engine) as connection:
            if rows:
                connection.execute(sa.insert(symbol_budgets), list(rows))

    def newest_budgets(self) -> list[Row]:
        """The budgets of the newest cycle, by symbol."""
        with reading(self.engine) as connection:
            newest = sa.select(sa.func.max(symbol_budgets.c.computed_at)).scalar_subquery()
            rows = connection.execute(
                sa.select(symbol_budgets)
                .where(symbol_budgets.c.computed_at == newest)
                .order_by(symbol_budgets.c.symbol)
            )
            return [dict(row._mapping) for row in rows]


def _missing(table_name: str, position: sa.Column[int]) -> sa.ColumnElement[bool]:
    table = snapshots.metadata.tables[table_name]
    return ~sa.exists().where(table.c.position == position)


def _delete_landings(connection: sa.Connection, table: sa.Table, positions: Iterable[int]) -> None:
    for chunk in _chunks(sorted(positions), 500):
        connection.execute(sa.delete(table).where(table.c.position.in_(chunk)))


def _day_of(connection: sa.Connection, instant: sa.Column[datetime]) -> sa.ColumnElement[Any]:
    """The UTC day of an instant, as the database groups by it; see `_as_date`."""
    if connection.dialect.name == "postgresql":
        return sa.cast(sa.func.timezone("UTC", instant), sa.Date)
    return sa.type_coerce(instant, sa.BigInteger) // 86_400_000_000


def _as_date(day: date | int) -> date:
    return day if isinstance(day, date) else date(1970, 1, 1) + timedelta(days=day)


def _lock_days(connection: sa.Connection, days: Iterable[date]) -> None:
    """Wait for other writers of these days. In SQLite the transaction is the lock already."""
    if connection.dialect.name == "postgresql":
        for day in sorted(days):  # one order for everybody, so two writers can't deadlock
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_DAY_LOCK, day.toordinal())))


def _chunks(items: Sequence[_T], size: int) -> Iterable[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
