"""What the exit engine remembers and has told: its states, episodes, signals, and who writes them.

A step of the engine is one transaction: states, episodes, signals, their events and the place in
the outbox up to which it has read. So what an event leads to happens once, whatever dies when.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.controlbus.events import NewEvent
from riskhub.errors import RiskHubError
from riskhub.store.engine import one_state, reading, writing
from riskhub.store.events import append_events, move_cursor
from riskhub.store.exit_tables import exit_engine, exit_episodes, exit_signals, exit_states

Row = dict[str, Any]
EpisodeKey = tuple[datetime, str]

READER = "exit-engine"
"""The name under which the engine reads the outbox."""

_CHUNK = 500
_ONE = 1
_OF_CONSUMERS = ("acknowledged_at", "acknowledged_by")


class EngineOvertaken(RiskHubError):
    """Another exit engine has written since this one looked. Nothing of this step was written."""


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """All that the engine goes on from.

    Attributes:
        turn: of the last step; the next one names it.
        states: rows of `exit_states`.
        open_episodes: the rows of `exit_episodes` that they name.
    """

    turn: int
    states: list[Row]
    open_episodes: list[Row]


@dataclass(frozen=True, slots=True)
class EngineStep:
    """What a step writes.

    Attributes:
        states: rows of `exit_states` that changed.
        episodes: rows of `exit_episodes` that are new or changed.
        signals: rows of `exit_signals`, in their order; `events` the same for the outbox.
        cursor: up to which event the engine is done.
    """

    states: Sequence[Row]
    episodes: Sequence[Row]
    signals: Sequence[Row]
    events: Sequence[NewEvent]
    cursor: int


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """Which episodes are asked for; None means any. `since`: open at or after this instant."""

    world_id: str | None = None
    stage: str | None = None
    rule: str | None = None
    is_open: bool | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class EpisodePage:
    """Rows of `exit_episodes`, and where the next page starts (None at the end)."""

    rows: list[Row]
    next_key: EpisodeKey | None


ALL_EPISODES = EpisodeFilter()


class ExitStore:
    """The exit engine's tables in one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    # -- the engine -------------------------------------------------------------------------------

    def exit_memory(self) -> EngineMemory:
        """What the engine remembers."""
        named = sa.select(exit_states.c.episode_id).where(exit_states.c.episode_id.is_not(None))
        opened = sa.select(exit_episodes).where(exit_episodes.c.id.in_(named))
        with one_state(self.engine) as connection:
            return EngineMemory(
                connection.execute(sa.select(exit_engine.c.turn)).scalar() or 0,
                _rows(connection, sa.select(exit_states)),
                _rows(connection, opened),
            )

    def write_exit_step(
        self, step: EngineStep, *, turn: int, writer: str, rules_digest: str, now: datetime
    ) -> int:
        """Write a step of the engine, all of it or nothing; gives the turn that it was.

        Args:
            turn: of the memory or step that this one goes on from.
            writer: who it is, for people to read.

        Raises:
            EngineOvertaken: another engine has written since.
        """
        taken = {"writer": writer, "at": now, "rules_digest": rules_digest, "turn": turn + 1}
        with writing(self.engine) as connection:
            _take_turn(connection, turn, taken)
            _upsert(connection, exit_states, step.states)
            _upsert(connection, exit_episodes, step.episodes, keep=_OF_CONSUMERS)
            if step.signals:
                connection.execute(sa.insert(exit_signals), list(step.signals))
            move_cursor(connection, READER, step.cursor, now)
            append_events(connection, step.events)  # last: it takes the landing lock
        return turn + 1

    def exit_engine(self) -> Row | None:
        """Who wrote last, when and by which rules; None when nobody ever has."""
        with reading(self.engine) as connection:
            row = connection.execute(sa.select(exit_engine)).first()
            return dict(row._mapping) if row else None

    # -- the stream -------------------------------------------------------------------------------

    def unstreamed_signals(self, *, limit: int) -> list[Row]:
        """The oldest signals that are not on the stream yet, in their order."""
        waiting = sa.select(exit_signals).where(exit_signals.c.streamed_at.is_(None))
        with reading(self.engine) as connection:
            return _rows(connection, waiting.order_by(exit_signals.c.id).limit(limit))

    def mark_streamed(self, ids: Collection[int], now: datetime) -> None:
        """Note that signals are on the stream, by their `id`."""
        if ids:
            with writing(self.engine) as connection:
                on_it = sa.update(exit_signals).where(exit_signals.c.id.in_(ids))
                connection.execute(on_it.values(streamed_at=now))

    # -- for everybody ----------------------------------------------------------------------------

    def exit_episodes(
        self,
        which: EpisodeFilter = ALL_EPISODES,
        *,
        limit: int,
        after: EpisodeKey | None = None,
    ) -> EpisodePage:
        """A page of episodes, what opened last first, each with its `told`: the signals of it.

        Args:
            after: the `next_key` of the page before.
        """
        table = exit_episodes
        query = sa.select(table).order_by(table.c.opened_at.desc(), table.c.id.desc())
        for name in ("world_id", "stage", "rule"):
            if (value := getattr(which, name)) is not None:
                query = query.where(table.c[name] == value)
        if which.is_open is not None:
            is_open = table.c.closed_at.is_(None)
            query = query.where(is_open if which.is_open else ~is_open)
        if which.since is not None:
            query = query.where(
                sa.or_(table.c.closed_at.is_(None), table.c.closed_at >= which.since)
            )
        if after is not None:
            query = query.where(
                sa.or_(
                    table.c.opened_at < after[0],
                    sa.and_(table.c.opened_at == after[0], table.c.id < after[1]),
                )
            )
        with one_state(self.engine) as connection:
            rows = _with_signals(connection, _rows(connection, query.limit(limit + 1)))
        page = rows[:limit]
        is_last = len(rows) <= limit
        return EpisodePage(page, None if is_last else (page[-1]["opened_at"], page[-1]["id"]))

    def exit_episode(self, episode_id: str) -> Row | None:
        """One episode, as of `exit_episodes`; None when there is no such."""
        with one_state(self.engine) as connection:
            return _episode(connection, episode_id)

    def acknowledge(self, episode_id: str, *, by: str, now: datetime) -> Row | None:
        """Note who has seen an episode; who was first stays. Gives it, or None: no such episode."""
        first = sa.update(exit_episodes).where(
            exit_episodes.c.id == episode_id, exit_episodes.c.acknowledged_at.is_(None)
        )
        with writing(self.engine) as connection:
            connection.execute(first.values(acknowledged_at=now, acknowledged_by=by))
            return _episode(connection, episode_id)


