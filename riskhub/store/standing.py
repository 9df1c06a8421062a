"""How things stand in the database now, beside worlds and numbers: what alerts and metrics ask.

Each read is bounded by what is there now, never by history: it is asked every few seconds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from riskhub.store.alert_tables import alert_watch, alerts
from riskhub.store.engine import one_state
from riskhub.store.exit_tables import exit_engine, exit_episodes, exit_signals
from riskhub.store.tables import (
    budget_cycles,
    dead_letters,
    event_cursors,
    events,
    quarantine,
    snapshots,
    validated_snapshots,
    var_backtests,
    world_stages,
)

Row = dict[str, Any]
Counts = dict[tuple[str, ...], int]
"""How many, by what tells them apart."""

MOST = 500
_REJECTED_FOR = timedelta(days=7)
_MOST_READERS = 50


@dataclass(frozen=True, slots=True)
class OutboxReader:
    """A reader of the outbox.

    `behind`: how many sequences lie before it; `since`: when what its next event tells of happened.
    """

    reader: str
    sequence: int
    behind: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a page of metrics shows.

    Attributes:
        head: the newest sequence of the outbox.
        first_event_at: when what its oldest event tells of happened.
        readers: those that moved last first.
        dead_letters: by handler, those that nobody has sent again.
        quarantined: snapshots in the quarantine.
        episodes: open ones of the exit engine, by action and severity.
        exit_engine_at: when it last wrote.
        signals_waiting: of the exit engine, not on the Redis stream yet.
        alerts: open ones, by name and severity.
        notices_waiting: alerts that are resolved, and some receiver does not know.
        watch: the row of `alert_watch`.
    """

    head: int
    first_event_at: datetime | None
    readers: Sequence[OutboxReader]
    dead_letters: dict[str, int]
    quarantined: int
    episodes: Counts
    exit_engine_at: datetime | None
    signals_waiting: int
    alerts: Counts
    notices_waiting: int
    watch: Row | None


@dataclass(frozen=True, slots=True)
class Troubles:
    """What alerts are made from, as rows.

    Attributes:
        rejected: newest first, with `reasons` and the world's `newest_as_of`.
        zones: the newest backtest of each world, stage, method and level, if not green.
        cycle: the newest of `budget_cycles`; `had_budgets`: whether there ever were any.
        episodes: open ones of the exit engine.
    """

    head: int
    first_event_at: datetime | None
    readers: Sequence[OutboxReader]
    dead_letters: int
    rejected: list[Row]
    zones: list[Row]
    cycle: Row | None
    had_budgets: bool
    episodes: list[Row]
    exit_engine_at: datetime | None


