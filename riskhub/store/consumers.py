"""What consumers of events have on record: what they are done with, and what they gave up on."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.store.derived import Row
from riskhub.store.engine import reading, writing
from riskhub.store.tables import Instant, dead_letters, handled_events

_CHUNK = 500
_FORGOTTEN_AT_ONCE = 5_000


class ConsumerStore:
    """The records of consumers in one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def handled(self, handler: str, event_ids: Collection[str]) -> set[str]:
        """Those of these events that a handler is done with."""
        asked, found = list(event_ids), set[str]()
        with reading(self.engine) as connection:
            for start in range(0, len(asked), _CHUNK):
                query = sa.select(handled_events.c.event_id).where(
                    handled_events.c.handler == handler,
                    handled_events.c.event_id.in_(asked[start : start + _CHUNK]),
                )
                found.update(connection.execute(query).scalars())
        return found

    def note_handled(self, handler: str, event_ids: Collection[str], now: datetime) -> None:
        """Note that a handler is done with events; noting it again changes nothing."""
        if not event_ids:
            return
        with writing(self.engine) as connection:
            insert = _insert(connection, handled_events).on_conflict_do_nothing()
            noted = list(dict.fromkeys(event_ids))
            if connection.dialect.name == "postgresql":  # one statement for all of them
                each = sa.func.unnest(sa.literal(noted, postgresql.ARRAY(sa.Text)))
                rows = sa.select(sa.literal(handler), each, sa.literal(now, Instant))
                names = ["handler", "event_id", "handled_at"]
                connection.execute(insert.from_select(names, rows))
            else:
                connection.execute(
                    insert,
                    [
                        {"handler": handler, "event_id": event_id, "handled_at": now}
                        for event_id in noted
                    ],
                )

    def forget_handled(self, before: datetime) -> int:
        """Forget what was handled before an instant; how many. Should it come again, it is new.

        Some thousands a transaction, so that nobody who notes waits for long.
        """
        key = handled_events.primary_key.columns
        old = (
            sa.select(*key)
            .where(handled_events.c.handled_at < before)
            .order_by(handled_events.c.handled_at)
            .limit(_FORGOTTEN_AT_ONCE)
        )
        forgotten = 0
        while True:
            with writing(self.engine) as connection:
                gone = connection.execute(
                    sa.delete(handled_events).where(sa.tuple_(*key).in_(old))
                ).rowcount
            forgotten += gone
            if gone < _FORGOTTEN_AT_ONCE:
                return forgotten

    def add_dead_letters(self, letters: Sequence[Row]) -> None:
        """Add rows of `dead_letters`; what died before for the same handler stays as it is."""
        if letters:
            with writing(self.engine) as connection:
                insert = _insert(connection, dead_letters).on_conflict_do_nothing()
                connection.execute(insert, list(letters))

    def dead_letters(
        self, *, limit: int, before: int | None = None, redriven: bool | None = None
    ) -> list[Row]:
        """Dead letters, newest first.

        Args:
            before: only with an id below this one.
            redriven: only those that were sent again, or only those that were not.
        """
        query = sa.select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(dead_letters.c.id < before)
        if redriven is not None:
            sent = dead_letters.c.redriven_at
            query = query.where(sent.is_not(None) if redriven else sent.is_(None))
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def dead_letter(self, letter_id: int) -> Row | None:
        """One dead letter, if it is there."""
        query = sa.select(dead_letters).where(dead_letters.c.id == letter_id)
        with reading(self.engine) as connection:
            row = connection.execute(query).first()
            return dict(row._mapping) if row else None

    def note_redriven(self, letter_id: int, now: datetime) -> None:
        """Note that a dead letter was sent again."""
        with writing(self.engine) as connection:
            one = sa.update(dead_letters).where(dead_letters.c.id == letter_id)
            connection.execute(one.values(redriven_at=now))

    def remove_dead_letters(self, handler: str, event_ids: Collection[str]) -> int:
        """Remove a handler's dead letters of these events; how many there were."""
        asked, removed = list(event_ids), 0
        with writing(self.engine) as connection:
            for start in range(0, len(asked), _CHUNK):
                those = sa.delete(dead_letters).where(
                    dead_letters.c.handler == handler,
                    dead_letters.c.event_id.in_(asked[start : start + _CHUNK]),
                )
                removed += connection.execute(those).rowcount
        return removed

    def drop_dead_letter(self, letter_id: int) -> bool:
        """Remove one dead letter; whether it was there."""
        one = sa.delete(dead_letters).where(dead_letters.c.id == letter_id)
        with writing(self.engine) as connection:
            return connection.execute(one).rowcount > 0

    def count_dead_letters(self) -> int:
        """How many dead letters nobody has sent again."""
        waiting = sa.select(sa.func.count()).where(dead_letters.c.redriven_at.is_(None))
        with reading(self.engine) as connection:
            return connection.execute(waiting.select_from(dead_letters)).scalar_one()


def _insert(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    postgres = connection.dialect.name == "postgresql"
    return (postgresql.insert if postgres else sqlite.insert)(table)
