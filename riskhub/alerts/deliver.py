"""Telling it: to Alertmanager, to a webhook, to the log, and to whoever notices silence.

A receiver takes notices and returns when it has them; all else is a failure, and the notices come
again. One that fails is left alone for a while that doubles, so that it costs the others no time.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from riskhub.alerts.reconcile import Alert, Notice, Severity, State, Terms, What
from riskhub.alerts.settings import AlertSettings
from riskhub.errors import RiskHubError
from riskhub.governor.loop import Tell

REFRESH_SEC = 30.0
"""Alertmanager hears of every open alert so often."""
HOLDS_SEC = 300.0
"""And takes it for resolved when it hears nothing for so long, as of Prometheus."""
FIRST_BACKOFF_SEC = 2.0
LONGEST_BACKOFF_SEC = 60.0

_AT_ONCE = 50
_MARKS = {
    What.OPENED: "🔴",
    What.WORSENED: "🔺",
    What.REPEATED: "🔁",
    What.RESOLVED: "✅",
}


class DeliveryFailed(RiskHubError):
    """A receiver did not take it; the text says why, without its URL."""


class Receiver(Protocol):
    """Somebody who is told."""

    @property
    def terms(self) -> Terms:
        """What it wants."""
        ...

    def send(self, notices: Sequence[Notice], now: datetime) -> None:
        """Tell it, and return when it has all of them. Raises `DeliveryFailed`."""
        ...


def receivers_of(settings: AlertSettings, client: httpx.Client, tell: Tell) -> list[Receiver]:
    """The receivers of the settings; the log is always one.

    Args:
        client: whose time-outs bound a delivery.
    """
    repeat = timedelta(seconds=settings.repeat_sec)
    found: list[Receiver] = [LogReceiver(tell, repeat)]
    found += [
        WebhookReceiver(webhook.name, webhook.url.get_secret_value(), client, repeat)
        for webhook in settings.webhooks
    ]
    found += [AlertmanagerReceiver(url, client) for url in settings.alertmanagers]
    if settings.watchdog_url is not None:
        every = timedelta(seconds=settings.watchdog_sec)
        url = settings.watchdog_url.get_secret_value()
        found.append(WatchdogReceiver(url, client, every))
    return found


class LogReceiver:
    """A line each."""

    def __init__(self, tell: Tell, repeat: timedelta) -> None:
        self._tell = tell
        self.terms = Terms("log", repeat)

    def send(self, notices: Sequence[Notice], now: datetime) -> None:  # noqa: ARG002
        """See `Receiver`."""
        for notice in notices:
            condition = notice.alert.condition
            self._tell(
                f"alert {notice.what}",
                alert=condition.key,
                severity=condition.severity,
                summary=condition.summary,
                detail=condition.detail,
            )


class WebhookReceiver:
    """JSON with a `text` for people, which Slack shows, and the alerts for programs."""

    def __init__(self, name: str, url: str, client: httpx.Client, repeat: timedelta) -> None:
        self._url = url
        self._client = client
        self.terms = Terms(name, repeat)

    def send(self, notices: Sequence[Notice], now: datetime) -> None:  # noqa: ARG002
        """See `Receiver`."""
        body = {"text": _text(notices), "alerts": [_shown(notice) for notice in notices]}
        _post(self._client, self._url, body)


class AlertmanagerReceiver:
    """Alertmanager's API v2, which repeats, groups, routes and silences by itself.

    It forgets what it does not hear of, so it hears of everything that is open, over and over.
    """

    def __init__(self, url: str, client: httpx.Client) -> None:
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._client = client
        name = f"alertmanager {urlsplit(url).netloc.rpartition('@')[2]}"
        repeat = timedelta(seconds=REFRESH_SEC)
        self.terms = Terms(name, repeat, refreshes=True, watchdog=True)

    def send(self, notices: Sequence[Notice], now: datetime) -> None:
        """See `Receiver`."""
        _post(self._client, self._url, [each for notice in notices for each in _am(notice, now)])


class WatchdogReceiver:
    """Asks a URL now and then; whoever is behind it says when nobody asked."""

    def __init__(self, url: str, client: httpx.Client, every: timedelta) -> None:
        self._url = url
        self._client = client
        self.terms = Terms("watchdog", every, refreshes=True, watchdog=True, others=False)

    def send(self, notices: Sequence[Notice], now: datetime) -> None:  # noqa: ARG002
        """See `Receiver`."""
        _ask(self._client, "GET", self._url)


@dataclass(frozen=True, slots=True)
class Failing:
    """A receiver that does not take what it is told: since when, why, and when it is tried again.

    `again_at`: of the monotonic clock.
    """

    since: datetime
    why: str
    failures: int
    again_at: float


class Deliverer:
    """Brings notices to receivers, and remembers who fails. For one thread."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        tell: Tell,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send nothing yet.

        Args:
            tell: is told when a receiver begins to fail, and when it is back.
        """
        self._receivers = {receiver.terms.name: receiver for receiver in receivers}
        self._tell = tell
        self._monotonic = monotonic
        self._failing: dict[str, Failing] = {}

    @property
    def terms(self) -> list[Terms]:
        """What the receivers want."""
        return [receiver.terms for receiver in self._receivers.values()]

    def failing(self) -> Mapping[str, Mapping[str, Any]]:
        """Who fails now, by name; those that don't are empty."""
        return {
            name: {"since": bad.since.isoformat(), "why": bad.why, "failures": bad.failures}
            if (bad := self._failing.get(name))
            else {}
            for name in self._receivers
        }

    def deliver(self, notices: Iterable[Notice], now: datetime) -> Iterator[Notice]:
        """Tell each receiver its notices, some at a time; gives those that were taken."""
        by_receiver: dict[str, list[Notice]] = {}
        for notice in notices:
            by_receiver.setdefault(notice.receiver, []).append(notice)
        for name, due in by_receiver.items():
            bad = self._failing.get(name)
            if bad is not None and self._monotonic() < bad.again_at:
                continue
            for start in range(0, len(due), _AT_ONCE):
                some = due[start : start + _AT_ONCE]
                try:
                    self._receivers[name].send(some, now)
                except DeliveryFailed as error:
                    self._failed(name, str(error), now)
                    break
                self._worked(name)
                yield from some

    def _failed(self, name: str, why: str, now: datetime) -> None:
        bad = self._failing.get(name)
        failures = bad.failures + 1 if bad else 1
        if bad is None or bad.why != why:
            self._tell("not delivered", receiver=name, why=why)
        pause = min(FIRST_BACKOFF_SEC * 2 ** min(failures - 1, 10), LONGEST_BACKOFF_SEC)
        since = bad.since if bad else now
        self._failing[name] = Failing(since, why, failures, self._monotonic() + pause)

    def _worked(self, name: str) -> None:
        if (bad := self._failing.pop(name, None)) is not None:
            self._tell("delivers again", receiver=name, failures=bad.failures)


