"""What is new of each world: its greatest `as_of`, and until when something of it is alive.

A row per world and stage answers it (`world_stages`), kept by the transactions that change it:
landings, and verdicts that send a snapshot into the quarantine or let it out.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from riskhub.freshness import Newest
from riskhub.store.engine import reading
from riskhub.store.tables import quarantine, snapshots, world_stages

_COLUMNS = [world_stages.c[name] for name in Newest._fields]


class NewsStore:
    """What is new in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def newest_per_world(
        self, *, world_id: str | None = None, stage: str | None = None
    ) -> list[Newest]:
        """Each world and stage that has landed, by name; without what is in the quarantine."""
        with reading(self.engine) as connection:
            return newest_per_world(connection, world_id=world_id, stage=stage)


def newest_per_world(
    connection: sa.Connection, *, world_id: str | None = None, stage: str | None = None
) -> list[Newest]:
    """See `NewsStore.newest_per_world`."""
    query = sa.select(*_COLUMNS).order_by(world_stages.c.world_id, world_stages.c.stage)
    if world_id is not None:
        query = query.where(world_stages.c.world_id == world_id)
    if stage is not None:
        query = query.where(world_stages.c.stage == stage)
    return [Newest(*row) for row in connection.execute(query)]


def look_again(connection: sa.Connection, worlds: Iterable[tuple[str, str]], now: datetime) -> None:
    """Find the news of worlds and stages anew: something of them changed its verdict.

    Landings must be kept waiting, or what lands meanwhile is overlooked.
    """
    for world_id, stage in sorted(worlds):
        given = {"of_world": world_id, "of_stage": stage, "now": now}
        connection.execute(_LOOK_AGAIN, given)


def _look_again() -> sa.Update:
    instant: Any = snapshots.c.as_of.type
    held = (
        sa.select(quarantine.c.since)
        .where(quarantine.c.position == snapshots.c.position, quarantine.c.until.is_(None))
        .limit(1)
        .scalar_subquery()
    )
    # The parameters, not the columns of the row: so each is one walk of an index.
    counts = sa.and_(
        snapshots.c.world_id == sa.bindparam("of_world"),
        snapshots.c.stage == sa.bindparam("of_stage"),
        held.is_(None),
    )
    newest = sa.select(snapshots.c.as_of).where(counts).order_by(snapshots.c.as_of.desc()).limit(1)
    # At most a day of landings: a ttl is at most a day.
    alive = sa.select(sa.func.max(snapshots.c.expires_at)).where(
        counts, snapshots.c.expires_at > sa.bindparam("now", type_=instant)
    )
    return (
        sa.update(world_stages)
        .where(world_stages.c.world_id == sa.bindparam("of_world"))
        .where(world_stages.c.stage == sa.bindparam("of_stage"))
        .values(newest_as_of=newest.scalar_subquery(), alive_until=alive.scalar_subquery())
    )


_LOOK_AGAIN = _look_again()
