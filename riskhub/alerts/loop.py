"""The loop: look, decide, write, tell, and note what was taken. One process at a time.

An alert is on record before anybody hears of it, so its id outlives the process; and it is marked
as told after the receiver has taken it, so a crash in between tells it twice and never not at all.
While the database is away, whoever watched goes on from memory, and writes what it knows when it is
back: that it is away is the first thing that somebody should hear of.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from riskhub.alerts.conditions import conditions, unknown_sources
from riskhub.alerts.deliver import Deliverer
from riskhub.alerts.facts import Facts
from riskhub.alerts.reconcile import (
    Alert,
    Notice,
    Policy,
    Silence,
    State,
    acknowledged,
    reconcile,
    told,
)
from riskhub.alerts.records import Row, alert_of, alert_row, silence_of
from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.governor.loop import Tell
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.alerts import WATCHER

STAND_BY_SEC = 1.0
"""How soon who does not watch looks again whether it should."""
LAST_SEEN_SEC = 60.0
"""That an alert is still there is written so often, if nothing else changes."""

_FORGET_EVERY = timedelta(hours=1)

_AWAY = (StoreUnavailable, StoreNotMigrated)

_logger = logging.getLogger(__name__)


class Watch:
    """What one process does while it is the one that watches. For one thread."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        gather: Callable[[], Facts],
        deliverer: Deliverer,
        *,
        writer: str,
        clock: Callable[[], datetime],
        tell: Tell,
    ) -> None:
        """Look at nothing yet.

        Args:
            gather: everything that is known now; see `riskhub.alerts.sources`.
            writer: who this is, for people to read.
            clock: UTC.
        """
        self._store = store
        self._alert_settings = settings.alerts
        self._governor_settings = settings.governor
        self._gather = gather
        self._deliverer = deliverer
        self._writer = writer
        self._clock = clock
        self._tell = tell
        self._policy = Policy(
            timedelta(seconds=settings.alerts.open_after_sec),
            timedelta(seconds=settings.alerts.resolve_after_sec),
        )
        self._turn = 0
        self._alerts: Sequence[Alert] = ()
        self._silences: Sequence[Silence] = ()
        self._written: dict[str, Row] = {}
        self._forgot_at: datetime | None = None
        self._is_away = False
        self._on_duty = True

    @property
    def is_on_duty(self) -> bool:
        """Whether nobody else is known to watch: then this one does, with or without a database."""
        return self._on_duty

    def take_over(self) -> None:
        """Go on from what is stored, and from what only this process knows.

        Raises:
            StoreUnavailable, StoreNotMigrated: nothing has changed.
        """
        memory = self._store.alert_memory()
        self._on_duty = True
        if memory.turn == self._turn and self._turn:
            return  # nobody has written meanwhile: what is remembered is newer
        stored = [alert_of(row) for row in memory.rows]
        open_keys = {alert.key for alert in stored if alert.state is State.OPEN}
        ours = [
            alert
            for alert in self._news()
            if alert.state is State.RESOLVED or alert.key not in open_keys
        ]
        self._turn = memory.turn
        self._alerts = [*stored, *ours]
        self._written = {row["id"]: row for row in memory.rows}
        self._tell("watches", open=len(open_keys), receivers=len(self._deliverer.terms))

    def stand_by(self) -> None:
        """Another process watches. It does not know of what was never on record: that ends here."""
        if self._on_duty and (news := [alert for alert in self._news() if alert.told]):
            now = self._clock()
            at_once = Policy(timedelta(0), timedelta(0))
            step = reconcile(news, (), now, policy=at_once, receivers=self._deliverer.terms)
            self._deliver(step.notices, now)
        self._on_duty = False
        self._alerts, self._written, self._turn = (), {}, 0

    def beat(self) -> None:
        """Look, decide, write and tell.

        Raises:
            WatchOvertaken: another process watches; nothing was written or told.
        """
        now = self._clock()
        facts = self._gather()
        self._read_marks(now)
        step = reconcile(
            self._alerts,
            conditions(facts, self._alert_settings, self._governor_settings),
            now,
            policy=self._policy,
            receivers=self._deliverer.terms,
            silences=self._silences,
            unknown=unknown_sources(facts),
        )
        self._alerts = step.alerts
        self._write(step.over, now)
        if taken := self._deliver(step.notices, now):
            by_id = {alert.id: alert for alert in self._alerts}
            for notice in taken:
                alert_id = notice.alert.id
                by_id[alert_id] = told(by_id[alert_id], notice, now)
            self._alerts = list(by_id.values())
            self._write((), now)
        self._forget(now)

    def _deliver(self, notices: Sequence[Notice], now: datetime) -> list[Notice]:
        return list(self._deliverer.deliver(notices, now))

    def _news(self) -> list[Alert]:
        """What is not on record."""
        return [alert for alert in self._alerts if alert.id not in self._written]

    def _read_marks(self, now: datetime) -> None:
        """What people have said since the last look; without the database, what they had said."""
        try:
            marks = self._store.alert_marks(now)
        except _AWAY:
            return
        self._silences = [silence_of(row) for row in marks.silences]
        self._alerts = [
            acknowledged(alert, *marks.acknowledged[alert.id])
            if alert.id in marks.acknowledged
            else alert
            for alert in self._alerts
        ]

    def _write(self, over: Sequence[Alert], now: datetime) -> None:
        """Put on record what has changed; without the database, remember it."""
        rows = [alert_row(each, over=False) for each in self._alerts if each.opened_at is not None]
        changed = [row for row in rows if self._differs(row)]
        changed += [alert_row(alert, over=True) for alert in over]
        try:
            self._turn = self._store.write_alerts(
                changed,
                acknowledgements=[row["id"] for row in changed if self._is_seen_anew(row)],
                turn=self._turn,
                writer=self._writer,
                receivers={name: dict(bad) for name, bad in self._deliverer.failing().items()},
                now=now,
            )
        except _AWAY as error:
            self._alerts = [*self._alerts, *over]  # they are over again at the next look
            if not self._is_away:
                self._is_away = True
                self._tell("goes on from memory", why=error)
            return
        self._is_away = False
        new = {row["id"]: row for row in changed}
        self._written = {
            row["id"]: new.get(row["id"], self._written.get(row["id"], row)) for row in rows
        }

    def _differs(self, row: Row) -> bool:
        """Whether it says something else than what is on record, or it is time to say it again."""
        written = self._written.get(row["id"])
        if written is None:
            return True
        since = (row["last_seen"] - written["last_seen"]).total_seconds()
        return since >= LAST_SEEN_SEC or {**row, "last_seen": written["last_seen"]} != written

    def _is_seen_anew(self, row: Row) -> bool:
        written: Row = self._written.get(row["id"], {"acknowledged_by": None})
        return bool(row["acknowledged_by"] != written["acknowledged_by"])

    def _forget(self, now: datetime) -> None:
        if self._forgot_at is not None and now - self._forgot_at < _FORGET_EVERY:
            return
        try:
            self._store.forget_alerts(now - timedelta(days=self._alert_settings.keep_days))
        except _AWAY:
            return
        self._forgot_at = now


