"""What happened since an instant, and how much there is by now: what a briefing counts.

Asked once a morning: each of these reads may walk a table.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.tables import events, metadata, quarantine, snapshots

_TOLD_OF = (
    *("snapshots", "snapshot_weights", "risk_metrics", "risk_contributions", "stress_results"),
    *("var_outcomes", "var_backtests", "symbol_budgets", "events", "handled_events"),
)


@dataclass(frozen=True, slots=True)
class Happened:
    """How many since an instant.

    Attributes:
        landings: by stage; a stage without any is not in it.
        events: in the outbox; that of a landing counts when it landed.
        quarantined: snapshots that entered the quarantine, also those that have left it again.
        in_quarantine: that are there now.
    """

    landings: dict[str, int]
    events: int
    quarantined: int
    in_quarantine: int


class DaybookStore:
    """Counts of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def happened_since(self, since: datetime) -> Happened:
        """What landed, was told and was quarantined from an instant on."""
        landed = (
            sa.select(snapshots.c.stage, sa.func.count())
            .where(snapshots.c.received_at >= since)
            .group_by(snapshots.c.stage)
            .order_by(snapshots.c.stage)
        )
        told = sa.select(sa.func.count()).where(
            sa.func.coalesce(events.c.occurred_at, snapshots.c.received_at) >= since
        )
        told = told.select_from(
            events.outerjoin(snapshots, snapshots.c.position == events.c.position)
        )
        held = sa.select(sa.func.count()).select_from(quarantine)
        with one_state(self.engine) as connection:
            return Happened(
                {row[0]: row[1] for row in connection.execute(landed)},
                connection.execute(told).scalar_one(),
                connection.execute(held.where(quarantine.c.since >= since)).scalar_one(),
                connection.execute(held.where(quarantine.c.until.is_(None))).scalar_one(),
            )

    def row_counts(self) -> dict[str, int]:
        """How many rows the tables have that grow."""
        with reading(self.engine) as connection:
            return {
                name: connection.execute(
                    sa.select(sa.func.count()).select_from(metadata.tables[name])
                ).scalar_one()
                for name in _TOLD_OF
            }

    def size_bytes(self) -> int:
        """How large the database is; of SQLite without its write-ahead log."""
        query = (
            "SELECT pg_database_size(current_database())"
            if self.engine.dialect.name == "postgresql"
            else "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
        with reading(self.engine) as connection:
            return int(connection.execute(sa.text(query)).scalar_one())
