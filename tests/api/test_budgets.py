"""The gate and the budgets over HTTP."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from answers import fields_of, problem_of, refuses_for_now
from asgi import Api, serving
from builders import NOW, Clock, wait_until
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from riskhub.auth import Scope, TokenSpec
from riskhub.errors import StoreUnavailable
from riskhub.governor.settings import GovernorSettings
from riskhub.hub import Hub
from riskhub.settings import Settings

SECOND = int(NOW.timestamp())
STREAM = "quantum:stream:budget.violation"


@pytest.fixture
def state(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def settings(settings: Settings, redis_url: str) -> Settings:
    return settings.model_copy(update={"redis_url": redis_url})


def write(state: redis.Redis, symbol: str = "BTCUSDT", /, **fields: Any) -> None:
    """A budget as the governor writes it."""
    hash_ = {
        "symbol": symbol,
        "budget_usd": 1_868.0,
        "stress_factor": 0.066,
        "equity_usd": 100_000.0,
        "portfolio_heat": 0.0,
        "cluster_stress": 0.0,
        "vol_regime": 0.33,
        "mode": "enforce",
        "timestamp": SECOND,
        "base_risk_pct": 0.02,
    }
    state.hset(f"quantum:portfolio:budget:{symbol}", mapping=hash_ | fields)


def check(api: Api, notional: Any, symbol: str = "BTCUSDT", **params: Any) -> dict[str, Any]:
    answer = api.post(
        "/budget/check", params={"symbol": symbol, "position_notional": notional} | params
    )
    assert answer.status_code == 200, answer.text
    decision: dict[str, Any] = answer.json()
    return decision


def counted(api: Api) -> dict[str, float]:
    """Every sample of the page, by name and label."""
    page = api.get("/metrics")
    assert page.status_code == 200
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


# -- the check ------------------------------------------------------------------------------------


def test_a_position_within_its_budget_is_allowed(api: Api, state: redis.Redis) -> None:
    write(state)
    assert check(api, 1_868) == {
        "symbol": "BTCUSDT",
        "position_notional": 1_868.0,
        "allowed": True,
        "would_block": False,
        "reason": "within_budget",
        "reduce_only": False,
        "budget_usd": 1_868.0,
        "over_budget": 0.0,
        "mode": "enforce",
        "age_sec": 0.0,
        "timestamp": SECOND,
    }
    assert state.xlen(STREAM) == 0


@pytest.mark.parametrize(("mode", "allowed"), [("enforce", False), ("shadow", True)])
@pytest.mark.parametrize("notional", [2_000.5, -2_000.5])
def test_one_over_it_is_stopped_or_only_told_and_told_it_is_in_stream_and_table(
    api: Api, hub: Hub, state: redis.Redis, mode: str, allowed: bool, notional: float
) -> None:
    write(state, mode=mode)
    decision = check(api, notional)
    assert (decision["allowed"], decision["would_block"]) == (allowed, True)
    assert (decision["reason"], decision["over_budget"]) == ("over_budget", 132.5)
    ((_, entry),) = state.xrange(STREAM)
    assert json.loads(entry["json"]) == {
        "event_type": "budget.violation",
        "symbol": "BTCUSDT",
        "position_notional": notional,
        "budget_usd": 1_868.0,
        "over_budget": 132.5,
        "mode": mode,
        "timestamp": SECOND,
    }
    assert hub.store.violations(limit=10) == [
        {
            "at": NOW,
            "symbol": "BTCUSDT",
            "position_notional": notional,
            "budget_usd": 1_868.0,
            "over_budget": 132.5,
            "mode": mode,
        }
    ]


def test_what_only_reduces_is_never_stopped(api: Api, hub: Hub, state: redis.Redis) -> None:
    write(state)
    decision = check(api, 1e9, reduce_only="true")
    assert (decision["allowed"], decision["would_block"]) == (True, False)
    assert decision["reason"] == "reduce_only"
    assert state.xlen(STREAM) == 0
    assert hub.store.violations(limit=1) == []


def test_budgets_fail_open_and_say_why(api: Api, state: redis.Redis, clock: Clock) -> None:
    assert check(api, 1e9)["reason"] == "no_budget"
    write(state)
    assert check(api, 1e9)["allowed"] is False
    clock.advance(59)
    assert check(api, 1e9)["allowed"] is False
    clock.advance(1)
    stale = check(api, 1e9)
    assert (stale["allowed"], stale["reason"], stale["age_sec"]) == (True, "budget_stale", 60.0)
    write(state, timestamp=SECOND * 1_000)
    assert check(api, 1e9)["reason"] == "budget_malformed"
    state.delete("quantum:portfolio:budget:BTCUSDT")
    state.set("quantum:portfolio:budget:BTCUSDT", "1868")
    assert check(api, 1e9)["reason"] == "budget_malformed"


def test_without_redis_it_fails_open(
    settings: Settings, hub: Hub, free_port: Callable[[], int]
) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    with serving(create_app(away, hub)) as api:
        decision = check(api, 1e9)
        assert (decision["allowed"], decision["reason"]) == (True, "redis_unavailable")
        assert decision["budget_usd"] is None
        assert "Redis" in refuses_for_now(api.get("/budget/BTCUSDT"))
        assert "Redis" in refuses_for_now(api.get("/budgets"))


@pytest.mark.parametrize(
    "notional", ["nan", "inf", "-inf", "1e16", "-1e16", "1e999", "1_000", "x", "", " 1", "0x1", "١"]
)
def test_a_notional_that_is_none_is_refused(api: Api, state: redis.Redis, notional: str) -> None:
    write(state)
    asked = {"symbol": "BTCUSDT", "position_notional": notional}
    assert fields_of(api.post("/budget/check", params=asked), 422) == ["position_notional"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"position_notional": "1"}, "symbol"),
        ({"symbol": "BTCUSDT"}, "position_notional"),
        ({"symbol": "", "position_notional": "1"}, "symbol"),
        ({"symbol": "A\nB", "position_notional": "1"}, "symbol"),
        ({"symbol": "A" * 129, "position_notional": "1"}, "symbol"),
        ({"symbol": "A", "position_notional": "1", "reduce_only": "perhaps"}, "reduce_only"),
        ({"symbol": "A", "position_notional": "1", "reduceonly": "true"}, "reduceonly"),
    ],
)
def test_a_check_that_is_none_is_refused(api: Api, params: dict[str, str], field: str) -> None:
    assert fields_of(api.post("/budget/check", params=params), 422) == [field]


def test_a_cluster_has_a_budget_to_be_held_against(api: Api, state: redis.Redis) -> None:
    write(state, "cluster:majors", symbol="majors")
    assert check(api, 5_000, symbol="cluster:majors")["allowed"] is False


def test_a_database_that_is_away_changes_no_answer_and_is_counted(
    api: Api,
    hub: Hub,
    state: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unavailable(_rows: Any) -> None:
        raise StoreUnavailable("gone")

    write(state)
    monkeypatch.setattr(hub.store, "add_violations", unavailable)
    assert check(api, 2_000)["allowed"] is False
    assert state.xlen(STREAM) == 1
    assert counted(api)["p28_violation_rows_lost_total"] == 1
    assert "the database did not take a violation" in caplog.text


# -- the budgets ----------------------------------------------------------------------------------


def test_a_budget_is_told_as_it_stands_in_redis(api: Api, state: redis.Redis, clock: Clock) -> None:
    write(state)
    clock.advance(61)
    assert api.get("/budget/BTCUSDT").json() == {
        "symbol": "BTCUSDT",
        "budget_usd": 1_868.0,
        "stress_factor": 0.066,
        "equity_usd": 100_000.0,
        "portfolio_heat": 0.0,
        "cluster_stress": 0.0,
        "vol_regime": 0.33,
        "mode": "enforce",
        "timestamp": SECOND,
        "base_risk_pct": 0.02,
        "age_sec": 61.0,
        "stale": True,
    }


def test_one_that_is_not_there_or_is_broken_is_told_apart(api: Api, state: redis.Redis) -> None:
    write(state, budget_usd="nan")
    assert problem_of(api.get("/budget/BTCUSDT"), 502)
    assert problem_of(api.get("/budget/NONE"), 404)
    assert fields_of(api.get("/budget/A%09B"), 422) == ["symbol"]
    assert fields_of(api.get("/budget/BTCUSDT?stage=x"), 422) == ["stage"]


def test_a_symbol_may_have_a_stroke(api: Api, state: redis.Redis) -> None:
    write(state, "BTC/USDT")
    assert api.get("/budget/BTC/USDT").json()["symbol"] == "BTC/USDT"
    assert check(api, 1, symbol="BTC/USDT")["reason"] == "within_budget"


def test_all_of_them_can_be_walked(api: Api, state: redis.Redis) -> None:
    symbols = [f"S{number:03d}" for number in range(120)]
    for symbol in symbols:
        write(state, symbol)
    write(state, "cluster:majors")
    write(state, "BAD", budget_usd="x")
    walked: list[str] = []
    url = "/budgets?limit=50"
    sizes = []
    while url:
        answer = api.get(url)
        found = [each["symbol"] for each in answer.json()["budgets"]]
        walked += found
        sizes.append(len(found))
        link = answer.headers.get("link", "")
        assert bool(link) == bool(answer.json()["next"])
        url = link[1 : link.index(">")] if link else ""
    assert walked == symbols
    assert sizes == [50, 50, 20]
    (cluster,) = api.get("/budgets?clusters=true").json()["budgets"]
    assert cluster["symbol"] == "cluster:majors"


# -- metrics --------------------------------------------------------------------------------------


def test_workers_count_together(settings: Settings, hub: Hub, state: redis.Redis) -> None:
    write(state)
    with serving(create_app(settings, hub)) as one, serving(create_app(settings, hub)) as other:
        for api, notional in ((one, 1), (one, 2_000), (other, 1), (other, 1), (other, 2_000)):
            check(api, notional)
        # What the other has counted is brought within a second; its own at the scrape.
        wait_until(lambda: counted(one)["p28_budget_allow_total"] == 3)
        assert counted(one)["p28_budget_blocks_total"] == 2
        assert counted(one)["p28_budget_violations_total"] == 2
        assert counted(other)["p28_budget_allow_total"] == 3
        assert counted(one)["p28_budget_value_usd[BTCUSDT]"] == 1_868.0
        assert counted(one)["p28_stress_factor[BTCUSDT]"] == 0.066
        assert counted(one)["p28_enforce_mode"] == 1


def test_without_redis_the_page_says_so_and_tells_the_rest(
    settings: Settings, hub: Hub, free_port: Callable[[], int]
) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    with serving(create_app(away, hub)) as api:
        check(api, 1)
        told = counted(api)
        assert told["riskhub_store_up"] == 1
        assert {name: value for name, value in told.items() if name.startswith("p28_")} == {
            "p28_redis_up": 0.0
        }


def test_a_redis_that_says_nothing_holds_the_page_up_for_a_moment_only(
    settings: Settings, hub: Hub
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        with serving(create_app(settings.model_copy(update={"redis_url": url}), hub)) as api:
            began = time.monotonic()
            assert counted(api)["p28_redis_up"] == 0
            assert time.monotonic() - began < 5


# -- who may, and the test mode -------------------------------------------------------------------


def test_readers_ask_and_writers_inject(settings: Settings, hub: Hub, state: redis.Redis) -> None:
    tokens = tuple(
        TokenSpec(name=scope, secret=f"the {scope} token", scopes=frozenset({scope}))
        for scope in Scope
    )
    testing = GovernorSettings(test_mode=True)
    guarded = settings.model_copy(update={"tokens": tokens, "governor": testing})
    write(state)
    asked = "/budget/check?symbol=BTCUSDT&position_notional=2000"
    with serving(create_app(guarded, hub)) as api:

        def statuses(scope: Scope | None) -> list[int]:
            bearing = {"Authorization": f"Bearer the {scope} token"} if scope else {}
            return [
                api.post(asked, headers=bearing).status_code,
                api.get("/budget/BTCUSDT", headers=bearing).status_code,
                api.get("/budgets", headers=bearing).status_code,
                api.post(
                    "/test/inject_portfolio_state", headers=bearing, json={"equity_usd": 1}
                ).status_code,
            ]

        assert statuses(None) == [401] * 4
        assert state.xlen(STREAM) == 0
        assert not state.exists("quantum:state:portfolio")
        assert statuses(Scope.READ) == [200, 200, 200, 403]
        assert statuses(Scope.WRITE) == [403, 403, 403, 200]


@pytest.fixture
def testing(settings: Settings, hub: Hub) -> Iterator[Api]:
    governor = GovernorSettings(test_mode=True)
    with serving(create_app(settings.model_copy(update={"governor": governor}), hub)) as api:
        yield api


def test_a_state_is_injected_only_in_test_mode(api: Api, state: redis.Redis) -> None:
    answer = api.post("/test/inject_portfolio_state", json={"equity_usd": 100_000})
    assert "P28_TEST_MODE" in problem_of(answer, 403)["detail"]
    assert not state.exists("quantum:state:portfolio")


def test_an_injected_state_is_what_its_producer_would_write(
    testing: Api, state: redis.Redis
) -> None:
    given = {"equity_usd": 100_000, "drawdown": 0.05, "timestamp": 1_769_557_383}
    assert testing.post("/test/inject_portfolio_state", json=given).status_code == 200
    assert state.hgetall("quantum:state:portfolio") == {
        "equity_usd": "100000",
        "drawdown": "0.05",
        "timestamp": "1769557383",
    }
    assert testing.post("/test/inject_portfolio_state", json={"equity_usd": 5.5}).is_success
    assert state.hgetall("quantum:state:portfolio") == {
        "equity_usd": "5.5",
        "drawdown": "0.0",
        "timestamp": str(SECOND),
    }


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ('{"equity_usd": NaN}', "body"),
        ('{"equity_usd": 0}', "equity_usd"),
        ('{"equity_usd": -1}', "equity_usd"),
        ('{"equity_usd": "1"}', "equity_usd"),
        ('{"equity_usd": true}', "equity_usd"),
        ("{}", "equity_usd"),
        ('{"equity_usd": 1, "drawdown": 2}', "drawdown"),
        ('{"equity_usd": 1, "timestamp": null}', "timestamp"),
        ('{"equity_usd": 1, "equity": 1}', "equity"),
    ],
)
def test_what_is_no_state_is_not_injected(
    testing: Api, state: redis.Redis, content: str, field: str
) -> None:
    answer = testing.post("/test/inject_portfolio_state", content=content)
    assert fields_of(answer, 422) == [field]
    assert not state.exists("quantum:state:portfolio")
