"""How old an answer is, and how fresh the worlds are."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from answers import SNAPSHOTS, fields_of, post, problem_of
from asgi import Api, serving
from builders import NOW, WORLD, Clock, accept
from pydantic import SecretStr
from stored import DAY, contribution, metrics, stressed, tail, verdict

from api import openapi
from api.app import create_app
from riskhub.errors import StoreUnavailable
from riskhub.freshness.settings import FreshnessSettings
from riskhub.hub import Hub
from riskhub.settings import Settings

AGE = "X-Snapshot-Age"
FRESHNESS = "/risk-hub/freshness"
OF_ONE = [
    f"{SNAPSHOTS}/latest",
    f"{SNAPSHOTS}/lookup?version=v1",
    f"{SNAPSHOTS}/latest?stage=paper",
]
MEASURED = ["risk", "contributions", "stress"]


def measured(kind: str, query: str = "") -> str:
    return f"/risk-hub/worlds/{WORLD}/{kind}{query}"


# -- how old an answer is -------------------------------------------------------------------------


@pytest.mark.parametrize("url", [*OF_ONE, f"{SNAPSHOTS}/latest?include_expired=true&expand=true"])
def test_a_snapshot_comes_with_its_age_and_its_own_bytes(api: Api, clock: Clock, url: str) -> None:
    posted = post(api, as_of="2026-01-31T21:00:00.75Z")
    for seconds, age in ((0, "299"), (0.75, "300"), (0.9, "300")):  # and so from the cache
        clock.advance(seconds)
        response = api.get(url)
        assert (response.content, response.headers[AGE]) == (posted.content, age)


@pytest.mark.parametrize("url", OF_ONE)
def test_a_snapshot_ahead_of_the_clock_has_age_zero(api: Api, url: str) -> None:
    post(api, as_of="2026-01-31T21:09:00Z")
    assert api.get(url).headers[AGE] == "0"


def test_a_list_and_a_refusal_have_no_age(api: Api) -> None:
    assert AGE not in problem_of(api.get(f"{SNAPSHOTS}/latest"), 404)
    post(api)
    for url in (SNAPSHOTS, f"{SNAPSHOTS}/lookup?version=v9"):
        assert AGE not in api.get(url).headers


@pytest.fixture
def numbers(hub: Hub) -> None:
    """Of two snapshots, one an hour older than the other, which is of a second and a half ago."""
    for position, age in ((1, timedelta(hours=1)), (2, timedelta(seconds=1.5))):
        named: Any = {"world_id": WORLD, "version": f"v{position}", "as_of": NOW - age}
        hub.land([accept(version=f"v{position}")])
        rows = {
            "risk_metrics": [metrics(position, contributions_level="0.99", **named)],
            "risk_tails": [tail(position)],
            "risk_contributions": [contribution(position, "BAC", 0.02)],
            "snapshot_stress": [stressed(position, **named)],
        }
        hub.store.write_days(rows, [DAY], replace=False)


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.usefixtures("numbers")
def test_numbers_come_with_the_age_of_their_snapshot(api: Api, clock: Clock, kind: str) -> None:
    newest, old = api.get(measured(kind)), api.get(measured(kind, "?version=v1"))
    assert (newest.json()["age_seconds"], newest.headers[AGE]) == (1.5, "1")
    assert (old.json()["age_seconds"], old.headers[AGE]) == (3_600, "3600")
    clock.advance(-60)
    ahead = api.get(measured(kind))
    assert (ahead.json()["age_seconds"], ahead.headers[AGE]) == (0, "0")


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.usefixtures("numbers")
def test_on_a_page_each_has_its_own_age(api: Api, kind: str) -> None:
    page = api.get(measured(kind, "?limit=9"))
    assert [row["age_seconds"] for row in page.json()[kind]] == [1.5, 3_600]
    assert AGE not in page.headers


# -- how fresh the worlds are ---------------------------------------------------------------------


@pytest.fixture
def settings(settings: Settings) -> Settings:
    block = FreshnessSettings.model_validate(
        {
            "expected": ["fx/live", f"{WORLD}/paper"],
            "rules": [
                {"world": "quick", "stale_after_sec": 10, "critical_after_sec": 20},
                {"world": "desk-*", "calendar": "XNYS"},
                {"world": "mars", "calendar": "MARS"},
            ],
        }
    )
    return settings.model_copy(update={"freshness": block})


def worlds(api: Api, query: str = "") -> dict[str, dict[str, Any]]:
    response = api.get(FRESHNESS + query)
    assert response.status_code == 200, response.text
    described = openapi.FRESHNESS[200]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(described).validate(response.json())
    return {f"{each['world_id']}/{each['stage']}": each for each in response.json()["worlds"]}


def test_every_world_is_told_of_the_most_urgent_first(api: Api, hub: Hub, clock: Clock) -> None:
    hub.land(
        [
            accept(as_of="2026-01-31T21:04:50Z"),
            accept(world_id="quick", as_of="2026-01-31T21:04:45Z", ttl_sec=60),
            accept(world_id="history", stage="backtest", as_of="2020-01-31T21:00:00Z"),
        ]
    )
    clock.advance(4)

    found = worlds(api)

    assert list(found) == ["fx/live", "quick/paper", "equities/paper", "history/backtest"]
    assert found["fx/live"] == {
        **{"world_id": "fx", "stage": "live", "state": "missing", "severity": "critical"},
        **{"newest_as_of": None, "age_seconds": None, "open_age_seconds": None, "served": False},
        **{"stale_after_sec": 600, "critical_after_sec": 1800, "calendar": "24/7", "note": None},
    }
    assert found["quick/paper"] == {
        **{"world_id": "quick", "stage": "paper", "state": "stale", "severity": "warning"},
        **{
            "newest_as_of": "2026-01-31T21:04:45.000000Z",
            "age_seconds": 19,
            "open_age_seconds": 19,
        },
        **{"served": True, "stale_after_sec": 10, "critical_after_sec": 20, "calendar": "24/7"},
        **{"note": None},
    }
    assert (found["equities/paper"]["state"], found["history/backtest"]["state"]) == (
        *("fresh", "exempt"),
    )
    clock.advance(1_800)
    assert {name: each["state"] for name, each in worlds(api).items()} == {
        **{"fx/live": "missing", "quick/paper": "expired", "equities/paper": "expired"},
        "history/backtest": "exempt",
    }


def test_only_the_world_and_stage_that_are_asked_for(api: Api, hub: Hub) -> None:
    hub.land([accept(), accept(version="live", stage="live"), accept(world_id="other")])
    assert set(worlds(api, f"?world={WORLD}")) == {"equities/paper", "equities/live"}
    assert set(worlds(api, "?stage=live")) == {"equities/live", "fx/live"}
    assert set(worlds(api, "?world=fx&stage=live")) == {"fx/live"}
    assert worlds(api, "?world=unknown") == {}


def test_a_closed_market_is_not_stale_and_what_a_calendar_can_not_tell_is_said(
    api: Api, hub: Hub
) -> None:
    hub.land(  # it is Saturday
        [
            accept(world_id="desk-1", as_of="2026-01-30T20:59:00Z"),
            accept(world_id="mars", as_of="2026-01-31T20:55:00Z"),
        ]
    )
    found = worlds(api)
    desk = found["desk-1/paper"]
    assert (desk["state"], desk["open_age_seconds"], desk["calendar"]) == ("fresh", 60, "XNYS")
    assert desk["age_seconds"] == 24 * 3_600 + 6 * 60
    assert found["mars/paper"]["open_age_seconds"] == 600
    assert "no calendar MARS" in found["mars/paper"]["note"]
    page = api.get("/metrics").text
    assert 'risk_hub_snapshot_lag_seconds{stage="paper",world_id="desk-1"} 60.0' in page
    labels = 'severity="ok",stage="paper",state="fresh",world_id="desk-1"'
    assert f"risk_hub_snapshot_state{{{labels}}} 1.0" in page


def test_what_is_rejected_is_no_news(api: Api, hub: Hub) -> None:
    hub.land([accept(as_of="2026-01-31T20:50:00Z"), accept(version="v2")])
    row: Any = {"world_id": WORLD, "version": "v2", "stage": "paper", "as_of": NOW, "day": DAY}
    hub.store.write_verdicts([verdict(2, accepted=False, **row)], [DAY], now=NOW, replace=False)
    assert worlds(api, f"?world={WORLD}")["equities/paper"]["age_seconds"] == 900


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?world=a%20b", "world"),
        ("?world=", "world"),
        ("?stage=", "stage"),
        ("?world_id=a", "world_id"),
        ("?world=a&world=b", "world"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(api: Api, query: str, field: str) -> None:
    assert fields_of(api.get(FRESHNESS + query), 422) == [field]


def test_without_a_database_it_is_503(api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(**_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(hub.store, "newest_per_world", unavailable)
    assert problem_of(api.get(FRESHNESS), 503)


@pytest.fixture
def guarded(settings: Settings, hub: Hub) -> Iterator[Api]:
    with serving(create_app(settings.model_copy(update={"token": SecretStr("t")}), hub)) as api:
        yield api


def test_it_is_a_read_like_others(guarded: Api) -> None:
    assert problem_of(guarded.get(FRESHNESS), 401)
    allowed: httpx.Response = guarded.get(FRESHNESS, headers={"Authorization": "Bearer t"})
    assert list(json.loads(allowed.text)) == ["worlds"]
