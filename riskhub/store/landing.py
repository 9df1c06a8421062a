"""The landing table: adding snapshots, and reading them as of now or in the order they landed.

**Landing order.** `position` grows with the order of *commits*: a transaction that adds rows holds
one lock from before it takes its first position until after it has committed. So whoever has read
up to a position has seen every row up to there, and remembering that one number is enough never to
miss a row that committed late. Rows that arrive together share a transaction (see
`riskhub.together`), so the lock does not cost a commit per row.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.controlbus.events import SNAPSHOT_UPDATED
from riskhub.snapshot import Snapshot
from riskhub.store.engine import reading, writing
from riskhub.store.reading import Position, SnapshotReads
from riskhub.store.tables import (
    Instant,
    events,
    snapshot_blobs,
    snapshots,
    validated_snapshots,
    world_stages,
)

# Any constant does: it names the lock among this database's advisory locks.
_LANDING_LOCK = 0x7269736B


class Outcome(Enum):
    """What became of a snapshot that was offered."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Landing:
    """What became of one snapshot; `digest` and `body` are those that are stored."""

    outcome: Outcome
    digest: str
    body: str


@dataclass(frozen=True, slots=True)
class Landed:
    """A stored snapshot as the pipeline reads it."""

    position: Position
    world_id: str
    version: str
    as_of: datetime
    stage: str
    digest: str
    body: str

    @property
    def day(self) -> date:
        """The UTC day of `as_of`: the daily partition it belongs to."""
        return self.as_of.date()


def land(connection: sa.Connection, offered: Sequence[Snapshot]) -> list[Landing]:
    """Add what is new, in order; say for each what became of it. Changes no existing row.

    The unique constraint decides between two that arrive at once, not a look before.
    """
    if not offered:
        return []
    lock_landings(connection)
    firsts: dict[tuple[str, str], Snapshot] = {}
    for snapshot in offered:
        firsts.setdefault((snapshot.world_id, snapshot.version), snapshot)
    added = _insert_snapshots(connection, list(firsts.values()))
    created = {key: firsts[key] for key in added}
    _note_worlds(connection, created.values())
    referred = [
        {"ref": ref, "position": added[key]}
        for key, snapshot in created.items()
        for ref in dict.fromkeys(snapshot.refs)
    ]
    if referred:
        connection.execute(sa.insert(snapshot_blobs), referred)

    stored = _stored(connection, [key for key in firsts if key not in created])
    stored |= {key: (first.digest, first.body) for key, first in created.items()}
    landings = []
    for snapshot in offered:
        key = (snapshot.world_id, snapshot.version)
        digest, body = stored[key]
        if created.pop(key, None) is not None:  # the first of its key; the next is a duplicate
            outcome = Outcome.CREATED
        elif snapshot.same_content(digest):
            outcome = Outcome.DUPLICATE
        else:
            outcome = Outcome.CONFLICT
        landings.append(Landing(outcome, digest, body))
    return landings


def lock_landings(connection: sa.Connection) -> None:
    """Keep every other landing waiting until this transaction has ended."""
    if connection.dialect.name == "postgresql":  # SQLite's transaction has the write lock
        connection.execute(_TAKE_LOCK)


class LandingStore(SnapshotReads):
    """The landing table of one database; each call is one transaction."""

    def land(self, offered: Sequence[Snapshot]) -> list[Landing]:
        """Add snapshots in one transaction; see `land`."""
        with writing(self.engine) as connection:
            return land(connection, offered)

    def head(self) -> Position:
        """The newest position that can be read; 0 when nothing has landed."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(sa.func.max(snapshots.c.position))).scalar() or 0

    def landed_on(
        self,
        first: date,
        last: date,
        *,
        only_unvalidated: bool = False,
        worlds: Collection[str] | None = None,
        after: Position = 0,
        limit: int | None = None,
    ) -> list[Landed]:
        """Snapshots whose `as_of` lies on the UTC days `first` to `last`, in landing order.

        Args:
            only_unvalidated: only those without a verdict.
            worlds: only of these; None is all.
            after: only those that landed after this position.
            limit: how many, at most.
        """
        with reading(self.engine) as connection:
            query = (
                sa.select(snapshots.c.position)
                .where(snapshots.c.as_of >= midnight(first))
                .where(snapshots.c.as_of < midnight(last) + timedelta(days=1))
                .where(snapshots.c.position > after)
            )
            if only_unvalidated:
                query = query.outerjoin(
                    validated_snapshots, validated_snapshots.c.position == snapshots.c.position
                ).where(validated_snapshots.c.position.is_(None))
            if worlds is not None:
                query = query.where(snapshots.c.world_id.in_(worlds))
            return landed_at(connection, query, limit)


def landed_at(
    connection: sa.Connection, positions: sa.Select[tuple[Position]], limit: int | None
) -> list[Landed]:
    """The snapshots at the first `limit` positions of a query, in landing order.

    The positions are found first and by themselves: of what a limit leaves out no body is read,
    and no planner walks all that ever landed in the hope of soon meeting `limit` of some days.
    """
    found = positions.cte("found").prefix_with("MATERIALIZED")
    chosen = sa.select(found.c.position).order_by(found.c.position).limit(limit).subquery("chosen")
    query = (
        sa.select(*(snapshots.c[field.name] for field in fields(Landed)))
        .join(chosen, chosen.c.position == snapshots.c.position)
        .order_by(snapshots.c.position)
    )
    return [Landed(*row) for row in connection.execute(query)]


def _note_worlds(connection: sa.Connection, created: Iterable[Snapshot]) -> None:
    """Keep each world's newest `as_of` and last expiry, and give it another stamp."""
    newest: dict[tuple[str, str], datetime] = {}
    alive: dict[tuple[str, str], datetime] = {}
    for snapshot in created:
        key = (snapshot.world_id, snapshot.stage)
        newest[key] = max(snapshot.as_of, newest.get(key, snapshot.as_of))
        alive[key] = max(snapshot.expires_at, alive.get(key, snapshot.expires_at))
    if newest:
        connection.execute(
            _note_world(connection.dialect.name),
            [
                {
                    **{"world_id": key[0], "stage": key[1], "stamp": _new_stamp()},
                    **{"newest_as_of": as_of, "alive_until": alive[key]},
                }
                for key, as_of in newest.items()
            ],
        )