def _take_turn(connection: sa.Connection, turn: int, taken: Row) -> None:
    if turn == 0:
        postgres = connection.dialect.name == "postgresql"
        insert = (postgresql if postgres else sqlite).insert(exit_engine).on_conflict_do_nothing()
        done = connection.execute(insert.returning(exit_engine.c.turn), {"id": _ONE, **taken})
    else:
        after_mine = sa.update(exit_engine).where(exit_engine.c.turn == turn).values(taken)
        done = connection.execute(after_mine.returning(exit_engine.c.turn))
    if done.scalar() is None:
        raise EngineOvertaken("another exit engine has written meanwhile")


def _upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Row], keep: Collection[str] = ()
) -> None:
    if not rows:
        return
    postgres = connection.dialect.name == "postgresql"
    insert = (postgresql if postgres else sqlite).insert(table)
    key = [column.name for column in table.primary_key.columns]
    changed = {
        column.name: insert.excluded[column.name]
        for column in table.c
        if column.name not in (*key, *keep)
    }
    statement = insert.on_conflict_do_update(index_elements=key, set_=changed)
    connection.execute(statement, list(rows))


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(query)]


def _episode(connection: sa.Connection, episode_id: str) -> Row | None:
    query = sa.select(exit_episodes).where(exit_episodes.c.id == episode_id)
    rows = _with_signals(connection, _rows(connection, query))
    return rows[0] if rows else None


def _with_signals(connection: sa.Connection, episodes: list[Row]) -> list[Row]:
    """Episodes, each with `history`: its signals, oldest first."""
    names = ("signal_id", "episode_id", "signal", "why", "at", "streamed_at")
    history: dict[str, list[Row]] = {row["id"]: [] for row in episodes}
    for ids in _chunks(sorted(history)):
        query = sa.select(*(exit_signals.c[name] for name in names))
        of_these = query.where(exit_signals.c.episode_id.in_(ids)).order_by(exit_signals.c.id)
        for row in _rows(connection, of_these):
            history[row.pop("episode_id")].append(row)
    return [row | {"history": history[row["id"]]} for row in episodes]


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
