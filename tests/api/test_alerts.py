"""GET /risk-hub/alerts."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from alerting import condition
from answers import fields_of
from asgi import Api, serving
from builders import NOW

from api.app import create_app
from riskhub.alerts.reconcile import Alert, Condition, State
from riskhub.alerts.records import alert_row
from riskhub.hub import Hub
from riskhub.settings import Settings

ALERTS = "/risk-hub/alerts"


def alert(
    key: str, minutes: int, *, resolved: bool = False, about: Condition | None = None
) -> Alert:
    at = NOW + timedelta(minutes=minutes)
    return Alert(
        about or condition(key),
        State.RESOLVED if resolved else State.OPEN,
        *(at, at, at),
        opened_at=at,
        resolved_at=at + timedelta(hours=1) if resolved else None,
    )


def write(hub: Hub, alerts: Sequence[Alert], turn: int = 0) -> None:
    hub.store.write_alerts(
        [alert_row(each, over=each.state is State.RESOLVED) for each in alerts],
        acknowledgements=[],
        turn=turn,
        writer="alerts on here",
        receivers={"desk": {}},
        now=NOW,
    )


def keys(api: Api, **asked: object) -> list[str]:
    answer = api.get(ALERTS, params=asked)
    assert answer.status_code == 200
    return [each["key"] for each in answer.json()["alerts"]]


def test_before_anybody_watched_it_says_so(api: Api) -> None:
    assert api.get(ALERTS).json() == {"alerts": [], "watch": None, "next": None}


def test_alerts_come_newest_first_and_by_state(api: Api, hub: Hub) -> None:
    write(hub, [alert("a", 0), alert("b", 1, resolved=True), alert("c", 2)])
    assert keys(api) == ["c", "b", "a"]
    assert keys(api, open="true") == ["c", "a"]
    assert keys(api, open="false") == ["b"]


def test_an_alert_says_what_is_wrong_since_when_and_who_looked(api: Api, hub: Hub) -> None:
    about = condition("a", detail="why", labels={"world_id": "w"}, runbook="docs#x")
    write(hub, [alert("a", 0, about=about)])
    assert hub.store.acknowledge_alert("a", by="ann", now=NOW) is not None
    document = api.get(ALERTS).json()
    assert document["watch"] == {"writer": "alerts on here", "at": "2026-01-31T21:05:00.000000Z"}
    (shown,) = document["alerts"]
    assert len(shown.pop("id")) == 20
    assert shown == {
        "key": "a",
        "name": "RiskHubSnapshotStale",
        "severity": "warning",
        "state": "open",
        "summary": "a is wrong",
        "detail": "why",
        "labels": {"world_id": "w"},
        "runbook": "docs#x",
        "first_seen": "2026-01-31T21:05:00.000000Z",
        "last_seen": "2026-01-31T21:05:00.000000Z",
        "opened_at": "2026-01-31T21:05:00.000000Z",
        "resolved_at": None,
        "count": 1,
        "acknowledged_by": "ann",
        "acknowledged_at": "2026-01-31T21:05:00.000000Z",
        "notified": {},
    }


def test_pages_lead_to_the_next(api: Api, hub: Hub) -> None:
    write(hub, [alert(f"k{n}", n // 2) for n in range(7)])
    seen: list[str] = []
    url: str | None = f"{ALERTS}?limit=3"
    while url is not None:
        answer = api.get(url)
        seen += [each["key"] for each in answer.json()["alerts"]]
        link = answer.headers.get("link")
        url = link.split(">")[0].strip("<") if link else None
    assert sorted(seen) == [f"k{n}" for n in range(7)]
    assert seen[0] == "k6"


@pytest.mark.parametrize(
    ("query", "field"),
    [("open=maybe", "open"), ("cursor=x", "cursor"), ("limit=0", "limit"), ("state=open", "state")],
)
def test_what_can_not_be_asked_is_refused_by_name(api: Api, query: str, field: str) -> None:
    assert fields_of(api.get(f"{ALERTS}?{query}"), 422) == [field]


def test_it_is_a_read(hub: Hub, settings: Settings) -> None:
    with serving(create_app(Settings(home=settings.home, token="s3cret" * 6), hub)) as api:
        assert api.get(ALERTS).status_code == 401
        headers = {"Authorization": f"Bearer {'s3cret' * 6}"}
        assert api.get(ALERTS, headers=headers).status_code == 200
