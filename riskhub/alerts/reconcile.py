"""From what is wrong now to what is to be told: a pure function of alerts, conditions and the time.

Level-triggered: it is given everything that is wrong, each time, and remembers only what became of
it. A condition that has held for a while is an alert; an alert whose condition has been gone for a
while is resolved; so one that comes and goes opens at most once in both times together. A condition
that another one explains waits for it to end. Each receiver has marks of its own of what it was
told, and the marks are made by whoever delivered, after success (`told`): what was not delivered is
due again, also when the alert is over by then.
"""

import fnmatch
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

WATCHDOG = "watchdog"
"""The key of the alert that always is: whoever does not hear of it knows that nobody watches."""


class Severity(StrEnum):
    """How urgent it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1 or 2."""
        return list(Severity).index(self)


class State(StrEnum):
    """Of an alert. Only what is open or was is on record."""

    PENDING = "pending"
    OPEN = "open"
    RESOLVED = "resolved"


class What(StrEnum):
    """What a receiver is told."""

    OPENED = "opened"
    WORSENED = "worsened"
    REPEATED = "repeated"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong now.

    Attributes:
        key: the same for as long as it is the same trouble.
        source: where it was seen; while a source is unknown, its alerts stay as they are.
        name: of the kind of trouble, as Prometheus names alerts.
        labels: what it is about.
        explained_by: keys of conditions that are the reason for this one, should they hold.
        at_once: it comes from what does not flap, and is an alert without waiting.
        acknowledged_by: who has seen it, where that is known from elsewhere.
    """

    key: str
    source: str
    name: str
    severity: Severity
    summary: str
    detail: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    runbook: str = ""
    explained_by: Sequence[str] = ()
    at_once: bool = False
    acknowledged_by: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """The last that a receiver was told of an alert, when, and how severe it was then."""

    at: datetime
    what: What
    severity: Severity


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition over time.

    Attributes:
        first_seen: when the condition began.
        held_since: from when on it counts: later, where another one explained it.
        gone_since: since when it is not seen any more, if it isn't.
        count: how often it has begun within this alert.
        told: by receiver.
        explained: another alert is the reason for it now, and says enough.
    """

    condition: Condition
    state: State
    first_seen: datetime
    held_since: datetime
    last_seen: datetime
    opened_at: datetime | None = None
    gone_since: datetime | None = None
    resolved_at: datetime | None = None
    count: int = 1
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    told: Mapping[str, Told] = field(default_factory=dict)
    explained: bool = False

    @property
    def key(self) -> str:
        """Of its condition."""
        return self.condition.key

    @property
    def severity(self) -> Severity:
        """The worst that it has been."""
        return self.condition.severity

    @property
    def id(self) -> str:
        """Of this one opening: the same however often it is told."""
        seen = f"{self.key}|{(self.opened_at or self.first_seen).isoformat()}"
        return hashlib.sha256(seen.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts with a key of this pattern are not told from `since` to `until`."""

    pattern: str
    since: datetime
    until: datetime

    def covers(self, key: str, now: datetime) -> bool:
        """Whether it is about this alert now. The watchdog can't be silenced."""
        alive = self.since <= now < self.until
        return alive and key != WATCHDOG and fnmatch.fnmatchcase(key, self.pattern)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long something must hold, and be gone."""

    open_after: timedelta
    resolve_after: timedelta


@dataclass(frozen=True, slots=True)
class Terms:
    """What a receiver wants.

    Attributes:
        name: under which it has its marks.
        repeat: so long after it was last told it is told again.
        refreshes: also of what is acknowledged or silenced: it forgets what it does not hear of.
        watchdog, others: which alerts it wants.
    """

    name: str
    repeat: timedelta
    refreshes: bool = False
    watchdog: bool = False
    others: bool = True

    def want(self, key: str) -> bool:
        """Whether it is told of this alert."""
        return self.watchdog if key == WATCHDOG else self.others


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a receiver is to be told. `before`: the severity it was told last, if any."""

    receiver: str
    what: What
    alert: Alert
    before: Severity | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What is, and what is to be told.

    Attributes:
        alerts: what is pending or open, and what is resolved and not yet told to everybody.
        notices: by alert, in the order in which the alerts began.
        over: what is resolved and told, for the record alone.
    """

    alerts: Sequence[Alert]
    notices: Sequence[Notice]
    over: Sequence[Alert]


def reconcile(
    known: Iterable[Alert],
    conditions: Iterable[Condition],
    now: datetime,
    *,
    policy: Policy,
    receivers: Sequence[Terms],
    silences: Sequence[Silence] = (),
    unknown: Collection[str] = (),
) -> Step:
    """What becomes of the alerts, given all that is wrong now.

    Args:
        known: `Step.alerts` of the step before, with what was told since; of one key at most one
            that is not resolved.
        conditions: all of them; of one key, the last counts.
        silences: that may be over, or not have begun.
        unknown: sources that could not be asked: nothing of them is gone.
    """
    holds = {condition.key: condition for condition in conditions}
    alerts = list(known)
    active = {alert.key: alert for alert in alerts if alert.state is not State.RESOLVED}
    open_before = {key for key, alert in active.items() if alert.state is State.OPEN}
    moved = [alert for alert in alerts if alert.state is State.RESOLVED]
    for alert in active.values():
        if (condition := holds.get(alert.key)) is not None:
            moved.append(_seen(alert, condition, now))
        elif alert.condition.source in unknown:
            moved.append(alert)
        elif alert.state is State.OPEN:
            moved.append(_gone(alert, now, policy))
    for key, condition in holds.items():
        if key not in active:
            moved.append(Alert(condition, State.PENDING, now, now, now))
    moved = [_judged(alert, holds, open_before, now, policy) for alert in moved]
    moved = [_hushed(alert, now, receivers, silences) for alert in moved]
    moved.sort(key=lambda alert: (alert.first_seen, alert.key))
    notices = [
        notice
        for alert in moved
        for terms in receivers
        if (notice := _due(alert, terms, now, silences)) is not None
    ]
    over = [alert for alert in moved if _is_over(alert, receivers)]
    return Step([alert for alert in moved if alert not in over], notices, over)


def told(alert: Alert, notice: Notice, now: datetime) -> Alert:
    """The alert, once a receiver has taken a notice of it.

    `alert` may have moved on since; the mark says what was told, and the rest is due again.
    """
    severity = notice.alert.severity
    return replace(alert, told={**alert.told, notice.receiver: Told(now, notice.what, severity)})


def acknowledged(alert: Alert, by: str, now: datetime) -> Alert:
    """The alert, seen by somebody; who was first stays."""
    if alert.acknowledged_by is not None:
        return alert
    return replace(alert, acknowledged_by=by, acknowledged_at=now)


def _seen(alert: Alert, condition: Condition, now: datetime) -> Alert:
    """It holds. What is open does not become less severe, or it would flap between the two."""
    worse = condition.severity.rank > alert.severity.rank
    if alert.state is State.OPEN and not worse:
        condition = replace(condition, severity=alert.severity)
    seen = replace(
        alert,
        condition=condition,
        last_seen=now,
        gone_since=None,
        count=alert.count + (alert.gone_since is not None),
    )
    if worse:  # whoever has seen to it, has seen to less
        seen = replace(seen, acknowledged_by=None, acknowledged_at=None)
    if condition.acknowledged_by is not None:
        seen = acknowledged(seen, condition.acknowledged_by, now)
    return seen


def _gone(alert: Alert, now: datetime, policy: Policy) -> Alert:
    gone = replace(alert, gone_since=alert.gone_since or now)
    assert gone.gone_since is not None  # noqa: S101 - for mypy
    if now - gone.gone_since < policy.resolve_after:
        return gone
    return replace(gone, state=State.RESOLVED, resolved_at=now)


def _judged(
    alert: Alert,
    holds: Mapping[str, Condition],
    open_before: Collection[str],
    now: datetime,
    policy: Policy,
) -> Alert:
    """Whether it is explained; and what was pending long enough, and is not, opens."""
    condition = holds.get(alert.key)
    if alert.state is State.RESOLVED or condition is None:
        return alert
    by_open = any(key in open_before for key in condition.explained_by)
    alert = replace(alert, explained=by_open)
    if alert.state is State.OPEN:
        return alert
    if by_open:
        # When the reason is gone, it has as long as any to go, too.
        return replace(alert, held_since=now)
    waits = any(key in holds for key in condition.explained_by)
    if waits or not (condition.at_once or now - alert.held_since >= policy.open_after):
        return alert
    opened = replace(alert, state=State.OPEN, opened_at=now)
    by = condition.acknowledged_by
    return opened if by is None else acknowledged(opened, by, now)


def _hushed(
    alert: Alert, now: datetime, receivers: Sequence[Terms], silences: Sequence[Silence]
) -> Alert:
    """What was never told, and ended while it was silenced, is never told."""
    if alert.resolved_at != now or not any(each.covers(alert.key, now) for each in silences):
        return alert
    never = Told(now, What.RESOLVED, alert.severity)
    marks = {terms.name: never for terms in receivers if terms.name not in alert.told}
    return replace(alert, told={**alert.told, **marks})


def _due(alert: Alert, terms: Terms, now: datetime, silences: Sequence[Silence]) -> Notice | None:
    """What a receiver is to be told of an alert now, if anything."""
    if alert.state is State.PENDING or not terms.want(alert.key):
        return None
    silenced = any(silence.covers(alert.key, now) for silence in silences)
    last = alert.told.get(terms.name)
    what: What | None = None
    if last is None:
        # Also when it is over by now: that it was is not lost with a receiver that was away.
        what = None if silenced else What.OPENED
    elif last.what is What.RESOLVED:
        what = None
    elif alert.state is State.RESOLVED:
        what = What.RESOLVED
    elif alert.severity.rank > last.severity.rank and not silenced:
        what = What.WORSENED
    elif now - last.at >= terms.repeat:
        quiet = silenced or alert.explained or alert.acknowledged_by is not None
        what = What.REPEATED if terms.refreshes or not quiet else None
    if what is None:
        return None
    return Notice(terms.name, what, alert, None if last is None else last.severity)


def _is_over(alert: Alert, receivers: Sequence[Terms]) -> bool:
    """Whether it is resolved, and everybody who wants to know does."""
    return alert.state is State.RESOLVED and all(
        (mark := alert.told.get(terms.name)) is not None and mark.what is What.RESOLVED
        for terms in receivers
        if terms.want(alert.key)
    )