def give_new_stamps(connection: sa.Connection, worlds: Iterable[tuple[str, str]]) -> None:
    """Give worlds and stages another stamp: what is remembered of them is no answer any more."""
    for world_id, stage in sorted(worlds):  # one order for everybody, so two can't deadlock
        connection.execute(
            sa.update(world_stages)
            .where(world_stages.c.world_id == world_id, world_stages.c.stage == stage)
            .values(stamp=_new_stamp())
        )


def _new_stamp() -> int:
    return secrets.randbits(62)


@lru_cache
def _note_world(dialect: str) -> sa.Insert:
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(world_stages)

    def later(name: str) -> sa.ColumnElement[datetime]:
        offered, known = insert.excluded[name], world_stages.c[name]
        return sa.case((sa.or_(known.is_(None), offered > known), offered), else_=known)

    return insert.on_conflict_do_update(
        index_elements=["world_id", "stage"],
        set_={name: later(name) for name in ("newest_as_of", "alive_until")}
        | {"stamp": insert.excluded.stamp},
    )


# -- inserting: the one statement that must be quick ----------------------------------------------

_TAKE_LOCK = sa.select(sa.func.pg_advisory_xact_lock(_LANDING_LOCK))
_COLUMNS = tuple(column.name for column in snapshots.c if column.name != "position")


def _insert_snapshots(
    connection: sa.Connection, fresh: Sequence[Snapshot]
) -> dict[tuple[str, str], Position]:
    """Insert what is not there yet, and its events; the keys and positions of that, in order."""
    if connection.dialect.name == "postgresql":
        arrays = {name: [getattr(snapshot, name) for snapshot in fresh] for name in _COLUMNS}
        rows = connection.exec_driver_sql(_INSERT_ARRAYS, arrays)
        return {(world_id, version): position for world_id, version, position in rows}
    added = {}
    for snapshot in fresh:
        values = tuple(
            in_sqlite(getattr(snapshot, name)) if in_sqlite else getattr(snapshot, name)
            for name, in_sqlite in _IN_SQLITE
        )
        position = connection.exec_driver_sql(_INSERT_ROW, values).scalar()
        if position is not None:
            added[snapshot.world_id, snapshot.version] = position
    told = [(world_id, position) for (world_id, _), position in added.items()]
    if told:
        connection.exec_driver_sql(_INSERT_EVENT, told)
    return added


def _array(name: str) -> str:
    element = "timestamptz" if isinstance(snapshots.c[name].type, Instant) else "text"
    return f"%({name})b::{element}[]"


# One array a column, so that the statement is the same for any number of rows; and binary (the b),
# because as text each quote of each body would have to be escaped, which costs more than all else.
_INSERT_ARRAYS = f"""
    WITH added AS (
        INSERT INTO snapshots ({", ".join(_COLUMNS)})
        SELECT * FROM unnest({", ".join(map(_array, _COLUMNS))})
        ON CONFLICT (world_id, version) DO NOTHING
        RETURNING world_id, version, position
    ), told AS (
        INSERT INTO {events.name} (type, key, position)
        SELECT '{SNAPSHOT_UPDATED}', world_id, position FROM added ORDER BY position
    )
    SELECT world_id, version, position FROM added
"""  # noqa: S608 - made of our own names
_INSERT_ROW = f"""
    INSERT INTO snapshots ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
    ON CONFLICT (world_id, version) DO NOTHING
    RETURNING position
"""  # noqa: S608 - made of our own names
_INSERT_EVENT = (
    f"INSERT INTO {events.name} (type, key, position) VALUES ('{SNAPSHOT_UPDATED}', ?, ?)"  # noqa: S608 - made of our own names
)
_IN_SQLITE = [(name, snapshots.c[name].type.bind_processor(sqlite.dialect())) for name in _COLUMNS]
_STORED = sa.select(snapshots.c.digest, snapshots.c.body).where(
    snapshots.c.world_id == sa.bindparam("world_id"),
    snapshots.c.version == sa.bindparam("version"),
)


def _stored(
    connection: sa.Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Digest and body of what is stored under these keys."""
    found = {}
    for world_id, version in keys:
        row = connection.execute(_STORED, {"world_id": world_id, "version": version}).one()
        found[world_id, version] = (row.digest, row.body)
    return found


def midnight(day: date) -> datetime:
    """The instant at which a UTC day begins."""
    return datetime.combine(day, time(), tzinfo=UTC)
