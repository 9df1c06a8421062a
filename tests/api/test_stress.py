"""A world under stress, as served: the results, the producer's own, and the reverse stress."""

from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from answers import fields_of, post, problem_of
from asgi import Api, serving
from builders import NOW, WORLD
from stored import DAY, STRESS_NUMBERS, stress_result, stressed, verdict

from api import openapi
from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import format_instant

STRESS = f"/risk-hub/worlds/{WORLD}/stress"
HOUR = timedelta(hours=1)
BOOK = "sha256:book"
# Not in alphabetical order: the book has one of its own.
SCENARIOS = {
    "lehman": ("historical", "Lehman, the month after"),
    "covid": ("historical", "Covid, 2020"),
    "vol_double": ("covariance", "Volatility times two"),
}
LOST = {"pnl": -0.25, "worst": -0.375, "max_drawdown": 0.5, "ruined": False}


def results_of(position: int) -> list[dict[str, Any]]:
    return [
        stress_result(position, "covid", unavailable="no prices of BAC in 2020"),
        stress_result(position, "lehman", **LOST),
        stress_result(position, "vol_double", var=0.0625, es=0.125),
        stress_result(position, "2008", "producer", measures={"pnl": -0.38, "days": 21}),
    ]


def stress(
    hub: Hub, position: int, results: list[dict[str, Any]] | None = None, **row: Any
) -> dict[str, Any]:
    held = stressed(position, **row)
    book = [
        {"scenario": name, "place": place, "kind": kind, "label": label, "definition": {}}
        for place, (name, (kind, label)) in enumerate(SCENARIOS.items())
    ]
    hub.store.add_scenario_book(BOOK, book)
    rows = results_of(position) if results is None else results
    hub.store.write_days({"snapshot_stress": [held], "stress_results": rows}, [DAY], replace=False)
    return held


def is_documented(response: httpx.Response) -> bool:
    described = openapi.STRESS[200]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(described).validate(response.json())
    return response.status_code == 200


def names_of(item: dict[str, Any]) -> list[str]:
    return [each["scenario"] for each in item["results"]]


def test_the_newest_stress_comes_in_the_order_of_its_book_then_the_producers_own(
    api: Api, hub: Hub
) -> None:
    stress(hub, 1, as_of=NOW - HOUR)
    held = stress(hub, 2)
    response = api.get(STRESS)
    assert is_documented(response)
    item = response.json()
    reverse = {name: held[name] for name in ("loss_limit", "against", "market")}
    named = {name: held[name] for name in held.keys() - {"day", *reverse}}
    assert item == named | {
        "as_of": format_instant(NOW),
        "age_seconds": 0,
        "reverse": reverse,
        "results": item["results"],
    }
    assert names_of(item) == ["lehman", "covid", "vol_double", "2008"]
    lehman, covid, doubled, own = item["results"]
    known = {"origin": "riskhub", **dict.fromkeys(STRESS_NUMBERS)}
    assert lehman == known | LOST | {
        "scenario": "lehman",
        "kind": "historical",
        "label": "Lehman, the month after",
    }
    assert (doubled["kind"], doubled["pnl"], doubled["var"], doubled["es"]) == (
        *("covariance", None, 0.0625, 0.125),
    )
    assert (own["origin"], own["kind"], own["label"]) == ("producer", None, None)
    assert own["measures"] == {"pnl": -0.38, "days": 21}
    assert own["pnl"] is None  # a producer's number of that name is not ours
    assert covid["unavailable"] == "no prices of BAC in 2020"


def test_a_scenario_that_cannot_be_had_says_why_and_has_no_number(api: Api, hub: Hub) -> None:
    stress(hub, 1)
    response = api.get(f"{STRESS}?scenario=covid")
    assert is_documented(response)
    (covid,) = response.json()["results"]
    assert covid["unavailable"] == "no prices of BAC in 2020"
    numbers = ("pnl", "worst", "max_drawdown", "ruined", "var", "es", "measures")
    assert [covid[name] for name in numbers] == [None] * len(numbers)


