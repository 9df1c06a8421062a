"""What tests of alerts are made of: conditions to vary, receivers that fail, time that is moved."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from builders import NOW

from riskhub.alerts.deliver import DeliveryFailed
from riskhub.alerts.facts import Facts, Stored
from riskhub.alerts.reconcile import (
    Alert,
    Condition,
    Notice,
    Policy,
    Severity,
    Silence,
    Step,
    Terms,
    reconcile,
    told,
)

OPEN_AFTER, RESOLVE_AFTER, REPEAT = (timedelta(seconds=each) for each in (30, 60, 3600))
POLICY = Policy(OPEN_AFTER, RESOLVE_AFTER)
DESK = Terms("desk", REPEAT)


def condition(key: str = "late:w/live", **fields: Any) -> Condition:
    given = {
        "source": "worlds",
        "name": "RiskHubSnapshotStale",
        "severity": Severity.WARNING,
        "summary": f"{key} is wrong",
    }
    return Condition(key, **given | fields)


class Timeline:
    """Alerts over time, as a loop has them; receivers take everything unless told otherwise."""

    def __init__(self, *receivers: Terms) -> None:
        self.now = NOW
        self.receivers = receivers or (DESK,)
        self.alerts: Sequence[Alert] = ()
        self.silences: list[Silence] = []
        self.told: list[tuple[str, str, str]] = []  # receiver, what, key
        self.over: list[Alert] = []
        self.away: set[str] = set()

    def at(
        self, seconds: float, *conditions: Condition, unknown: Sequence[str] = ()
    ) -> list[tuple[str, str]]:
        """Look so many seconds after the start; gives what was told: what, and the key."""
        self.now = NOW + timedelta(seconds=seconds)
        step = self.step(*conditions, unknown=unknown)
        alerts = list(step.alerts)
        heard = []
        for notice in step.notices:
            if notice.receiver in self.away:
                continue
            self.told.append((notice.receiver, notice.what, notice.alert.key))
            heard.append((str(notice.what), notice.alert.key))
            place = next(n for n, alert in enumerate(alerts) if alert.id == notice.alert.id)
            alerts[place] = told(alerts[place], notice, self.now)
        self.alerts = alerts
        self.over += step.over
        return heard

    def step(self, *conditions: Condition, unknown: Sequence[str] = ()) -> Step:
        return reconcile(
            self.alerts,
            conditions,
            self.now,
            policy=POLICY,
            receivers=self.receivers,
            silences=self.silences,
            unknown=unknown,
        )


class Ear:
    """A receiver that notes what it is told, or fails."""

    def __init__(self, name: str = "desk", repeat: timedelta = REPEAT, **terms: Any) -> None:
        self.terms = Terms(name, repeat, **terms)
        self.heard: list[tuple[str, str]] = []
        self.fails = False
        self.tries = 0

    def send(self, notices: Sequence[Notice], now: datetime) -> None:
        self.tries += 1
        if self.fails:
            raise DeliveryFailed("it is away")
        self.heard += [(str(notice.what), notice.alert.key) for notice in notices]


def stored(**fields: Any) -> Stored:
    """A database in which all is well."""
    given: dict[str, Any] = {
        "worlds": [], "rejected": [], "models": [], "cycle": None, "relay": None, "readers": [],
        "dead_letters": 0, "episodes": [], "exit_engine_at": None,
    }  # fmt: skip
    return Stored(**given | fields)


def facts(**fields: Any) -> Facts:
    """A hub in which all is well, of which little is known."""
    given: dict[str, Any] = {
        "now": NOW, "stored": stored(), "stored_problem": None,
        "governor": None, "governor_problem": None,
        "kafka_group": None, "kafka_problem": None,
        "counted": None, "api_problem": None,
        "dagster": None, "dagster_problem": None,
    }  # fmt: skip
    return Facts(**given | fields)
