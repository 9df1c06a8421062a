"""The outbox: events in the order in which what they tell of was committed, and their readers.

An event is written in the transaction that does what it tells of, under the landing lock; so, as
with positions, whoever has read up to a sequence has seen every event up to there.
"""

import fcntl
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.controlbus.events import SNAPSHOT_UPDATED, NewEvent, OutboxEvent, landing_event
from riskhub.store.bulk import add_rows
from riskhub.store.engine import named_failures, reading, writing
from riskhub.store.landing import lock_landings
from riskhub.store.tables import event_cursors, events, snapshots

RELAY = "relay:"
"""The beginning of the names of readers that tell a topic; its name follows."""

_CHUNK = 500
_READER_LOCK = 0x72656164
PAGE_BYTES = 8 * 2**20
"""A page of events ends with the first that makes it as large as this: bodies may be large."""


def append_events(connection: sa.Connection, new: Iterable[NewEvent]) -> None:
    """Put events into the outbox, in a transaction of the caller and as its last statements.

    What is there already by its id stays as it is. The landing lock is held from here on: a
    transaction that also writes what landings write (`world_stages`, say) takes it before that.
    """
    by_id = {event.id: event for event in new}
    if not by_id:
        return
    lock_landings(connection)
    ids = list(by_id)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        query = sa.select(events.c.event_id).where(events.c.event_id.in_(chunk))
        there = set(connection.execute(query).scalars())
        rows = [_row(by_id[event_id]) for event_id in chunk if event_id not in there]
        if rows:
            add_rows(connection, events, rows)


def move_cursor(connection: sa.Connection, reader: str, sequence: int, now: datetime) -> None:
    """Note, in a transaction of the caller, that a reader is done with all up to a sequence.

    A cursor never goes back, whoever moves it last.
    """
    connection.execute(
        _move(connection.dialect.name), {"reader": reader, "sequence": sequence, "moved_at": now}
    )


class EventStore:
    """The outbox of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add_events(self, new: Iterable[NewEvent]) -> None:
        """Put events into the outbox; see `append_events`."""
        with writing(self.engine) as connection:
            append_events(connection, new)

    def repeat_events(self, sequences: Collection[int]) -> int:
        """Put events into the outbox once more, with the ids they have; how many there were."""
        repeated = sa.select(*_COPIED).where(events.c.sequence.in_(sequences))
        with writing(self.engine) as connection:
            lock_landings(connection)
            again = sa.insert(events).from_select(
                [column.name for column in _COPIED], repeated.order_by(events.c.sequence)
            )
            return len(connection.execute(again.returning(events.c.sequence)).all())

    def events_after(
        self,
        sequence: int,
        *,
        limit: int,
        types: Collection[str] | None = None,
        key: str | None = None,
        up_to: int | None = None,
        page_bytes: int = PAGE_BYTES,
    ) -> list[OutboxEvent]:
        """The next events behind a sequence, in order.

        Args:
            limit: how many, at most; see also `PAGE_BYTES`.
            types: only of these; None is all.
            key: only with this one: a world, or the symbol of a budget.
            up_to: only up to this sequence.
        """
        query = sa.select(events.c.sequence).where(events.c.sequence > sequence)
        query = _chosen(query, types, key)
        if up_to is not None:
            query = query.where(events.c.sequence <= up_to)
        with reading(self.engine) as connection:
            found = query.order_by(events.c.sequence).limit(limit)
            return events_at(connection, found, page_bytes)

    def landing_events(
        self,
        world_id: str,
        *,
        since: datetime,
        before: datetime,
        after: int = 0,
        limit: int,
    ) -> list[OutboxEvent]:
        """The events of a world's landings with an `as_of` from `since` to before `before`.

        Each once, in landing order, behind the sequence `after`.
        """
        first = (
            sa.select(sa.func.min(events.c.sequence).label("sequence"))
            .join(snapshots, snapshots.c.position == events.c.position)
            .where(events.c.type == SNAPSHOT_UPDATED)
            .where(snapshots.c.world_id == world_id)
            .where(snapshots.c.as_of >= since, snapshots.c.as_of < before)
            .group_by(events.c.position)
            .subquery()
        )
        query = sa.select(first.c.sequence).where(first.c.sequence > after)
        with reading(self.engine) as connection:
            return events_at(connection, query.order_by(first.c.sequence).limit(limit), PAGE_BYTES)

    def behind_newest(
        self, count: int, *, types: Collection[str] | None = None, key: str | None = None
    ) -> int:
        """The sequence that the newest `count` of these events are behind; see `events_after`."""
        query = _chosen(sa.select(events.c.sequence), types, key)
        query = query.order_by(events.c.sequence.desc()).offset(count).limit(1)
        with reading(self.engine) as connection:
            return connection.execute(query).scalar() or 0

    def events_head(self) -> int:
        """The newest sequence there is; 0 when nothing has happened."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(sa.func.max(events.c.sequence))).scalar() or 0

    def cursor(self, reader: str) -> int:
        """Up to which sequence a reader is done; 0 when it has never read."""
        query = sa.select(event_cursors.c.sequence).where(event_cursors.c.reader == reader)
        with reading(self.engine) as connection:
            return connection.execute(query).scalar() or 0

    def cursors(self) -> dict[str, tuple[int, datetime]]:
        """Of each reader, up to which sequence it is done, and when it last said so."""
        with reading(self.engine) as connection:
            rows = connection.execute(sa.select(event_cursors))
            return {row.reader: (row.sequence, row.moved_at) for row in rows}

    def move_cursor(self, reader: str, sequence: int, now: datetime) -> None:
        """Note that a reader is done with all up to a sequence; see `move_cursor`."""
        with writing(self.engine) as connection:
            move_cursor(connection, reader, sequence, now)

    @contextmanager
    def reading_alone(self, reader: str) -> Iterator[Callable[[], None] | None]:
        """Be the only process that reads as this reader, until the end of the block or process.

        Gives None when another one is; else what tells whether we still are, by raising
        `StoreUnavailable` when the database has lost our session, and the right with it.
        """
        if self.engine.dialect.name == "postgresql":
            name = zlib.crc32(reader.encode()) - 2**31  # as a Postgres integer
            with reading(self.engine) as connection:
                lock = sa.select(sa.func.pg_try_advisory_lock(_READER_LOCK, name))
                if not connection.execute(lock).scalar():
                    yield None
                    return
                try:
                    yield lambda: _is_alive(connection)
                finally:
                    if not connection.invalidated:
                        connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        else:
            directory = Path(f"{self.engine.url.database}.claims")
            directory.mkdir(exist_ok=True)
            named = f"reader-{zlib.crc32(reader.encode()):08x}"
            with (directory / named).open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield None
                    return
                yield lambda: None