def test_a_limit_that_no_shock_loses_is_null(api: Api, hub: Hub) -> None:
    stress(hub, 1, against=None, market=None)
    response = api.get(STRESS)
    assert is_documented(response)
    assert response.json()["reverse"] == {"loss_limit": 0.25, "against": None, "market": None}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("scenario=lehman", ["lehman"]),
        ("origin=producer", ["2008"]),
        ("origin=riskhub", ["lehman", "covid", "vol_double"]),
        ("scenario=2008&origin=producer", ["2008"]),
        ("scenario=2008&origin=riskhub", []),
    ],
)
@pytest.mark.parametrize("page", ["", "&limit=1"])
def test_scenario_and_origin_choose_among_the_results(
    api: Api, hub: Hub, query: str, names: list[str], page: str
) -> None:
    stress(hub, 1)
    response = api.get(f"{STRESS}?{query}{page}")
    assert is_documented(response)
    items = response.json()["stress"] if page else [response.json()]
    assert [names_of(item) for item in items] == [names]


def test_a_scenario_that_there_is_not_is_422_and_names_those_there_are(api: Api, hub: Hub) -> None:
    post(api)
    stress(hub, 1)
    queries = ("scenario=lehmann", "scenario=lehmann&limit=5", "scenario=lehmann&version=v1")
    for query in (*queries, "scenario=lehmann&origin=producer"):
        response = api.get(f"{STRESS}?{query}")
        assert fields_of(response, 422) == ["scenario"]
        assert response.json()["detail"].endswith("there are 2008, covid, lehman, vol_double")


def test_a_scenario_of_an_older_snapshot_is_no_misspelt_one(api: Api, hub: Hub) -> None:
    stress(hub, 1, [stress_result(1, "gulf", **LOST)], as_of=NOW - 2 * HOUR)
    stress(hub, 2, as_of=NOW - HOUR)
    response = api.get(f"{STRESS}?scenario=gulf&limit=2")
    assert is_documented(response)
    assert [names_of(item) for item in response.json()["stress"]] == [[], ["gulf"]]


def test_the_next_link_leads_through_everything_once_and_keeps_the_question(
    api: Api, hub: Hub
) -> None:
    for number in range(1, 8):
        stage = "live" if number == 4 else "paper"
        stress(hub, number, version=str(number), as_of=NOW + number * HOUR, stage=stage)
    asked = {
        "limit": "2",
        "stage": "paper",
        "scenario": "lehman",
        "as_of_from": format_instant(NOW + 2 * HOUR),
        "as_of_to": format_instant(NOW + 6 * HOUR),
    }
    response, walked = api.get(STRESS, params=asked), []
    while True:
        assert is_documented(response)
        walked += [item["version"] for item in response.json()["stress"]]
        url = response.links.get("next", {}).get("url")
        if url is None:
            break
        query = dict(httpx.URL(url).params)
        assert query.pop("cursor") == response.json()["next"]
        assert query == asked
        response = api.get(url)
    assert walked == ["6", "5", "3", "2"]


def test_where_there_is_none_it_is_404_and_the_page_empty(api: Api, hub: Hub) -> None:
    post(api)
    for query in ("", "?version=v1", "?stage=live", "?scenario=lehman"):
        assert WORLD in problem_of(api.get(STRESS + query), 404)["detail"]
    page = api.get(f"{STRESS}?limit=10&scenario=lehman")
    assert is_documented(page)
    assert page.json() == {"stress": [], "next": None}
    rejected = verdict(1, accepted=False, reasons=["weights sum to 0.9"])
    hub.store.write_days({"validated_snapshots": [rejected]}, [DAY], replace=True)
    assert "weights sum to 0.9" in problem_of(api.get(f"{STRESS}?version=v1"), 404)["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("origin=us", "origin"),
        ("origin=", "origin"),
        ("scenario=", "scenario"),
        ("scenario=%00", "scenario"),
        (f"scenario={'x' * 257}", "scenario"),
        ("method=normal", "method"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("as_of_from=yesterday", "as_of_from"),
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, hub: Hub, query: str, field: str
) -> None:
    stress(hub, 1)
    assert fields_of(api.get(f"{STRESS}?{query}"), 422) == [field]


def test_stress_is_for_who_may_read(hub: Hub, settings: Settings) -> None:
    stress(hub, 1)
    tokens = tuple(
        TokenSpec(name=scope, secret=f"may {scope}", scopes=frozenset({scope})) for scope in Scope
    )
    with serving(create_app(settings.model_copy(update={"tokens": tokens}), hub)) as api:
        statuses = [
            api.get(STRESS, headers={"Authorization": f"Bearer {token}"}).status_code
            for token in ("may read", "may write", "wrong")
        ]
    assert statuses == [200, 403, 401]
