"""What receivers get, over HTTP; and what becomes of what they don't take."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from alerting import Ear, condition
from builders import NOW
from inbox import Inbox, inbox

from riskhub.alerts.deliver import (
    HOLDS_SEC,
    AlertmanagerReceiver,
    Deliverer,
    DeliveryFailed,
    LogReceiver,
    WatchdogReceiver,
    WebhookReceiver,
    receivers_of,
)
from riskhub.alerts.reconcile import Alert, Notice, Severity, State, What
from riskhub.alerts.settings import AlertSettings

HOUR = timedelta(hours=1)
SECRET = "T0K3N"


def alert(key: str = "late:w/live", **fields: Any) -> Alert:
    given = {"state": State.OPEN, "opened_at": NOW} | fields
    about = condition(
        key,
        detail="The newest is old.",
        labels={"world_id": "w", "stage": "live"},
        runbook="docs#x",
    )
    seen = NOW - timedelta(seconds=30), NOW - timedelta(seconds=30), NOW
    return Alert(about, given.pop("state"), *seen, **given)


RESOLVED = {"state": State.RESOLVED, "gone_since": NOW + HOUR, "resolved_at": NOW + HOUR}


def notice(what: What = What.OPENED, of: Alert | None = None, **fields: Any) -> Notice:
    return Notice("any", what, of or alert(), **fields)


@pytest.fixture
def box() -> Iterator[Inbox]:
    with inbox() as opened:
        yield opened


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=0.5) as opened:
        yield opened


# --- the webhook -----------------------------------------------------------------------------


def test_a_webhook_gets_a_text_for_people_and_the_alerts_for_programs(
    box: Inbox, client: httpx.Client
) -> None:
    receiver = WebhookReceiver("desk", f"{box.url}/{SECRET}", client, HOUR)
    receiver.send([notice(), notice(What.RESOLVED, alert("b", **RESOLVED))], NOW)
    ((method, path, body),) = box.requests
    assert (method, path) == ("POST", f"/{SECRET}")
    assert body["text"] == (
        "🔴 *opened* [warning] late:w/live is wrong (since 2026-01-31 21:04:30Z)\n"
        "The newest is old.\n"
        "✅ *resolved* [warning] b is wrong (after 60 min)\n"
        "The newest is old."
    )
    opened, resolved = body["alerts"]
    assert opened == {
        "id": alert().id,
        "what": "opened",
        "key": "late:w/live",
        "name": "RiskHubSnapshotStale",
        "severity": "warning",
        "state": "open",
        "summary": "late:w/live is wrong",
        "detail": "The newest is old.",
        "labels": {"world_id": "w", "stage": "live"},
        "runbook": "docs#x",
        "first_seen": "2026-01-31T21:04:30+00:00",
        "opened_at": "2026-01-31T21:05:00+00:00",
        "resolved_at": None,
        "acknowledged_by": None,
    }
    assert (resolved["what"], resolved["state"]) == ("resolved", "resolved")
    assert resolved["resolved_at"] == "2026-01-31T22:05:00+00:00"


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_whatever_is_no_success_is_a_failure(box: Inbox, client: httpx.Client, status: int) -> None:
    box.status = status
    with pytest.raises(DeliveryFailed, match=f"^it answered {status}$"):
        WebhookReceiver("desk", box.url, client, HOUR).send([notice()], NOW)


def test_one_that_says_nothing_is_given_up_in_time(box: Inbox, client: httpx.Client) -> None:
    box.answers.clear()
    with pytest.raises(DeliveryFailed, match=r"^it could not be reached: ReadTimeout$"):
        WebhookReceiver("desk", box.url, client, HOUR).send([notice()], NOW)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/{}", "http://[/{}", "nonsense:/{}"])
def test_a_failure_does_not_tell_the_url(client: httpx.Client, url: str) -> None:
    receiver = WebhookReceiver("desk", url.format(SECRET), client, HOUR)
    with pytest.raises(DeliveryFailed) as failure:
        receiver.send([notice()], NOW)
    assert SECRET not in str(failure.value)
    assert failure.value.__cause__ is None


# --- Alertmanager ----------------------------------------------------------------------------


def posted(box: Inbox) -> list[dict[str, Any]]:
    return [each for body in box.bodies for each in body]


def test_alertmanager_gets_what_is_open_for_as_long_as_it_hears_of_it(
    box: Inbox, client: httpx.Client
) -> None:
    receiver = AlertmanagerReceiver(f"{box.url}/prefix/", client)
    receiver.send([notice(of=alert(acknowledged_by="ann"))], NOW)
    ((_, path, (sent,)),) = box.requests
    assert path == "/prefix/api/v2/alerts"
    assert sent["labels"] == {
        "alertname": "RiskHubSnapshotStale",
        "severity": "warning",
        "key": "late:w/live",
        "origin": "riskhub",
        "world_id": "w",
        "stage": "live",
    }
    assert sent["annotations"] == {
        "summary": "late:w/live is wrong",
        "description": "The newest is old.",
        "runbook_url": "docs#x",
        "acknowledged_by": "ann",
    }
    assert datetime.fromisoformat(sent["startsAt"]) == NOW
    assert datetime.fromisoformat(sent["endsAt"]) == NOW + timedelta(seconds=HOLDS_SEC)


def test_alertmanager_hears_of_the_end(box: Inbox, client: httpx.Client) -> None:
    over = alert(**RESOLVED)
    AlertmanagerReceiver(box.url, client).send(
        [notice(What.RESOLVED, over, before=Severity.WARNING)], NOW + HOUR
    )
    (sent,) = posted(box)
    assert datetime.fromisoformat(sent["endsAt"]) == NOW + HOUR


def test_what_became_worse_is_another_alert_to_alertmanager_and_the_old_one_ends(
    box: Inbox, client: httpx.Client
) -> None:
    worse = replace(alert(), condition=condition(severity=Severity.CRITICAL))
    AlertmanagerReceiver(box.url, client).send(
        [notice(What.WORSENED, worse, before=Severity.WARNING)], NOW
    )
    old, new = posted(box)
    assert (old["labels"]["severity"], new["labels"]["severity"]) == ("warning", "critical")
    assert datetime.fromisoformat(old["endsAt"]) == NOW < datetime.fromisoformat(new["endsAt"])


def test_what_was_over_before_it_could_be_told_begins_first(
    box: Inbox, client: httpx.Client
) -> None:
    AlertmanagerReceiver(box.url, client).send([notice(of=alert(**RESOLVED))], NOW + 2 * HOUR)
    (sent,) = posted(box)
    assert datetime.fromisoformat(sent["endsAt"]) > NOW + 2 * HOUR


def test_several_alertmanagers_have_marks_of_their_own(client: httpx.Client) -> None:
    urls = ("http://user:pass@am1:9093", "http://am2:9093")
    names = [AlertmanagerReceiver(url, client).terms.name for url in urls]
    assert names == ["alertmanager am1:9093", "alertmanager am2:9093"]


# --- the others ------------------------------------------------------------------------------


def test_the_watchdog_asks_its_url(box: Inbox, client: httpx.Client) -> None:
    receiver = WatchdogReceiver(f"{box.url}/ping/{SECRET}", client, HOUR)
    receiver.send([notice()], NOW)
    assert [each[:2] for each in box.requests] == [("GET", f"/ping/{SECRET}")]
    assert receiver.terms.watchdog
    assert not receiver.terms.others


def test_the_log_gets_a_line_each() -> None:
    lines: list[tuple[str, dict[str, object]]] = []
    log = LogReceiver(lambda event, **fields: lines.append((event, fields)), HOUR)
    log.send([notice(), notice(What.RESOLVED)], NOW)
    assert [event for event, _ in lines] == ["alert opened", "alert resolved"]
    assert lines[0][1]["alert"] == "late:w/live"


def test_the_receivers_of_the_settings(client: httpx.Client) -> None:
    settings = AlertSettings(
        alertmanagers=("http://am:9093",),
        webhooks=({"name": "desk", "url": "https://hooks.example/x"},),
        watchdog_url="https://ping.example/y",
        repeat_sec=60,
    )
    terms = [each.terms for each in receivers_of(settings, client, lambda *_, **__: None)]
    assert [each.name for each in terms] == ["log", "desk", "alertmanager am:9093", "watchdog"]
    assert [each.watchdog for each in terms] == [False, False, True, True]
    assert [each.others for each in terms] == [True, True, True, False]
    assert terms[1].repeat == timedelta(seconds=60)
    assert [each.terms.name for each in receivers_of(AlertSettings(), client, print)] == ["log"]


@pytest.mark.parametrize(
    "webhooks",
    [
        [{"name": "log", "url": "https://x"}],
        [{"name": "a", "url": "x"}],
        [{"name": "A b", "url": "https://x"}],
        [{"name": "a", "url": "https://x"}, {"name": "a", "url": "https://y"}],
    ],
)
def test_a_webhook_that_can_not_be_one_is_refused(webhooks: Any) -> None:
    with pytest.raises(ValueError, match=r"name|url"):
        AlertSettings(webhooks=webhooks)


# --- failures --------------------------------------------------------------------------------


class Delivering:
    """A deliverer of two ears, whose time the test moves."""

    def __init__(self) -> None:
        self.good, self.bad = Ear("good"), Ear("bad")
        self.now = 0.0
        self.told: list[tuple[str, object]] = []
        self.deliverer = Deliverer(
            [self.bad, self.good],
            tell=lambda event, **fields: self.told.append((event, fields["receiver"])),
            monotonic=lambda: self.now,
        )

    def deliver(self, count: int = 1) -> list[str]:
        notices = [
            Notice(name, What.OPENED, alert(f"k{n}"))
            for name in ("bad", "good")
            for n in range(count)
        ]
        return [each.receiver for each in self.deliverer.deliver(notices, NOW)]


def test_a_receiver_that_fails_is_nobody_elses_trouble() -> None:
    it = Delivering()
    it.bad.fails = True
    assert it.deliver() == ["good"]
    assert it.told == [("not delivered", "bad")]
    assert it.deliverer.failing()["good"] == {}
    assert it.deliverer.failing()["bad"] == {
        "since": NOW.isoformat(),
        "why": "it is away",
        "failures": 1,
    }


def test_it_is_tried_again_ever_more_seldom_and_at_once_when_it_is_back() -> None:
    it = Delivering()
    it.bad.fails = True
    at = []
    for second in range(400):
        it.now, tries = float(second), it.bad.tries
        it.deliver()
        at += [second] * (it.bad.tries - tries)
    assert at == [0, 2, 6, 14, 30, 62, 122, 182, 242, 302, 362]
    it.now, it.bad.fails = 1_000.0, False
    assert it.deliver() == ["bad", "good"]
    assert it.told == [("not delivered", "bad"), ("delivers again", "bad")]
    assert it.deliver() == ["bad", "good"]


def test_many_notices_go_some_at_a_time_and_what_was_taken_was_taken() -> None:
    it = Delivering()
    sent = it.bad.send

    def takes_one_batch(notices: Any, now: datetime) -> None:
        it.bad.fails = it.bad.tries == 1
        sent(notices, now)

    it.bad.send = takes_one_batch  # type: ignore[method-assign]
    taken = it.deliver(120)
    assert (taken.count("bad"), taken.count("good")) == (50, 120)
