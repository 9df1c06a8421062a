"""Where a world's VaR and ES come from, as it is served: shares, the candidate, and why none."""

from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from answers import fields_of, post, problem_of
from asgi import Api, serving
from builders import NOW, WORLD
from stored import DAY, candidate, contribution, metrics, verdict

from api import openapi
from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import format_instant

CONTRIBUTIONS = f"/risk-hub/worlds/{WORLD}/contributions"
HOUR = timedelta(hours=1)
# A long book with a hedge: of a VaR of 0.02, three halves and minus one half.
BOOK = {"LONG": 0.03, "HEDGE": -0.01}


def attribute(
    hub: Hub,
    position: int,
    book: list[dict[str, Any]] | None = None,
    candidates: list[dict[str, Any]] | None = None,
    **row: Any,
) -> dict[str, Any]:
    if book is None:
        book = [contribution(position, symbol, var) for symbol, var in BOOK.items()]
    held = metrics(position, **{"contributions_level": "0.99" if book else None} | row)
    hub.store.write_days(
        {"risk_metrics": [held], "risk_contributions": book, "candidate_risk": candidates or []},
        [DAY],
        replace=False,
    )
    return held


def served(api: Api, query: str = "") -> dict[str, Any]:
    response = api.get(CONTRIBUTIONS + query)
    assert is_documented(response), response.text
    item: dict[str, Any] = response.json()
    return item


def is_documented(response: httpx.Response) -> bool:
    described = openapi.CONTRIBUTIONS[200]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(described).validate(response.json())
    return response.status_code == 200


def test_contributions_come_by_symbol_with_their_shares_and_what_they_add_up_to(
    api: Api, hub: Hub
) -> None:
    attribute(hub, 1)
    item = served(api)
    assert [each["symbol"] for each in item["contributions"]] == ["HEDGE", "LONG"]
    assert item["total"] == pytest.approx(
        {"var": 0.02, "es": 0.04, "historical_var": 0.01, "historical_es": 0.005}
    )
    hedge, long = item["contributions"]
    assert (hedge["var"], hedge["marginal_var"], hedge["weight"]) == (-0.01, -0.02, 0.5)
    for kind in ("var", "es", "historical_var", "historical_es"):
        assert hedge[f"{kind}_share"] == pytest.approx(-0.5)
        assert long[f"{kind}_share"] == pytest.approx(1.5)
    assert (item["absent"], item["candidate"]) == ({}, None)


def test_they_say_of_which_snapshot_and_what_they_were_made_from(api: Api, hub: Hub) -> None:
    attribute(hub, 1, as_of=NOW - HOUR)
    held = attribute(
        hub, 2, covariance_source="covariance", covariance_digest="sha256:7", stage="live"
    )
    item = served(api)
    for name in ("world_id", "version", "stage", "position", "horizon_days", "snapshot_digest"):
        assert item[name] == held[name]
    assert item["as_of"] == format_instant(NOW)
    assert (item["level"], item["code_version"]) == ("0.99", "riskhub/0")
    assert (item["covariance_source"], item["covariance_digest"]) == ("covariance", "sha256:7")
    assert (item["returns_source"], item["returns_digest"]) == ("prices", "sha256:1")
    assert served(api, "?stage=paper")["position"] == 1


def test_of_a_total_that_is_no_loss_there_are_no_shares(api: Api, hub: Hub) -> None:
    offsetting = [
        contribution(1, "A", 0.01, es=0.02, historical_var=-0.01),
        contribution(1, "B", -0.01, es=0.02, historical_var=-0.01),
    ]
    attribute(hub, 1, offsetting)
    item = served(api)
    assert (item["total"]["var"], item["total"]["historical_var"]) == (0.0, -0.02)
    for each in item["contributions"]:
        assert (each["var_share"], each["historical_var_share"]) == (None, None)
        assert each["es_share"] == 0.5


def test_without_returns_of_each_position_the_historical_ones_are_null(api: Api, hub: Hub) -> None:
    unknown = {"historical_var": None, "historical_es": None}
    attribute(hub, 1, [contribution(1, "A", 0.01, **unknown)])
    item = served(api)
    assert item["total"] == {"var": 0.01, "es": 0.02, **unknown}
    (only,) = item["contributions"]
    assert (only["historical_var"], only["historical_var_share"]) == (None, None)
    assert only["var_share"] == 1.0