def _am(notice: Notice, now: datetime) -> Iterator[dict[str, Any]]:
    alert, before = notice.alert, notice.before
    if before is not None and before is not alert.severity:
        # To Alertmanager one of another severity is another alert.
        yield _am_alert(alert, before, ends=now)
    # One that is over before it was told begins first, and ends with the next notice.
    over = notice.what is What.RESOLVED and alert.resolved_at is not None
    ends = (alert.resolved_at if over else None) or now + timedelta(seconds=HOLDS_SEC)
    yield _am_alert(alert, alert.severity, ends=ends)


def _am_alert(alert: Alert, severity: Severity, *, ends: datetime) -> dict[str, Any]:
    condition = alert.condition
    annotations = {
        "summary": condition.summary,
        "description": condition.detail,
        "runbook_url": condition.runbook,
        "acknowledged_by": alert.acknowledged_by or "",
    }
    return {
        "labels": {
            **condition.labels,
            "alertname": condition.name,
            "severity": severity,
            "key": condition.key,
            "origin": "riskhub",
        },
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": (alert.opened_at or alert.first_seen).astimezone(UTC).isoformat(),
        "endsAt": ends.astimezone(UTC).isoformat(),
    }


def _text(notices: Sequence[Notice]) -> str:
    lines = []
    for notice in notices:
        alert = notice.alert
        since = f"since {alert.first_seen:%Y-%m-%d %H:%M:%S}Z"
        if notice.what is What.RESOLVED and alert.resolved_at is not None:
            since = f"after {_lasted(alert)}"
        detail = f"\n{alert.condition.detail}" if alert.condition.detail else ""
        lines.append(
            f"{_MARKS[notice.what]} *{notice.what}* [{alert.severity}] {alert.condition.summary} "
            f"({since}){detail}"
        )
    return "\n".join(lines)


def _lasted(alert: Alert) -> str:
    ended = alert.gone_since or alert.resolved_at or alert.last_seen
    minutes, seconds = divmod(int((ended - alert.first_seen).total_seconds()), 60)
    return f"{minutes} min" if minutes else f"{seconds} s"


def _shown(notice: Notice) -> dict[str, Any]:
    alert = notice.alert
    condition = alert.condition
    return {
        "id": alert.id,
        "what": notice.what,
        "key": condition.key,
        "name": condition.name,
        "severity": condition.severity,
        "state": "open" if alert.state is State.OPEN else "resolved",
        "summary": condition.summary,
        "detail": condition.detail,
        "labels": dict(condition.labels),
        "runbook": condition.runbook,
        "first_seen": alert.first_seen.isoformat(),
        "opened_at": alert.opened_at.isoformat() if alert.opened_at else None,
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "acknowledged_by": alert.acknowledged_by,
    }


def _post(client: httpx.Client, url: str, body: Any) -> None:
    content = json.dumps(body, allow_nan=False).encode()
    _ask(client, "POST", url, content=content, headers={"Content-Type": "application/json"})


def _ask(client: httpx.Client, method: str, url: str, **options: Any) -> None:
    """Send it, and wait for the status alone: what a receiver says beyond that is not read."""
    try:
        with client.stream(method, url, **options) as answer:
            if not answer.is_success:
                raise DeliveryFailed(f"it answered {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Not its text, which may hold the URL.
        raise DeliveryFailed(f"it could not be reached: {type(error).__name__}") from None