class StandingStore:
    """How things stand in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def standing(self) -> Standing:
        """All that a page of metrics shows, of one state."""
        waiting = dead_letters.c.redriven_at.is_(None)
        is_open = exit_episodes.c.closed_at.is_(None)
        with one_state(self.engine) as connection:
            head, readers = _readers(connection)
            watch = connection.execute(sa.select(alert_watch)).first()
            return Standing(
                head,
                _next_event_at(connection, 0),
                readers,
                {
                    by[0]: n
                    for by, n in _counts(connection, waiting, dead_letters.c.handler).items()
                },
                _count(connection, quarantine, quarantine.c.until.is_(None)),
                _counts(connection, is_open, exit_episodes.c.action, exit_episodes.c.severity),
                connection.execute(sa.select(exit_engine.c.at)).scalar(),
                _count(connection, exit_signals, exit_signals.c.streamed_at.is_(None)),
                _counts(
                    connection, alerts.c.resolved_at.is_(None), alerts.c.name, alerts.c.severity
                ),
                _count(connection, alerts, alerts.c.resolved_at.is_not(None), ~alerts.c.over),
                dict(watch._mapping) if watch else None,
            )

    def troubles(
        self,
        *,
        now: datetime,
        rejected_since: datetime,
        zones: Collection[tuple[str, str]],
        timeless_stages: Collection[str],
    ) -> Troubles:
        """All that alerts are made from, of one state.

        Args:
            now: the moment.
            rejected_since: also of older versions, what was rejected since then.
            zones: methods and levels of backtests.
            timeless_stages: of these no backtests, and only what was rejected since then.
        """
        cycles = sa.select(budget_cycles).order_by(budget_cycles.c.computed_at.desc()).limit(1)
        some = sa.select(budget_cycles.c.computed_at).where(
            budget_cycles.c.no_budget_reason.is_(None), budget_cycles.c.symbols > 0
        )
        is_open = sa.select(exit_episodes).where(exit_episodes.c.closed_at.is_(None))
        with one_state(self.engine) as connection:
            head, readers = _readers(connection)
            cycle = connection.execute(cycles).first()
            return Troubles(
                head,
                _next_event_at(connection, 0),
                readers,
                _count(connection, dead_letters, dead_letters.c.redriven_at.is_(None)),
                _rejected(connection, now, rejected_since, timeless_stages),
                _zones(connection, zones, timeless_stages),
                dict(cycle._mapping) if cycle else None,
                connection.execute(some.limit(1)).first() is not None,
                _rows(connection, is_open.order_by(exit_episodes.c.opened_at.desc()).limit(MOST)),
                connection.execute(sa.select(exit_engine.c.at)).scalar(),
            )


def _readers(connection: sa.Connection) -> tuple[int, list[OutboxReader]]:
    head = connection.execute(sa.select(sa.func.max(events.c.sequence))).scalar() or 0
    query = sa.select(event_cursors).order_by(event_cursors.c.moved_at.desc()).limit(_MOST_READERS)
    found = []
    for row in connection.execute(query).all():
        since = _next_event_at(connection, row.sequence) if row.sequence < head else None
        behind = max(head - row.sequence, 0)
        found.append(OutboxReader(row.reader, row.sequence, behind, since))
    return head, found


def _next_event_at(connection: sa.Connection, sequence: int) -> datetime | None:
    """When what the first event behind a sequence tells of happened."""
    following = (
        sa.select(sa.func.coalesce(events.c.occurred_at, snapshots.c.received_at))
        .outerjoin(snapshots, snapshots.c.position == events.c.position)
        .where(events.c.sequence > sequence)
        .order_by(events.c.sequence)
        .limit(1)
    )
    at: datetime | None = connection.execute(following).scalar()
    return at


def _rejected(
    connection: sa.Connection, now: datetime, since: datetime, timeless: Collection[str]
) -> list[Row]:
    """What is in the quarantine and newer than all that is accepted, or got there of late."""
    newest = world_stages.c.newest_as_of
    is_newest = sa.or_(newest.is_(None), snapshots.c.as_of > newest)
    query = (
        sa.select(
            snapshots.c.world_id,
            snapshots.c.stage,
            snapshots.c.version,
            snapshots.c.as_of,
            newest,
            quarantine.c.since,
            validated_snapshots.c.reasons,
        )
        .join(snapshots, snapshots.c.position == quarantine.c.position)
        .join(
            world_stages,
            sa.and_(
                world_stages.c.world_id == snapshots.c.world_id,
                world_stages.c.stage == snapshots.c.stage,
            ),
        )
        .outerjoin(validated_snapshots, validated_snapshots.c.position == quarantine.c.position)
        .where(quarantine.c.until.is_(None), quarantine.c.since >= now - _REJECTED_FOR)
        .where(
            sa.or_(
                quarantine.c.since >= since,
                sa.and_(is_newest, snapshots.c.stage.not_in(sorted(timeless))),
            )
        )
        .order_by(quarantine.c.since.desc(), quarantine.c.position.desc())
        .limit(MOST)
    )
    return _rows(connection, query)


def _zones(
    connection: sa.Connection, kinds: Collection[tuple[str, str]], timeless: Collection[str]
) -> list[Row]:
    table, others = var_backtests, var_backtests.alias("others")
    names = ("world_id", "stage", "method", "level", "day", "zone", "observations", "exceedances")
    found: list[Row] = []
    for method, level in sorted(kinds):
        newest = (
            sa.select(sa.func.max(others.c.day))
            .where(others.c.world_id == world_stages.c.world_id)
            .where(others.c.stage == world_stages.c.stage)
            .where(others.c.method == method, others.c.level == level)
            .correlate(world_stages)
            .scalar_subquery()
        )
        query = (
            sa.select(*(table.c[name] for name in names))
            .join(
                world_stages,
                sa.and_(
                    world_stages.c.world_id == table.c.world_id,
                    world_stages.c.stage == table.c.stage,
                ),
            )
            .where(table.c.method == method, table.c.level == level, table.c.day == newest)
            .where(table.c.zone != "green", table.c.stage.not_in(sorted(timeless)))
        )
        found += _rows(connection, query)
    return found


def _count(connection: sa.Connection, table: sa.Table, *which: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(*which)
    return connection.execute(query).scalar_one()


def _counts(
    connection: sa.Connection, which: sa.ColumnElement[bool], *by: sa.Column[Any]
) -> Counts:
    query = sa.select(*by, sa.func.count()).where(which).group_by(*by)
    return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(query)]