def _chosen(
    query: sa.Select[Any], types: Collection[str] | None, key: str | None
) -> sa.Select[Any]:
    if types is not None:
        query = query.where(events.c.type.in_(types))
    return query if key is None else query.where(events.c.key == key)


def _row(event: NewEvent) -> dict[str, Any]:
    return {
        "type": event.type,
        "key": event.key,
        "position": event.position,
        "event_id": event.id,
        "subject": event.subject,
        "occurred_at": event.occurred_at,
        "correlation_id": event.correlation_id or event.id,
        "data": event.stored_data(),
    }


_COPIED = tuple(column for column in events.c if column.name != "sequence")
_OF_SNAPSHOT = ("world_id", "version", "received_at", "digest", "body")


def events_at(
    connection: sa.Connection, sequences: sa.Select[tuple[int]], page_bytes: int
) -> list[OutboxEvent]:
    """The events at the sequences of a query, in order, as many as make a page.

    Each landing that one tells of must be there.
    """
    chosen = sequences.subquery("chosen")
    text = sa.func.coalesce(events.c.data, snapshots.c.body)
    # In Postgres without reading it: bodies lie aside.
    size = (sa.func.octet_length if connection.dialect.name == "postgresql" else sa.func.length)(
        text
    )
    sized = (
        sa.select(
            *events.c,
            *(snapshots.c[name].label(f"of_{name}") for name in _OF_SNAPSHOT),
            (sa.func.sum(size).over(order_by=events.c.sequence) - size).label("before"),
        )
        .join(chosen, chosen.c.sequence == events.c.sequence)
        .outerjoin(
            snapshots,
            sa.and_(snapshots.c.position == events.c.position, events.c.event_id.is_(None)),
        )
        .subquery("sized")
    )
    rows = connection.execute(
        sa.select(sized).where(sized.c.before < page_bytes).order_by(sized.c.sequence)
    ).all()
    return [_event(row) for row in rows]


def _event(row: sa.Row[Any]) -> OutboxEvent:
    if row.event_id is None:
        return landing_event(
            row.sequence, row.of_world_id, row.of_version, row.of_received_at, row.of_digest,
            row.of_body,
        )  # fmt: skip
    return OutboxEvent(
        sequence=row.sequence,
        type=row.type,
        key=row.key,
        id=row.event_id,
        subject=row.subject,
        occurred_at=row.occurred_at,
        correlation_id=row.correlation_id,
        data=row.data,
    )


@lru_cache
def _move(dialect: str) -> sa.Insert:
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(event_cursors)
    return insert.on_conflict_do_update(
        index_elements=["reader"],
        set_={"sequence": insert.excluded.sequence, "moved_at": insert.excluded.moved_at},
        where=insert.excluded.sequence > event_cursors.c.sequence,
    )


def _is_alive(connection: sa.Connection) -> None:
    with named_failures():  # it is asked outside of the block that reads
        connection.execute(sa.select(1))
