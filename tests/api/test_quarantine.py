"""What was rejected: not the latest any more, and listed with the reasons."""

import json
from datetime import UTC, date, datetime
from typing import Any

import jsonschema
import pytest
from answers import SNAPSHOTS, fields_of, post
from asgi import Api, serving
from builders import NOW, WORLD, Clock
from stored import verdict

from api.app import create_app
from riskhub.hub import Hub
from riskhub.settings import Settings

QUARANTINE = "/risk-hub/quarantine"
EVIDENCE = {"covariance": {"symbols": 2, "smallest_eigenvalue": -0.1}}


@pytest.fixture
def judge(hub: Hub, clock: Clock) -> Any:
    """Gives verdicts by version, as the pipeline does."""

    def give(**accepted: bool) -> None:
        rows = [
            verdict(
                row.position,
                day=row.day,
                world_id=row.world_id,
                version=row.version,
                as_of=row.as_of,
                stage=row.stage,
                accepted=accepted[row.version],
                reasons=[] if accepted[row.version] else ["why not"],
                evidence=EVIDENCE,
            )
            for row in hub.store.landed_on(date(2026, 1, 1), date(2026, 12, 31))
            if row.version in accepted
        ]
        days = sorted({row["day"] for row in rows})
        hub.store.write_verdicts(rows, days, now=clock.now, replace=False)

    return give


def version_of(api: Api, path: str) -> str | None:
    response = api.get(f"{SNAPSHOTS}/{path}")
    return response.json()["version"] if response.status_code == 200 else None


def test_latest_and_lookup_step_over_what_was_rejected_also_when_they_had_given_it(
    api: Api, judge: Any, clock: Clock
) -> None:
    post(api, version="good", as_of="2026-01-31T20:00:00Z")
    post(api, version="bad", as_of="2026-01-31T21:00:00Z")
    asked = ["latest", "latest?include_expired=true", "latest?stage=paper&actor=optimizer",
             "lookup?as_of=2026-01-31T21:00:00Z"]  # fmt: skip
    assert [version_of(api, path) for path in asked] == ["bad"] * 4
    clock.advance(60)

    judge(good=True, bad=False)

    assert [version_of(api, path) for path in asked] == ["good"] * 4
    at, before = "2026-01-31T21:06:00Z", "2026-01-31T21:05:59Z"
    assert version_of(api, f"lookup?as_of={at}&known_at={at}") == "good"
    assert version_of(api, f"lookup?as_of={at}&known_at={before}") == "bad"
    assert version_of(api, "lookup?version=bad") == "bad"
    listed = api.get(SNAPSHOTS).json()["snapshots"]
    assert [each["version"] for each in listed] == ["bad", "good"]


def test_what_is_accepted_after_all_is_the_latest_again(api: Api, judge: Any) -> None:
    post(api, version="v1")
    judge(v1=False)
    assert api.get(f"{SNAPSHOTS}/latest").status_code == 404

    judge(v1=True)

    assert version_of(api, "latest") == "v1"
    assert api.get(QUARANTINE).json() == {"quarantined": [], "next": None}


def test_the_quarantine_is_listed_with_the_reasons(api: Api, judge: Any) -> None:
    post(api, version="good")
    post(api, version="bad")

    judge(good=True, bad=False)

    assert api.get(QUARANTINE).json() == {
        "quarantined": [
            {
                "world_id": WORLD,
                "version": "bad",
                "as_of": "2026-01-31T21:00:00.000000Z",
                "stage": "paper",
                "position": 2,
                "since": "2026-01-31T21:05:00.000000Z",
                "reasons": ["why not"],
                "flags": [],
                "evidence": EVIDENCE,
            }
        ],
        "next": None,
    }
    assert datetime(2026, 1, 31, 21, 5, tzinfo=UTC) == NOW


def test_pages_lead_to_the_end_and_filters_choose(api: Api, judge: Any, clock: Clock) -> None:
    for number in range(5):
        post(api, version=f"v{number}", to=f"/risk-hub/worlds/w{number % 2}/snapshots")
    judge(v0=False, v1=False, v2=False)
    clock.advance(1)
    judge(v3=False, v4=False)

    walked, url = [], f"{QUARANTINE}?limit=2"
    while url:
        response = api.get(url)
        walked += [row["version"] for row in response.json()["quarantined"]]
        url = response.headers.get("link", "").partition("<")[2].partition(">")[0]

    assert walked == ["v4", "v3", "v2", "v1", "v0"]
    for query, found in {
        "world_id=w1": ["v3", "v1"],
        "world_id=w0&limit=1": ["v4"],
        "stage=paper&world_id=w0": ["v4", "v2", "v0"],
        "stage=live": [],
    }.items():
        rows = api.get(f"{QUARANTINE}?{query}").json()["quarantined"]
        assert [row["version"] for row in rows] == found, query


def test_the_answer_is_the_one_that_is_documented(api: Api, judge: Any) -> None:
    post(api, version="v1")
    judge(v1=False)
    described = api.get("/openapi.json").json()["paths"][QUARANTINE]["get"]
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]

    jsonschema.validate(api.get(QUARANTINE).json(), schema)

    names = [parameter["name"] for parameter in described["parameters"]]
    assert names == ["world_id", "stage", "limit", "cursor"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("world=equities", "world"),
        ("world_id=a%20b", "world_id"),
        ("world_id=", "world_id"),
        ("stage=", "stage"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=2026-01-31T21:00:00Z_-1", "cursor"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(api: Api, query: str, field: str) -> None:
    assert fields_of(api.get(f"{QUARANTINE}?{query}"), 422) == [field]


def test_reading_the_quarantine_takes_a_token_that_may_read(settings: Settings, hub: Hub) -> None:
    guarded = settings.model_copy(update={"token": Settings(token="s3cret").token})
    with serving(create_app(guarded, hub)) as api:
        assert api.get(QUARANTINE).status_code == 401
        granted = api.get(QUARANTINE, headers={"Authorization": "Bearer s3cret"})
        assert json.loads(granted.content) == {"quarantined": [], "next": None}