class Alone(Protocol):
    """Gives the right to be the only one who watches, or None: `Store.reading_alone`."""

    def __call__(self, reader: str) -> AbstractContextManager[Callable[[], None] | None]:
        """Ask for it."""


def run(
    watch: Watch,
    alone: Alone,
    *,
    interval_sec: float,
    wait: Callable[[float], bool],
    tell: Tell,
) -> None:
    """Watch while no other process does, until told to stop.

    A database that is away ends nothing: who was on duty goes on from memory, and so does who began
    without one. All else that may fail is told and tried again.

    Args:
        interval_sec: > 0, from the end of a look to the next.
        wait: waits so many seconds or until told to stop; gives whether it was told.
    """
    told_of = ""
    while True:
        pause = STAND_BY_SEC
        try:
            try:
                with alone(WATCHER) as still_alone:
                    if still_alone is None:
                        watch.stand_by()
                        if told_of != "stands by":
                            told_of = "stands by"
                            tell(told_of)
                    else:
                        watch.take_over()
                        while True:
                            watch.beat()
                            told_of = ""
                            if wait(interval_sec):
                                return
                            still_alone()
            except _AWAY:
                if watch.is_on_duty:
                    pause = interval_sec
                    watch.beat()
        except Exception as error:
            name = type(error).__name__
            if told_of != name:
                told_of = name
                tell("failed", error=name, why=error, again_in_sec=STAND_BY_SEC)
                if not isinstance(error, RiskHubError):
                    _logger.exception("a look at what is wrong failed")
        if wait(pause):
            return
