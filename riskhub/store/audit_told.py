"""What an audit reads of violations, exit signals, episodes, and of the events that tell of them.

As `riskhub.store.audit`: by keys, a page at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.exit_tables import exit_episodes, exit_signals, exit_states
from riskhub.store.tables import budget_violations, events

Row = Mapping[str, Any]

_PAGE = 1_000
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class AuditedEpisode:
    """An episode of the exit engine, and what is there of it.

    Attributes:
        row: of `exit_episodes`.
        signals: how many rows of `exit_signals` it has, and `last` the newest.
        is_remembered: whether a row of `exit_states` names it as the open one.
    """

    row: Row
    signals: int
    last: Row | None
    is_remembered: bool


class AuditToldStore:
    """What an audit reads of one database: rows that were told, without a landing."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def audited_violations(self, since: datetime | None) -> Iterator[list[Row]]:
        """Rows of `budget_violations` in the order of their ids, a page at a time."""
        return self._pages(budget_violations, since)

    def audited_signals(self, since: datetime | None) -> Iterator[list[Row]]:
        """Rows of `exit_signals` in the order of their ids, a page at a time."""
        return self._pages(exit_signals, since)

    def events_there(self, event_ids: Sequence[str]) -> set[str]:
        """Those of these events that the outbox has."""
        there: set[str] = set()
        with reading(self.engine) as connection:
            for asked in _chunks(event_ids):
                query = sa.select(events.c.event_id).where(events.c.event_id.in_(asked))
                there.update(connection.execute(query).scalars())
        return there

    def violations_at(self, instants: Sequence[datetime]) -> list[Row]:
        """The violations of these instants, of any symbol."""
        found: list[Row] = []
        with reading(self.engine) as connection:
            for asked in _chunks(instants):
                query = sa.select(budget_violations).where(budget_violations.c.at.in_(asked))
                found += (dict(row._mapping) for row in connection.execute(query))
        return found

    def signals_named(self, signal_ids: Sequence[str]) -> dict[str, Row]:
        """The rows of `exit_signals` with these `signal_id`, by it."""
        found: dict[str, Row] = {}
        with reading(self.engine) as connection:
            for asked in _chunks(signal_ids):
                query = sa.select(exit_signals).where(exit_signals.c.signal_id.in_(asked))
                found |= {row.signal_id: dict(row._mapping) for row in connection.execute(query)}
        return found

    def audited_episodes(self, since: datetime | None) -> Iterator[list[AuditedEpisode]]:
        """Every episode that is open, or closed at or after an instant; a page at a time."""
        table, after = exit_episodes, ""
        while True:
            page = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(_CHUNK)
            if since is not None:
                closed_at = table.c.closed_at
                page = page.where(sa.or_(closed_at.is_(None), closed_at >= since))
            with one_state(self.engine) as connection:
                rows = [dict(row._mapping) for row in connection.execute(page)]
                if not rows:
                    return
                found = _with_signals(connection, rows)
            yield found
            after = rows[-1]["id"]

    def episodes_unknown(self) -> list[str]:
        """Those that a row of `exit_states` names as the open one, and that are not there."""
        there = sa.exists().where(exit_episodes.c.id == exit_states.c.episode_id)
        named = exit_states.c.episode_id
        query = sa.select(named).where(named.is_not(None), ~there).order_by(named)
        with reading(self.engine) as connection:
            return list(connection.execute(query).scalars())

    def _pages(self, table: sa.Table, since: datetime | None) -> Iterator[list[Row]]:
        after = 0
        while True:
            page = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(_PAGE)
            if since is not None:
                page = page.where(table.c.at >= since)
            with reading(self.engine) as connection:
                rows: list[Row] = [dict(row._mapping) for row in connection.execute(page)]
            if not rows:
                return
            yield rows
            after = rows[-1]["id"]


def _with_signals(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[AuditedEpisode]:
    ids = [row["id"] for row in rows]
    of_these = exit_signals.c.episode_id.in_(ids)
    counted = connection.execute(
        sa.select(exit_signals.c.episode_id, sa.func.count(), sa.func.max(exit_signals.c.id))
        .where(of_these)
        .group_by(exit_signals.c.episode_id)
    )
    counts = {episode_id: (count, last) for episode_id, count, last in counted}
    newest = [last for _, last in counts.values()]
    query = sa.select(exit_signals).where(exit_signals.c.id.in_(newest))
    last_of = {row.episode_id: dict(row._mapping) for row in connection.execute(query)}
    named = sa.select(exit_states.c.episode_id).where(exit_states.c.episode_id.in_(ids))
    remembered = set(connection.execute(named).scalars())
    return [
        AuditedEpisode(
            row, counts.get(row["id"], (0, 0))[0], last_of.get(row["id"]), row["id"] in remembered
        )
        for row in rows
    ]


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
