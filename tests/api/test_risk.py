"""The risk numbers of a world: what is served, what is refused, and why there are none."""

from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from answers import fields_of, post, problem_of
from asgi import Api, serving
from builders import NOW, WORLD
from stored import DAY, metrics, tail, verdict

from api import openapi
from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import format_instant
from riskhub.store.tables import risk_metrics

RISK = f"/risk-hub/worlds/{WORLD}/risk"
HOUR = timedelta(hours=1)
KINDS = [("historical", "0.95"), ("historical", "0.99"), ("normal", "0.99")]
NUMBERS = ("mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown")


def measure(
    hub: Hub, position: int, kinds: list[tuple[str, str]] = KINDS, **row: Any
) -> dict[str, Any]:
    held = metrics(position, **row)
    tails = [tail(position, level, method=method) for method, level in kinds]
    hub.store.write_days({"risk_metrics": [held], "risk_tails": tails}, [DAY], replace=False)
    return held


def hours_of(api: Api, **query: str) -> list[str]:
    response = api.get(RISK, params=query)
    return [item["version"] for item in response.json()["risk"]]


def kinds_of(item: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["method"], each["level"]) for each in item["tails"]]


def is_documented(response: httpx.Response) -> bool:
    described = openapi.RISK[200]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(described).validate(response.json())
    return response.status_code == 200


def test_the_newest_measured_snapshot_comes_with_all_that_makes_its_numbers_trustworthy(
    api: Api, hub: Hub
) -> None:
    measure(hub, 1, as_of=NOW - HOUR)
    measure(hub, 2)
    held = measure(  # the later landing of the two
        hub,
        3,
        returns_source="realized_returns",
        covariance_source="covariance",
        diversification_ratio=1.75,
        effective_bets=3.5,
        contributions_level="0.99",
        passed_over={"prices": "no prices of BAC"},
        absent={"cornish_fisher": "skewness -3 is outside Maillard's domain"},
    )
    response = api.get(RISK)
    assert is_documented(response)
    item = response.json()
    assert item.pop("age_seconds") == 0
    assert {field for field in item if field != "tails"} == {
        column.name for column in risk_metrics.c if column.name != "day"
    }
    assert item == {name: value for name, value in held.items() if name != "day"} | {
        "as_of": format_instant(NOW),
        "tails": [
            {
                **{"method": method, "level": level, "var": 0.02, "es": 0.03},
                **{"rank": 5, "var_next": 0.021, "source": "prices"},
                **{"var_error": None, "es_error": None},
            }
            for method, level in KINDS
        ],
    }


def test_a_simulated_tail_comes_with_its_standard_errors(api: Api, hub: Hub) -> None:
    measure(hub, 1)
    simulated = {"source": "covariance", "var_error": 0.0004, "es_error": 0.0007}
    drawn = tail(1, method="monte_carlo", **simulated)
    hub.store.write_days({"risk_tails": [drawn]}, [DAY], replace=True)
    response = api.get(f"{RISK}?method=monte_carlo&level=0.99")
    assert is_documented(response)
    (found,) = response.json()["tails"]
    assert found | simulated == found


def test_a_tail_of_before_sources_were_noted_has_none(api: Api, hub: Hub) -> None:
    measure(hub, 1, [])
    hub.store.write_days({"risk_tails": [tail(1, source="")]}, [DAY], replace=True)
    response = api.get(RISK)
    assert is_documented(response)
    assert [each["source"] for each in response.json()["tails"]] == [None]


