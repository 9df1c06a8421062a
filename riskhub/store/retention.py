"""What may be removed: snapshots by policy, and blobs that nothing refers to.

A blob goes in two steps, days apart: what nothing refers to is condemned; what is still condemned
after a time of grace is removed, in a transaction that keeps landings waiting. Whoever is about to
refer to a blob pardons it first. So a blob is never removed under a snapshot that is just landing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.store.engine import reading, writing
from riskhub.store.events import RELAY
from riskhub.store.landing import lock_landings
from riskhub.store.tables import (
    MADE_FROM_SNAPSHOTS,
    condemned_blobs,
    event_cursors,
    events,
    quarantine,
    snapshot_blobs,
    snapshots,
    world_stages,
)

_WALK = 5_000
_CHUNK = 500
_GO_WITH_A_SNAPSHOT = (*MADE_FROM_SNAPSHOTS, quarantine, snapshot_blobs, events)


@dataclass(frozen=True, slots=True)
class Removable:
    """How many snapshots of a stage a policy would remove, and the instants they lie between."""

    stage: str
    count: int
    oldest_as_of: datetime
    newest_as_of: datetime


class RetentionStore:
    """What retention does to one database; each call is one transaction, or a few short ones."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def stages(self) -> list[str]:
        """Every stage that has had snapshots."""
        with reading(self.engine) as connection:
            query = sa.select(world_stages.c.stage).distinct().order_by(world_stages.c.stage)
            return list(connection.execute(query).scalars())

    def removable(self, received_before: Mapping[str, datetime], now: datetime) -> list[Removable]:
        """What `remove_snapshots` would remove, by stage."""
        if not received_before:
            return []
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(
                    snapshots.c.stage,
                    sa.func.count(),
                    sa.func.min(snapshots.c.as_of),
                    sa.func.max(snapshots.c.as_of),
                )
                .where(_goes(connection, received_before, now))
                .group_by(snapshots.c.stage)
                .order_by(snapshots.c.stage)
            )
            return [Removable(*row) for row in rows]

    def remove_snapshots(
        self,
        received_before: Mapping[str, datetime],
        now: datetime,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Remove expired snapshots, and what was made from them; how many.

        One walk in landing order, removing a few hundred a transaction, so that producers posting
        meanwhile wait for milliseconds.

        Args:
            received_before: by stage, what was received before this instant; other stages stay.
            progress: told after each transaction how many it removed.
        """
        removed, position = 0, 0
        while True:
            with reading(self.engine) as connection:
                walked = connection.execute(
                    sa.select(
                        snapshots.c.position,
                        snapshots.c.stage,
                        snapshots.c.received_at,
                        snapshots.c.expires_at,
                    )
                    .where(snapshots.c.position > position)
                    .order_by(snapshots.c.position)
                    .limit(_WALK)
                ).all()
                untold_from = _untold_from(connection)
            doomed = [
                row.position
                for row in walked
                if (untold_from is None or row.position < untold_from)
                # Its expiry first of all: retention never takes what is still served.
                and row.expires_at <= now
                and row.stage in received_before
                and row.received_at < received_before[row.stage]
            ]
            for start in range(0, len(doomed), _CHUNK):
                positions = doomed[start : start + _CHUNK]
                with writing(self.engine) as connection:
                    for table in _GO_WITH_A_SNAPSHOT:
                        connection.execute(sa.delete(table).where(table.c.position.in_(positions)))
                    # A landing that meets one of these again reads it next: none is under way now.
                    lock_landings(connection)
                    gone = connection.execute(
                        sa.delete(snapshots).where(snapshots.c.position.in_(positions))
                    ).rowcount
                removed += gone
                progress(gone)
            if len(walked) < _WALK:
                return removed
            position = walked[-1].position

    def unreferenced(
        self,
        refs: Iterable[str],
        *,
        but_for: tuple[Mapping[str, datetime], datetime] | None = None,
    ) -> list[str]:
        """Those of these references that no snapshot has.

        Args:
            but_for: what `removable` is asked, when the snapshots it tells of are not to count.
        """
        kept = list(refs)
        query = sa.select(snapshot_blobs.c.ref).where(
            snapshot_blobs.c.ref.in_(sa.bindparam("refs", expanding=True))
        )
        with reading(self.engine) as connection:
            if but_for is not None:
                held_by = snapshots.c.position == snapshot_blobs.c.position
                query = query.join(snapshots, held_by).where(~_goes(connection, *but_for))
            referenced = set(connection.execute(query, {"refs": kept}).scalars())
        return [ref for ref in kept if ref not in referenced]

    def not_condemned(self, refs: Sequence[str]) -> list[str]:
        """Those of these references that are not condemned."""
        with reading(self.engine) as connection:
            query = sa.select(condemned_blobs.c.ref).where(condemned_blobs.c.ref.in_(refs))
            condemned = set(connection.execute(query).scalars())
        return [ref for ref in refs if ref not in condemned]

    def condemn_blobs(self, refs: Sequence[str], now: datetime) -> int:
        """Note that nothing refers to these; how many are newly condemned.

        Those already condemned stay so since then.
        """
        fresh = [{"ref": ref, "since": now} for ref in self.not_condemned(refs)]
        if fresh:
            with writing(self.engine) as connection:
                postgres = connection.dialect.name == "postgresql"
                insert = (postgresql.insert if postgres else sqlite.insert)(condemned_blobs)
                connection.execute(insert.on_conflict_do_nothing(), fresh)
        return len(fresh)

    def condemned_blobs(
        self, since_before: datetime, *, after: str = "", limit: int | None = None
    ) -> list[str]:
        """What has been condemned for longer than until then, sorted; after one, and so many."""
        with reading(self.engine) as connection:
            query = (
                sa.select(condemned_blobs.c.ref)
                .where(condemned_blobs.c.since <= since_before, condemned_blobs.c.ref > after)
                .order_by(condemned_blobs.c.ref)
                .limit(limit)
            )
            return list(connection.execute(query).scalars())

    def pardon_blobs(self, refs: Sequence[str]) -> None:
        """Save these from removal: somebody is about to refer to them."""
        condemned = condemned_blobs.c.ref.in_(refs)
        with reading(self.engine) as connection:
            if not connection.execute(sa.select(condemned_blobs.c.ref).where(condemned)).first():
                return
        with writing(self.engine) as connection:
            connection.execute(sa.delete(condemned_blobs).where(condemned))

    def remove_blob(self, ref: str, since_before: datetime, delete: Callable[[str], None]) -> bool:
        """Have `delete` remove a blob that is still condemned and unreferenced; whether it did."""
        with writing(self.engine) as connection:
            lock_landings(connection)
            still = connection.execute(
                sa.delete(condemned_blobs)
                .where(condemned_blobs.c.ref == ref, condemned_blobs.c.since <= since_before)
                .returning(condemned_blobs.c.ref)
            ).first()
            referenced = connection.execute(
                sa.select(snapshot_blobs.c.ref).where(snapshot_blobs.c.ref == ref).limit(1)
            ).first()
            if still is None or referenced is not None:
                return False
            delete(ref)
            return True


def _goes(
    connection: sa.Connection, received_before: Mapping[str, datetime], now: datetime
) -> sa.ColumnElement[bool]:
    """Whether a policy removes a snapshot."""
    past = (
        sa.and_(snapshots.c.stage == stage, snapshots.c.received_at < before)
        for stage, before in received_before.items()
    )
    goes = sa.and_(snapshots.c.expires_at <= now, sa.or_(sa.false(), *past))
    untold_from = _untold_from(connection)
    return goes if untold_from is None else sa.and_(goes, snapshots.c.position < untold_from)


def _untold_from(connection: sa.Connection) -> int | None:
    """The first landing that a relay has yet to tell a topic of: what it needs is kept for it.

    None when there is none, or nobody ever relayed.
    """
    relayed = sa.select(sa.func.min(event_cursors.c.sequence)).where(
        event_cursors.c.reader.startswith(RELAY)
    )
    if (sequence := connection.execute(relayed).scalar()) is None:
        return None
    waiting = sa.select(sa.func.min(events.c.position)).where(events.c.sequence > sequence)
    return connection.execute(waiting).scalar()
