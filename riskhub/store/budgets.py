"""What the governor has on record: its cycles with their receipts, and the violations of the gate.

History, not state: gates read budgets from Redis, and nothing here decides a trade.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from psycopg.errors import CheckViolation

from riskhub.controlbus.events import violation
from riskhub.store.bulk import add_rows
from riskhub.store.derived import Row
from riskhub.store.engine import one_state, reading, writing
from riskhub.store.events import append_events
from riskhub.store.landing import midnight
from riskhub.store.tables import budget_cycles, budget_violations, symbol_budgets

WEEKS_AHEAD = 5
# In the order in which a cycle is written: whoever locks both can't meet another half way.
_BY_WEEKS = (budget_cycles, symbol_budgets)
# Cycles a transaction: what forgets must not keep the governor waiting.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class StoredCycle:
    """A cycle of `budget_cycles`, and the rows that `symbol_budgets` has of it, by symbol."""

    cycle: Row
    budgets: tuple[Row, ...]


class BudgetStore:
    """The governor's history in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add_cycle(self, cycle: Row, budgets: Sequence[Row]) -> None:
        """Add a cycle to the history, in one transaction.

        Args:
            cycle: a row of `budget_cycles`.
            budgets: its rows of `symbol_budgets`: all of them if it is `complete`, else those whose
                policies changed.
        """
        try:
            self._add_cycle(cycle, budgets)
        except sa.exc.IntegrityError as error:
            if not isinstance(error.orig, CheckViolation):
                raise
            # Postgres has no room for its week: nobody has made any for weeks.
            self.make_room_for_budgets(cycle["computed_at"], weeks=1)
            self._add_cycle(cycle, budgets)

    def _add_cycle(self, cycle: Row, budgets: Sequence[Row]) -> None:
        with writing(self.engine) as connection:
            connection.execute(sa.insert(budget_cycles), cycle)
            add_rows(connection, symbol_budgets, budgets)

    def make_room_for_budgets(self, since: datetime, *, weeks: int = WEEKS_AHEAD) -> int:
        """Have partitions for cycles from an instant on, for so many weeks; how many are new.

        SQLite has one table of each, and nothing to make.
        """
        if self.engine.dialect.name == "sqlite":
            return 0
        day = since.astimezone(UTC).date()
        monday = midnight(day - timedelta(day.weekday()))
        with writing(self.engine) as connection:
            return sum(
                connection.execute(
                    sa.select(sa.func.riskhub_add_week(table.name, monday + timedelta(7 * week)))
                ).scalar_one()
                for week in range(weeks)
                for table in _BY_WEEKS
            )

    def newest_cycle(self) -> StoredCycle | None:
        """The newest cycle of which every budget is on record, or that had none; with them."""
        # Whoever waited while a migration exchanged the tables finds the new one as it was before
        # that, empty: what is asked next finds it full.
        return self._newest_cycle() or self._newest_cycle()

    def _newest_cycle(self) -> StoredCycle | None:
        query = sa.select(budget_cycles).where(budget_cycles.c.complete)
        with one_state(self.engine) as connection:
            newest = connection.execute(
                query.order_by(budget_cycles.c.computed_at.desc()).limit(1)
            ).first()
            if newest is None:
                return None
            budgets = connection.execute(
                sa.select(symbol_budgets)
                .where(symbol_budgets.c.computed_at == newest.computed_at)
                .order_by(symbol_budgets.c.symbol)
            )
            return StoredCycle(dict(newest._mapping), tuple(dict(row._mapping) for row in budgets))

    def newest_budgets(self) -> list[Row]:
        """The budgets of `newest_cycle`, by symbol."""
        newest = self.newest_cycle()
        return list(newest.budgets) if newest else []

    def budget_history(self, symbol: str, *, limit: int) -> list[Row]:
        """Budgets of a symbol, newest first, each with `writer` and `heat_policy` of its cycle."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(symbol_budgets, budget_cycles.c.writer, budget_cycles.c.heat_policy)
                .outerjoin(
                    budget_cycles, budget_cycles.c.computed_at == symbol_budgets.c.computed_at
                )
                .where(symbol_budgets.c.symbol == symbol)
                .order_by(symbol_budgets.c.computed_at.desc())
                .limit(limit)
            )
            return [dict(row._mapping) for row in rows]

    def budget_cycles(self, *, limit: int) -> list[Row]:
        """Cycles on record, newest first, without their budgets."""
        newest_first = sa.select(budget_cycles).order_by(budget_cycles.c.computed_at.desc())
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(newest_first.limit(limit))]

    def forget_budgets(self, before: datetime) -> tuple[int, int]:
        """Forget the cycles of before an instant with their budgets; how many of each.

        The newest cycle that is complete stays, and what came after it: it is what is shown. So do
        violations, which are no state of a budget but what somebody did.

        Postgres drops whole weeks and leaves the week of the instant for the next time; what was
        there before there were weeks goes when the last of it is old.
        """
        complete = sa.select(sa.func.max(budget_cycles.c.computed_at)).where(
            budget_cycles.c.complete
        )
        with reading(self.engine) as connection:
            newest = connection.execute(complete).scalar()
        limit = before if newest is None else min(before, newest)
        if self.engine.dialect.name == "sqlite":
            return self._delete_budgets(limit)
        with writing(self.engine) as connection:
            cycles, budgets = (
                connection.execute(
                    sa.select(sa.func.riskhub_drop_weeks(table.name, limit))
                ).scalar_one()
                for table in _BY_WEEKS
            )
            return cycles, budgets

    def _delete_budgets(self, limit: datetime) -> tuple[int, int]:
        cycles = budgets = 0
        while True:
            old = (
                sa.select(budget_cycles.c.computed_at)
                .where(budget_cycles.c.computed_at < limit)
                .order_by(budget_cycles.c.computed_at)
                .limit(_CHUNK)
            )
            with writing(self.engine) as connection:
                doomed = list(connection.execute(old).scalars())
                if not doomed:
                    return cycles, budgets
                # Up to the last of them: budgets whose cycle is gone are as old.
                budgets += connection.execute(
                    sa.delete(symbol_budgets).where(symbol_budgets.c.computed_at <= doomed[-1])
                ).rowcount
                cycles += connection.execute(
                    sa.delete(budget_cycles).where(budget_cycles.c.computed_at <= doomed[-1])
                ).rowcount

    def add_violations(self, rows: Sequence[Row]) -> None:
        """Add what the gate found over its budget, rows of `budget_violations`, and its events."""
        if rows:
            with writing(self.engine) as connection:
                connection.execute(sa.insert(budget_violations), list(rows))
                append_events(connection, map(violation, rows))

    def violations(self, *, symbol: str | None = None, limit: int) -> list[Row]:
        """Violations, newest first: of one symbol, or of all."""
        query = sa.select(*(column for column in budget_violations.c if column.name != "id"))
        if symbol is not None:
            query = query.where(budget_violations.c.symbol == symbol)
        newest_first = query.order_by(budget_violations.c.at.desc(), budget_violations.c.id.desc())
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(newest_first.limit(limit))]
