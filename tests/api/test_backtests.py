"""How good a world's VaR was, as it is served: every test in numbers, and the picture of one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import httpx
import jsonschema
import pytest
from answers import fields_of
from asgi import Api, serving
from builders import WORLD
from stored import outcome, tail

from api import backtests as route
from api import openapi
from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.hub import Hub
from riskhub.settings import Settings

BACKTESTS = f"/risk-hub/worlds/{WORLD}/backtests"
PICTURE = f"{BACKTESTS}.svg"
FIRST = date(2024, 1, 1)
LADDER = {"0.95": 0.01, "0.975": 0.02, "0.99": 0.03}
CALM, BAD, ES = 0.005, 0.05, 0.04


def met(
    hub: Hub,
    exceeded: set[int],
    count: int = 250,
    *,
    methods: Mapping[str, float] = MappingProxyType({"historical": 1.0}),
    levels: tuple[str, ...] = tuple(LADDER),
    **row: Any,
) -> None:
    """Days of outcomes, one after the other, of which these lost `BAD`.

    `methods`: how many times the VaR and ES of the others each one forecast.
    """
    days = [FIRST + timedelta(number) for number in range(count)]
    outcomes = [
        outcome(
            number + 1, day, BAD if number in exceeded else CALM, **{"hindsight": number < 3} | row
        )
        for number, day in enumerate(days)
    ]
    tails = [
        tail(number + 1, level, day=day, method=method, var=times * LADDER[level], es=times * ES)
        for number, day in enumerate(days)
        for method, times in methods.items()
        for level in levels
    ]
    hub.store.write_days({"var_outcomes": outcomes, "risk_tails": tails}, days, replace=False)


def scattered(count: int) -> set[int]:
    return {20 * number for number in range(1, count + 1)}


def served(api: Api, query: str = "") -> dict[str, Any]:
    response = api.get(BACKTESTS + query)
    assert is_documented(response), response.text
    document: dict[str, Any] = response.json()
    return document


def is_documented(response: httpx.Response) -> bool:
    described = openapi.BACKTESTS[200]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(described).validate(response.json())
    return response.status_code == 200


# Basel 1996, table 2: 250 days at 99 %, the probability of so many exceedances or fewer.
@pytest.mark.parametrize(
    ("exceedances", "zone", "multiplier", "cumulative"),
    [(4, "green", 3.0, 0.8922), (5, "yellow", 3.4, 0.9588), (10, "red", 4.0, 0.9999)],
)
def test_the_traffic_light_is_that_of_basels_table(
    api: Api, hub: Hub, exceedances: int, zone: str, multiplier: float, cumulative: float
) -> None:
    met(hub, scattered(exceedances))
    (found,) = served(api)["backtests"]
    light = found["traffic_light"]
    assert (light["zone"], light["multiplier"]) == (zone, multiplier)
    assert light["cumulative_probability"] == pytest.approx(cumulative, abs=1e-4)
    assert (light["observations"], light["exceedances"]) == (250, exceedances)
    assert (light["yellow_from"], light["red_from"]) == (5, 10)
    assert found["windows"] == {"count": 1, "green": 0, "yellow": 0, "red": 0} | {zone: 1}


def test_every_test_is_served_with_what_it_was_made_from(api: Api, hub: Hub) -> None:
    met(hub, scattered(5))
    document = served(api)
    assert (document["world_id"], document["stage"], document["level"], document["window"]) == (
        *(WORLD, "backtest", "0.99", 250),
    )
    assert document["prices_digests"] == ["sha256:prices"]
    (found,) = document["backtests"]
    assert (found["method"], found["from"], found["to"]) == (
        "historical",
        "2024-01-01",
        "2024-09-06",
    )
    assert (found["observations"], found["exceedances"], found["expected"]) == (250, 5, 2.5)
    assert found["hindsight"] == 3
    # LR = 2 (5 log(5 / 2.5) + 245 log(245 / 247.5)), chi-square with one degree of freedom
    assert found["kupiec"]["statistic"] == pytest.approx(1.9568, abs=1e-4)
    assert found["kupiec"]["p_value"] == pytest.approx(0.1619, abs=1e-4)
    assert found["kupiec"]["reject"] is False
    christoffersen = found["christoffersen"]
    assert [christoffersen[name] for name in ("n00", "n01", "n10", "n11")] == [239, 5, 5, 0]
    assert christoffersen["after_exceedance"] == 0
    assert found["conditional_coverage"]["statistic"] == pytest.approx(
        found["kupiec"]["statistic"] + christoffersen["statistic"]
    )
    # Z1 = 1 - mean(L / ES), Z2 = 1 - sum(L / ES) / (n alpha)
    shortfall = found["acerbi_szekely"]
    assert shortfall["z1"]["statistic"] == pytest.approx(1 - BAD / ES)
    assert shortfall["z2"]["statistic"] == pytest.approx(1 - 5 * BAD / ES / 2.5)
    assert 0 < shortfall["z2"]["p_value"] < 0.2
    multinomial = found["multinomial"]
    assert multinomial["levels"] == ["0.95", "0.975", "0.99"]
    assert multinomial["counts"] == [245, 0, 0, 5]
    assert multinomial["expected"] == pytest.approx([237.5, 6.25, 3.75, 2.5])
    assert found["untested"] == []


def test_what_is_not_tested_says_why(api: Api, hub: Hub) -> None:
    met(hub, set(), levels=("0.99",))
    (found,) = served(api)["backtests"]
    assert found["multinomial"] is None
    assert found["acerbi_szekely"]["z1"]["statistic"] is None
    assert [reason.partition(":")[0] for reason in found["untested"]] == [
        *("christoffersen", "acerbi_szekely", "multinomial"),
    ]


def test_every_method_is_tested_on_its_own_forecasts(api: Api, hub: Hub) -> None:
    met(hub, scattered(2), methods={"historical": 1.0, "ewma": 2.0})  # 0.06 is beyond `BAD`
    exceeded = {each["method"]: each["exceedances"] for each in served(api)["backtests"]}
    assert exceeded == {"ewma": 0, "historical": 2}
    (only,) = served(api, "?method=historical")["backtests"]
    assert only["method"] == "historical"
    assert served(api, "?method=normal")["backtests"] == []


def test_stage_level_days_and_window_choose_the_forecasts(api: Api, hub: Hub) -> None:
    met(hub, {10, 100, 200})
    (found,) = served(api, "?from=2024-01-11&to=2024-07-19&window=50")["backtests"]
    assert (found["from"], found["to"]) == ("2024-01-11", "2024-07-19")
    assert (found["observations"], found["exceedances"]) == (191, 3)
    assert (found["traffic_light"]["observations"], found["windows"]["count"]) == (50, 142)
    assert found["traffic_light"]["multiplier"] is None
    (lower,) = served(api, "?level=0.9500")["backtests"]
    assert lower["expected"] == 12.5
    assert served(api, "?stage=live")["backtests"] == []
    assert served(api, "?from=2024-07-01&to=2024-01-01")["backtests"] == []
    (short,) = served(api, "?to=2024-01-09")["backtests"]
    assert short["windows"] == {"count": 0, "green": None, "yellow": None, "red": None}


def test_the_digest_is_another_when_a_forecast_or_an_outcome_is(api: Api, hub: Hub) -> None:
    def digest() -> str:
        (found,) = served(api)["backtests"]
        return str(found["outcomes_digest"])

    met(hub, scattered(5))
    before = digest()
    assert digest() == before
    met(hub, scattered(6))
    other_loss = digest()
    met(hub, scattered(5), levels=("0.99",))
    assert len({before, other_loss, digest()}) == 3


# -- the picture ----------------------------------------------------------------------------------


def texts_of(picture: httpx.Response) -> list[str]:
    root = ElementTree.fromstring(picture.content)  # noqa: S314 - drawn here
    return [text.strip() for text in root.itertext() if text.strip()]


def test_the_picture_shows_the_world_the_method_and_how_often_it_exceeded(
    api: Api, hub: Hub
) -> None:
    met(hub, scattered(5))
    picture = api.get(f"{PICTURE}?method=historical")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
    texts = texts_of(picture)
    assert any(WORLD in text and "historical" in text for text in texts)
    assert "exceeded on 5 of 250 days" in texts
    some = texts_of(api.get(f"{PICTURE}?method=historical&to=2024-02-29"))
    assert "exceeded on 2 of 60 days" in some


def test_a_picture_is_drawn_again_only_when_it_shows_something_else(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = route.backtest_svg

    def note(*args: Any, **kwargs: Any) -> bytes:
        drawn.append(kwargs["title"])
        return draw(*args, **kwargs)

    monkeypatch.setattr(route, "backtest_svg", note)
    met(hub, scattered(5))
    url = f"{PICTURE}?method=historical"
    first = api.get(url)
    tag = first.headers["etag"]
    again = api.get(url, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert len(drawn) == 1
    assert api.get(url).content == first.content
    assert api.get(f"{url}&window=100", headers={"If-None-Match": tag}).status_code == 200
    met(hub, scattered(6))
    other = api.get(url, headers={"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag


def test_without_outcomes_the_picture_says_so(api: Api) -> None:
    picture = api.get(f"{PICTURE}?method=normal")
    assert picture.status_code == 200
    assert "no outcomes yet" in texts_of(picture)


@pytest.mark.parametrize("stage", [r"$\frac$", "<script>alert(1)</script>", "a&b\"'"])
def test_a_name_is_shown_as_it_is(api: Api, hub: Hub, stage: str) -> None:
    met(hub, set(), 3, stage=stage)
    picture = api.get(PICTURE, params={"method": "historical", "stage": stage})
    assert picture.status_code == 200
    assert f"{WORLD}, {stage}: historical VaR" in texts_of(picture)
    assert b"<script" not in picture.content


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [BACKTESTS, PICTURE])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("method=historic", "method"),
        ("method=", "method"),
        ("level=0.9", "level"),
        ("level=99", "level"),
        ("stage=%00", "stage"),
        ("from=yesterday", "from"),
        ("from=2024-W05-6", "from"),
        ("from=2024-02-30", "from"),
        ("to=20240131", "to"),
        ("window=0", "window"),
        ("window=2501", "window"),
        ("limit=5", "limit"),
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, path: str, query: str, field: str
) -> None:
    method = "" if field == "method" else "&method=normal"
    assert fields_of(api.get(f"{path}?{query}{method}"), 422) == [field]


def test_a_method_or_level_that_there_is_not_is_told_those_there_are(api: Api) -> None:
    refused = api.get(f"{BACKTESTS}?method=historic")
    assert "there are historical, normal, cornish_fisher" in refused.json()["detail"]
    refused = api.get(f"{BACKTESTS}?level=0.9")
    assert refused.json()["detail"].endswith("there are 0.95, 0.975, 0.99")
    assert fields_of(api.get(PICTURE), 422) == ["method"]


@contextmanager
def guarded(hub: Hub, settings: Settings) -> Iterator[Api]:
    tokens = tuple(
        TokenSpec(name=scope, secret=f"may {scope}", scopes=frozenset({scope})) for scope in Scope
    )
    with serving(create_app(settings.model_copy(update={"tokens": tokens}), hub)) as api:
        yield api


@pytest.mark.parametrize("url", [BACKTESTS, f"{PICTURE}?method=normal"])
def test_backtests_are_for_who_may_read(hub: Hub, settings: Settings, url: str) -> None:
    with guarded(hub, settings) as api:
        statuses = [
            api.get(url, headers={"Authorization": f"Bearer {token}"}).status_code
            for token in ("may read", "may write", "wrong")
        ]
    assert statuses == [200, 403, 401]