def test_what_a_candidate_adds_stands_beside_who_pays_for_it(api: Api, hub: Hub) -> None:
    candidates = [
        candidate(1, "0.99"),
        candidate(1, "0.95"),
        candidate(1, "0.99", "historical", source="prices"),
    ]
    attribute(hub, 1, candidates=candidates)
    found = served(api)["candidate"]
    assert (found["candidate_id"], found["candidate_weight"]) == ("GLD", 0.125)
    assert found["funding"] == "pro rata"
    assert [(each["method"], each["level"]) for each in found["tails"]] == [
        ("historical", "0.99"),
        ("normal", "0.95"),
        ("normal", "0.99"),
    ]
    assert found["tails"][0]["source"] == "prices"
    for each in found["tails"]:
        assert (each["var_without"], each["var_with"], each["incremental_var"]) == (
            0.5,
            0.25,
            -0.25,
        )
        assert (each["es_without"], each["es_with"], each["incremental_es"]) == (0.5, 0.625, 0.125)


@pytest.mark.parametrize(
    ("row", "absent"),
    [
        (
            {"absent": {"contributions": "the book has no risk", "cornish_fisher": "skewed"}},
            {"contributions": "the book has no risk"},
        ),
        (
            {"absent": {"contributions": "no prices", "candidate": "no prices of GLD"}},
            {"contributions": "no prices", "candidate": "no prices of GLD"},
        ),
        ({"unavailable": "12 returns"}, {"contributions": "12 returns"}),
        ({"code_version": "riskhub/0.1"}, {"contributions": "riskhub/0.1 has made none"}),
    ],
)
def test_where_there_are_none_the_list_is_empty_and_it_says_why(
    api: Api, hub: Hub, row: dict[str, Any], absent: dict[str, str]
) -> None:
    attribute(hub, 1, [], **row)
    item = served(api)
    assert item["absent"] == absent
    assert (item["contributions"], item["level"]) == ([], None)
    assert set(item["total"].values()) == {None}


def test_a_page_leads_through_everything_once_each_with_its_own(api: Api, hub: Hub) -> None:
    for number in range(1, 6):
        book = [contribution(number, f"S{number}", 0.01)]
        attribute(hub, number, book, version=str(number), as_of=NOW + number * HOUR)
    query = f"?limit=2&as_of_from={format_instant(NOW + 2 * HOUR)}"
    url, walked = CONTRIBUTIONS + query, []
    while url:
        response = api.get(url)
        assert is_documented(response)
        walked += [
            (item["version"], [each["symbol"] for each in item["contributions"]])
            for item in response.json()["contributions"]
        ]
        url = response.links.get("next", {}).get("url")
    assert walked == [(str(number), [f"S{number}"]) for number in (5, 4, 3, 2)]


def test_a_version_is_found_and_a_rejected_one_says_why(api: Api, hub: Hub) -> None:
    post(api, version="old", as_of="2026-01-30T21:00:00Z")
    post(api, version="bad")
    attribute(hub, 1, version="old", as_of=NOW - HOUR)
    attribute(hub, 3, version="new")
    rejected = verdict(2, accepted=False, reasons=["weights sum to 0.9"])
    hub.store.write_days({"validated_snapshots": [rejected]}, [DAY], replace=True)
    assert served(api, "?version=old")["position"] == 1
    assert (
        "rejected: weights sum to 0.9"
        in problem_of(api.get(f"{CONTRIBUTIONS}?version=bad"), 404)["detail"]
    )
    assert problem_of(api.get(f"{CONTRIBUTIONS}?version=none"), 404)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("method=normal", "method"),
        ("level=0.99", "level"),
        ("limit=101", "limit"),
        ("cursor=x", "cursor"),
        ("as_of_to=2026-01-31", "as_of_to"),
        ("version=%00", "version"),
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, hub: Hub, query: str, field: str
) -> None:
    attribute(hub, 1)
    assert fields_of(api.get(f"{CONTRIBUTIONS}?{query}"), 422) == [field]


def test_contributions_are_for_who_may_read(hub: Hub, settings: Settings) -> None:
    attribute(hub, 1)
    tokens = tuple(
        TokenSpec(name=scope, secret=f"may {scope}", scopes=frozenset({scope})) for scope in Scope
    )
    with serving(create_app(settings.model_copy(update={"tokens": tokens}), hub)) as api:
        statuses = [
            api.get(CONTRIBUTIONS, headers={"Authorization": f"Bearer {token}"}).status_code
            for token in ("may read", "may write", "wrong")
        ]
    assert statuses == [200, 403, 401]
