"""Alerts on record: what is open or was, who has seen it, what is silenced, and who watches.

One process writes alerts at a time and each of its steps takes a turn, as the exit engine's do.
Who acknowledges or silences is somebody else, at any time: a step leaves that alone, unless it says
that it changes it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.errors import RiskHubError
from riskhub.store.alert_tables import alert_silences, alert_watch, alerts
from riskhub.store.engine import one_state, reading, writing

Row = dict[str, Any]
AlertKey = tuple[datetime, str]

WATCHER = "alerts"
"""The name under which whoever watches is alone: see `EventStore.reading_alone`."""

_ONE = 1
_ACK = ("acknowledged_by", "acknowledged_at")


class WatchOvertaken(RiskHubError):
    """Another process has written alerts since this one looked. Nothing was written."""


@dataclass(frozen=True, slots=True)
class AlertMemory:
    """What whoever watches goes on from: the turn, and the rows that are not over."""

    turn: int
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Marks:
    """What people have said: by id of an alert who has seen it and when; silences not over."""

    acknowledged: dict[str, tuple[str, datetime]]
    silences: list[Row]


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Rows of `alerts`, what opened last first, and where the next page starts (None: the end)."""

    rows: list[Row]
    next_key: AlertKey | None


class AlertStore:
    """The alerts of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    # -- whoever watches --------------------------------------------------------------------------

    def alert_memory(self) -> AlertMemory:
        """What the last one to watch knew."""
        with one_state(self.engine) as connection:
            turn = connection.execute(sa.select(alert_watch.c.turn)).scalar() or 0
            query = sa.select(alerts).where(~alerts.c.over)
            return AlertMemory(turn, _rows(connection, query))

    def alert_marks(self, now: datetime) -> Marks:
        """What people have said of what is not over."""
        seen = sa.select(alerts.c.id, alerts.c.acknowledged_by, alerts.c.acknowledged_at).where(
            ~alerts.c.over, alerts.c.acknowledged_by.is_not(None)
        )
        with one_state(self.engine) as connection:
            acknowledged = {each: (by, at) for each, by, at in connection.execute(seen)}
            return Marks(acknowledged, _rows(connection, _alive(now)))

    def write_alerts(
        self,
        rows: Sequence[Row],
        *,
        acknowledgements: Collection[str],
        turn: int,
        writer: str,
        receivers: dict[str, Any],
        now: datetime,
    ) -> int:
        """Write rows of `alerts` that are new or changed; gives the turn that it was.

        Args:
            acknowledgements: the ids of those whose acknowledgement is written, too.
            turn: of the memory or step that this one goes on from.
            receivers: what is wrong with them, by name.

        Raises:
            WatchOvertaken: another process has written since.
        """
        taken = {"writer": writer, "at": now, "receivers": receivers, "turn": turn + 1}
        with writing(self.engine) as connection:
            _take_turn(connection, turn, taken)
            # What ends before what begins: of one key, one is open.
            ordered = sorted(rows, key=lambda row: row["resolved_at"] is None)
            _upsert(connection, [each for each in ordered if each["id"] in acknowledgements], ())
            _upsert(
                connection, [each for each in ordered if each["id"] not in acknowledgements], _ACK
            )
        return turn + 1

    def forget_alerts(self, before: datetime) -> int:
        """Forget what was resolved before an instant, and silences that ended; how many alerts."""
        with writing(self.engine) as connection:
            connection.execute(sa.delete(alert_silences).where(alert_silences.c.until < before))
            old = sa.delete(alerts).where(alerts.c.resolved_at < before)
            return connection.execute(old).rowcount

    # -- for everybody ----------------------------------------------------------------------------

    def alert_watch(self) -> Row | None:
        """Who looked last, when, and what is wrong with its receivers; None: nobody ever has."""
        with reading(self.engine) as connection:
            row = connection.execute(sa.select(alert_watch)).first()
            return dict(row._mapping) if row else None

    def alerts(
        self,
        *,
        is_open: bool | None = None,
        limit: int,
        after: AlertKey | None = None,
    ) -> AlertPage:
        """A page of alerts.

        Args:
            is_open: only those that are, or only those that are not.
            after: the `next_key` of the page before.
        """
        query = sa.select(alerts).order_by(alerts.c.opened_at.desc(), alerts.c.id.desc())
        if is_open is not None:
            resolved = alerts.c.resolved_at
            query = query.where(resolved.is_(None) if is_open else resolved.is_not(None))
        if after is not None:
            query = query.where(
                sa.or_(
                    alerts.c.opened_at < after[0],
                    sa.and_(alerts.c.opened_at == after[0], alerts.c.id < after[1]),
                )
            )
        with reading(self.engine) as connection:
            rows = _rows(connection, query.limit(limit + 1))
        if len(rows) <= limit:
            return AlertPage(rows, None)
        return AlertPage(rows[:limit], (rows[limit - 1]["opened_at"], rows[limit - 1]["id"]))

    def acknowledge_alert(self, key: str, *, by: str, now: datetime) -> Row | None:
        """Note who has seen the open alert of a key; who was first stays. None: there is none."""
        is_it = sa.and_(alerts.c.key == key, alerts.c.resolved_at.is_(None))
        first = sa.update(alerts).where(is_it, alerts.c.acknowledged_at.is_(None))
        with writing(self.engine) as connection:
            connection.execute(first.values(acknowledged_by=by, acknowledged_at=now))
            rows = _rows(connection, sa.select(alerts).where(is_it))
            return rows[0] if rows else None

    def add_silence(
        self, pattern: str, *, since: datetime, until: datetime, by: str, reason: str
    ) -> int:
        """Silence alerts with keys of a pattern; gives the silence's id."""
        row = {
            "pattern": pattern, "since": since, "until": until, "created_by": by, "reason": reason
        }  # fmt: skip
        with writing(self.engine) as connection:
            added = sa.insert(alert_silences).values(row).returning(alert_silences.c.id)
            silence_id: int = connection.execute(added).scalar_one()
            return silence_id

    def silences(self, now: datetime) -> list[Row]:
        """The silences that are not over, what ends first first."""
        with reading(self.engine) as connection:
            return _rows(connection, _alive(now))

    def end_silence(self, silence_id: int, now: datetime) -> bool:
        """End a silence now; whether there was one to end."""
        alive = sa.update(alert_silences).where(
            alert_silences.c.id == silence_id, alert_silences.c.until > now
        )
        with writing(self.engine) as connection:
            return connection.execute(alive.values(until=now)).rowcount > 0


def _alive(now: datetime) -> sa.Select[Any]:
    return sa.select(alert_silences).where(alert_silences.c.until > now).order_by("until", "id")


def _take_turn(connection: sa.Connection, turn: int, taken: Row) -> None:
    if turn == 0:
        insert = _insert(connection, alert_watch).on_conflict_do_nothing()
        done = connection.execute(insert.returning(alert_watch.c.turn), {"id": _ONE, **taken})
    else:
        after_mine = sa.update(alert_watch).where(alert_watch.c.turn == turn).values(taken)
        done = connection.execute(after_mine.returning(alert_watch.c.turn))
    if done.scalar() is None:
        raise WatchOvertaken("another process has written alerts meanwhile")


def _upsert(connection: sa.Connection, rows: Sequence[Row], keep: Collection[str]) -> None:
    if not rows:
        return
    insert = _insert(connection, alerts)
    changed = {
        column.name: insert.excluded[column.name]
        for column in alerts.c
        if column.name not in ("id", *keep)
    }
    statement = insert.on_conflict_do_update(index_elements=["id"], set_=changed)
    connection.execute(statement, list(rows))


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(query)]