def test_a_method_that_is_absent_is_no_misspelt_one(api: Api, hub: Hub) -> None:
    why = {"cornish_fisher": "skewness -3 is outside Maillard's domain"}
    measure(hub, 1, version="then", as_of=NOW - HOUR, absent=why)
    measure(hub, 2, version="now", absent={"contributions": "the book has no risk"})
    post(api, version="then")
    for query in ("version=then", "limit=5", f"as_of_to={format_instant(NOW - HOUR)}&limit=1"):
        response = api.get(f"{RISK}?method=cornish_fisher&{query}")
        assert is_documented(response)
        items = response.json().get("risk", [response.json()])
        assert [item["tails"] for item in items] == [[]] * len(items)
        assert items[-1]["absent"] == why
    # Not of the newest one, and no name of a method.
    for method in ("cornish_fisher", "contributions"):
        assert fields_of(api.get(f"{RISK}?method={method}"), 422) == ["method"]


def test_what_could_not_be_measured_says_why_and_its_numbers_are_null(api: Api, hub: Hub) -> None:
    unavailable = {
        "unavailable": "12 returns; 250 are needed",
        "n": 12,
        **dict.fromkeys(NUMBERS),
        **dict.fromkeys(["returns_source", "returns_digest", "covariance_source"]),
        **dict.fromkeys(["covariance_digest", "diversification_ratio", "effective_bets"]),
        "passed_over": {"realized_returns": "12 returns; 250 are needed"},
    }
    measure(hub, 1, [], **unavailable)
    for query in ("", "?method=historical&level=0.99", "?method=anything"):
        response = api.get(RISK + query)
        assert is_documented(response)
        assert response.json() | unavailable | {"tails": []} == response.json()


def test_a_version_is_served_expired_or_not(api: Api, hub: Hub) -> None:
    post(api, version="old", as_of="2026-01-30T21:00:00Z", ttl_sec=1)
    post(api, version="new")
    for position, version in ((1, "old"), (2, "new")):
        measure(hub, position, version=version, as_of=NOW + position * HOUR)
    response = api.get(f"{RISK}?version=old")
    assert is_documented(response)
    assert response.json()["version"] == "old"
    assert api.get(RISK).json()["version"] == "new"
    assert hours_of(api, version="old", limit="9") == ["old"]
    assert problem_of(api.get(f"{RISK}?version=old&stage=live"), 404)


def test_where_there_are_none_it_is_404_and_the_page_empty(api: Api) -> None:
    post(api)
    for query in ("", "?version=v1", "?version=none", "?stage=live", "?method=normal&level=0.99"):
        assert WORLD in problem_of(api.get(RISK + query), 404)["detail"]
    page = api.get(f"{RISK}?limit=10")
    assert is_documented(page)
    assert page.json() == {"risk": [], "next": None}


def test_a_rejected_version_says_so_and_why(api: Api, hub: Hub) -> None:
    post(api)
    rejected = verdict(1, accepted=False, reasons=["weights sum to 0.9", "no price of BAC"])
    hub.store.write_days({"validated_snapshots": [rejected]}, [DAY], replace=True)
    detail = problem_of(api.get(f"{RISK}?version=v1"), 404)["detail"]
    assert "version v1 of world equities was rejected" in detail
    assert "weights sum to 0.9; no price of BAC" in detail
    assert "rejected" not in problem_of(api.get(RISK), 404)["detail"]


def test_method_and_level_choose_among_the_tails(api: Api, hub: Hub) -> None:
    measure(hub, 1)
    for query, kinds in (
        ("method=historical", KINDS[:2]),
        ("level=0.99", KINDS[1:]),
        ("level=0.9900&method=normal", KINDS[2:]),
        ("level=0.95&method=normal", []),
    ):
        for page in ("", "&limit=1"):
            response = api.get(f"{RISK}?{query}{page}")
            assert is_documented(response)
            items = response.json()["risk"] if page else [response.json()]
            assert [kinds_of(item) for item in items] == [kinds]


@pytest.mark.parametrize(
    ("query", "field", "there_are"),
    [
        ("method=historic", "method", "historical, normal"),
        ("method=historic&limit=5", "method", "historical, normal"),
        ("method=historic&version=v1", "method", "historical, normal"),
        ("method=normal&level=0.9", "level", "0.95, 0.99"),
        # Nothing of that time is measured: the filter is still a wrong one.
        ("level=0.975&as_of_to=2020-01-01T00:00:00Z", "level", "0.95, 0.99"),
    ],
)
def test_a_method_or_level_that_there_is_not_is_422_and_names_those_there_are(
    api: Api, hub: Hub, query: str, field: str, there_are: str
) -> None:
    post(api)
    measure(hub, 1)
    response = api.get(f"{RISK}?{query}")
    assert fields_of(response, 422) == [field]
    assert response.json()["detail"].endswith(f"there are {there_are}")


def test_a_walk_is_not_broken_off_where_a_method_began(api: Api, hub: Hub) -> None:
    for hour, kinds in ((1, KINDS[:1]), (2, KINDS), (3, KINDS[:1])):
        measure(hub, hour, kinds, version=str(hour), as_of=NOW + hour * HOUR)
    url, walked = f"{RISK}?method=normal&limit=2", []
    while url:
        response = api.get(url)
        walked += [kinds_of(item) for item in response.json()["risk"]]
        url = response.links.get("next", {}).get("url")
    assert walked == [[], KINDS[2:], []]


def test_the_next_link_leads_through_everything_once_and_keeps_the_question(
    api: Api, hub: Hub
) -> None:
    for hour in range(9):
        stage = "live" if hour == 3 else "paper"
        measure(hub, hour + 1, version=str(hour), as_of=NOW + hour * HOUR, stage=stage)
    asked = {
        "limit": "2",
        "stage": "paper",
        "method": "historical",
        "level": "0.99",
        "as_of_from": format_instant(NOW + HOUR),
        "as_of_to": format_instant(NOW + 6 * HOUR),
    }
    response, walked = api.get(RISK, params=asked), []
    while True:
        assert is_documented(response)
        walked += [item["version"] for item in response.json()["risk"]]
        url = response.links.get("next", {}).get("url")
        if url is None:
            break
        query = dict(httpx.URL(url).params)
        assert query.pop("cursor") == response.json()["next"]
        assert query == asked
        response = api.get(url)
    assert walked == ["6", "5", "4", "2", "1"]
    assert response.json()["next"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=%FF", "cursor"),
        ("cursor=2026-01-31T21:00:00Z", "cursor"),
        ("cursor=2026-01-31T21:00:00Z_-1", "cursor"),
        ("cursor=2026-01-31T21:00:00Z_9999999999999999999", "cursor"),
        ("cursor=yesterday_1", "cursor"),
        ("as_of_from=yesterday", "as_of_from"),
        ("as_of_to=2026-01-31", "as_of_to"),
        ("version=%00", "version"),
        ("stage=", "stage"),
        ("method=%00", "method"),
        ("level=", "level"),
        ("level=99", "level"),
        ("level=1.0", "level"),
        ("level=0.01", "level"),
        ("level=.99", "level"),
        (f"level=0.{'9' * 5_000}", "level"),
        ("actor=optimizer", "actor"),
        ("stage=paper&stage=live", "stage"),
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, hub: Hub, query: str, field: str
) -> None:
    measure(hub, 1)
    assert fields_of(api.get(f"{RISK}?{query}"), 422) == [field]


def test_a_world_that_can_not_be_is_422(api: Api) -> None:
    assert fields_of(api.get("/risk-hub/worlds/a%20b/risk"), 422) == ["world_id"]


def test_numbers_are_for_who_may_read(hub: Hub, settings: Settings) -> None:
    measure(hub, 1)
    tokens = tuple(
        TokenSpec(name=scope, secret=f"may {scope}", scopes=frozenset({scope})) for scope in Scope
    )
    with serving(create_app(settings.model_copy(update={"tokens": tokens}), hub)) as api:
        statuses = [
            api.get(RISK, headers={"Authorization": f"Bearer {token}"} if token else {}).status_code
            for token in ("may read", "may write", "wrong", "")
        ]
    assert statuses == [200, 403, 401, 401]
