"""`riskhub budget`, as a person types it."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from databases import migrate
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.governor.lease import WRITER_KEY
from riskhub.governor.memory import Known, written
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine

Run = Callable[..., Result]
FRESH = dict.fromkeys(
    ("portfolio_state", "portfolio_heat", "cluster_stress", "vol_regime"), "fresh"
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str) -> Run:
    """Types a command, on a wide terminal."""
    forget_settings(monkeypatch)
    monkeypatch.setenv("RISKHUB_REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    return lambda *words: CliRunner().invoke(app, ["budget", *words])


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    store = Store(create_engine(load_settings().effective_database_url))
    migrate(store.engine)
    yield store
    store.close()


@pytest.fixture
def state(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def write(state: redis.Redis, symbol: str = "BTCUSDT", /, **fields: Any) -> None:
    """A budget as the governor writes it: the example of the issue, unless told otherwise."""
    hash_ = {
        "symbol": symbol,
        "budget_usd": 1_868.0,
        "stress_factor": 0.066,
        "equity_usd": 100_000.0,
        "portfolio_heat": 0.0,
        "cluster_stress": 0.0,
        "vol_regime": 0.33,
        "mode": "shadow",
        "timestamp": int(time.time()),
        "base_risk_pct": 0.02,
    }
    state.hset(f"quantum:portfolio:budget:{symbol}", mapping=hash_ | fields)


def put_on_record(
    store: Store, *, ago: float = 0.0, reason: str | None = None, **budget: Any
) -> None:
    """A cycle of the history, and a receipt of it unless it had a reason for none."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    cycle = {
        "computed_at": at,
        "writer": "governor on host",
        "no_budget_reason": reason,
        "symbols": 0 if reason else 1,
        "complete": True,
        "equity_usd": 100_000.0,
        "portfolio_policy": "fresh",
        "portfolio_age_sec": 1.0,
        "heat": 0.0,
        "heat_policy": "fresh",
        "heat_age_sec": None,
        "mode": "shadow",
        "formula_version": "p28/2",
    }
    row = {
        "computed_at": at,
        "symbol": "BTCUSDT",
        "budget_usd": 1_868.0,
        "stress_factor": 0.066,
        "equity_usd": 100_000.0,
        "portfolio_heat": 0.0,
        "cluster_stress": 0.0,
        "vol_regime": 0.33,
        "base_risk_pct": 0.02,
        "mode": "shadow",
        "policies": FRESH,
        "formula_version": "p28/2",
        "haircut": 0.0,
        "portfolio_age_sec": 1.0,
        "share": None,
        "ages": {"portfolio_state": 1.0},
    } | budget
    store.add_cycle(cycle, [] if reason else [row])


def explained(run: Run, symbol: str = "BTCUSDT") -> dict[str, Any]:
    result = run("explain", symbol, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


# -- explain --------------------------------------------------------------------------------------


def test_it_shows_the_formula_with_its_numbers_and_who_wrote_them(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state)
    put_on_record(store)
    state.set(WRITER_KEY, "governor on host")

    told = run("explain", "BTCUSDT").output

    for text in (
        "BTCUSDT may risk 1,868.00 USD (shadow,", "written by governor on host",
        "stress = 0.4 × 0 heat + 0.4 × 0 cluster + 0.2 × 0.33 vol = 0.066",
        "budget = 100,000.00 × 0.02 × (1 − 0.066) = 1,868.00",
        "portfolio state", "100,000.00", "fresh", "as it was read", "Shadow mode",
    ):  # fmt: skip
        assert text in told
    for text in ("at least", "at most", "haircut", "but the", "Nobody has the lease"):
        assert text not in told


def test_it_says_what_would_change_it(run: Run, store: Store, state: redis.Redis) -> None:
    write(state)
    put_on_record(store)
    changes = {each["what"]: each["budget_usd"] for each in explained(run)["changes"]}
    assert changes == {
        "with an equity 10 % lower": pytest.approx(1_681.2),
        "with an equity 10 % higher": pytest.approx(2_054.8),
        "with the regime LOW_VOL": 2_000.0,
        "with a portfolio heat of 1": pytest.approx(1_068.0),
        "with a cluster stress of 1": pytest.approx(1_068.0),
        "with the regime EXTREME_VOL": 1_600.0,
    }
    told = run("explain", "BTCUSDT").output
    assert "+132.00" in told
    assert "-800.00" in told


@pytest.mark.parametrize(
    ("equity", "usd", "bound", "told"),
    [
        (10_000.0, 500.0, "min_usd", "at least 500.00"),
        (1e7, 10_000.0, "max_usd", "at most 10,000.00"),
    ],
)
def test_a_bound_that_holds_is_named(
    run: Run,
    store: Store,
    state: redis.Redis,
    equity: float,
    usd: float,
    bound: str,
    told: str,
) -> None:
    write(state, equity_usd=equity, budget_usd=usd)
    put_on_record(store, equity_usd=equity, budget_usd=usd)
    found = explained(run)
    assert found["bound"] == bound
    assert found["unbounded_usd"] == pytest.approx(equity * 0.02 * 0.934)
    assert found["differs"] is None
    assert told in run("explain", "BTCUSDT").output


def test_policies_ages_haircut_and_share_come_with_it(
    run: Run, store: Store, state: redis.Redis
) -> None:
    now = time.time()
    write(state, budget_usd=1_401.0, cluster_stress=0.0)
    policies = FRESH | {
        "portfolio_state": "last_known_good",
        "cluster_stress": "missing",
        "vol_regime": "held",
    }
    used = {"portfolio_state": 57.0, "portfolio_heat": None, "vol_regime": 298.0}
    put_on_record(store, policies=policies, ages=used, haircut=0.25, share=0.4, budget_usd=1_401.0)
    for name, ago in (("portfolio", 60), ("regime:BTCUSDT", 300)):
        extra = {"timestamp": now} if name == "portfolio" else {}
        state.hset("riskhub:governor:known", name, written(Known(0.33, now - ago, extra=extra)))

    found = explained(run)

    assert {term["name"]: term["policy"] for term in found["terms"]} == policies
    ages = {term["name"]: term["age_sec"] for term in found["terms"]}
    assert ages["portfolio_state"] == pytest.approx(60, abs=20)
    assert ages["vol_regime"] == pytest.approx(300, abs=20)
    assert ages["portfolio_heat"] is ages["cluster_stress"] is None
    assert {term["name"]: term["used_age_sec"] for term in found["terms"]} == {
        **used,
        "cluster_stress": None,
    }
    assert (found["haircut"], found["share"], found["differs"]) == (0.25, 0.4, None)
    changes = {each["what"]: each["budget_usd"] for each in found["changes"]}
    assert changes["without the haircut"] == 1_868.0

    told = run("explain", "BTCUSDT").output
    for text in (
        "× (1 − 0.25 haircut) = 1,401.00", "40.0% of the expected shortfall",
        "57 s", "298 s",
        "the last one that was fresh stands in for it", "not there, and never known",
        "Unless a fresh portfolio state comes, there are no budgets after 8",
        "The vol regime is lost",
    ):  # fmt: skip
        assert text in told


def test_numbers_that_do_not_give_the_budget_are_told(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state, budget_usd=1_500.0)
    put_on_record(store)
    found = explained(run)
    assert "1,868.00" in found["differs"]
    assert found["changes"] == []
    assert "not those of the writer" in run("explain", "BTCUSDT").output


def test_haircuts_have_their_inputs_beside_the_others(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state, budget_usd=1_401.0)
    policies = FRESH | {"drawdown": "fresh", "contribution": "held"}
    put_on_record(store, policies=policies, haircut=0.25, share=0.4, budget_usd=1_401.0)
    state.hset("riskhub:governor:known", "drawdown", written(Known(0.1, time.time())))
    terms = {term["name"]: term for term in explained(run)["terms"]}
    assert (terms["drawdown"]["value"], terms["drawdown"]["policy"]) == (0.1, "fresh")
    assert (terms["contribution"]["value"], terms["contribution"]["policy"]) == (0.4, "held")


def test_a_cluster_is_explained_as_far_as_its_hash_goes(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state, "cluster:majors")
    assert explained(run, "cluster:majors")["differs"] is None
    write(state, "cluster:majors", budget_usd=1_401.0)
    assert "no receipt tells of" in explained(run, "cluster:majors")["differs"]


def test_a_receipt_that_is_too_old_tells_nothing(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state)
    put_on_record(store, ago=600, haircut=0.5)
    found = explained(run)
    assert {term["policy"] for term in found["terms"]} == {None}
    assert (found["haircut"], found["wrote"]) == (None, None)
    assert "too long to tell" in run("explain", "BTCUSDT").output


def test_a_stale_budget_is_said_to_be_no_hindrance(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state, timestamp=int(time.time()) - 100)
    put_on_record(store, ago=100)
    assert explained(run)["usable"] is False
    told = run("explain", "BTCUSDT").output
    assert "fail-open" in told
    assert "no governor writes budgets now" in told


def test_a_hash_that_does_not_say_what_it_was_made_of_is_shown_as_it_is(
    run: Run, store: Store, state: redis.Redis
) -> None:
    state.hset(
        "quantum:portfolio:budget:BTCUSDT",
        mapping={"budget_usd": 700, "mode": "shadow", "timestamp": int(time.time())},
    )
    told = run("explain", "BTCUSDT").output
    assert "700.00 USD" in told
    assert "does not say" in told
    assert explained(run)["stress"] is None


def test_a_receipt_of_before_there_were_ages_tells_the_rest(
    run: Run, store: Store, state: redis.Redis
) -> None:
    write(state)
    put_on_record(store, ages=None)
    terms = explained(run)["terms"]
    assert {(term["policy"], term["used_age_sec"]) for term in terms} == {("fresh", None)}


def test_without_a_history_the_rest_is_told(run: Run, state: redis.Redis) -> None:
    write(state)
    result = run("explain", "BTCUSDT")
    assert result.exit_code == 0
    assert "1,868.00" in result.stdout
    assert "the history can't be read" in result.stderr


# -- why there is none ----------------------------------------------------------------------------


def none_because(run: Run, symbol: str = "BTCUSDT") -> str:
    found = explained(run, symbol)
    assert (found["budget"], found["usable"]) == (None, False)
    assert "fail-open" in run("explain", symbol).output
    why: str = found["why_none"]
    assert why in run("explain", symbol).output
    return why


def test_without_a_cycle_it_says_that_no_governor_ran(run: Run, store: Store) -> None:
    assert "no cycle of a governor" in none_because(run)


def test_the_reason_of_the_newest_cycle_is_the_reason(run: Run, store: Store) -> None:
    put_on_record(store, ago=60)
    put_on_record(store, reason="portfolio_too_old")
    why = none_because(run)
    assert "portfolio_too_old" in why
    assert "last fresh too long ago" in why


def test_a_symbol_without_a_position_has_none(run: Run, store: Store, state: redis.Redis) -> None:
    put_on_record(store)
    assert "quantum:position:snapshot:ETHUSDT" in none_because(run, "ETHUSDT")
    state.hset("quantum:state:positions:ETHUSDT", "position_amt", "1")
    assert "nobody writes budgets now" in none_because(run, "ETHUSDT")
    state.set(WRITER_KEY, "governor on host")
    assert "has not seen yet" in none_because(run, "ETHUSDT")


def test_a_hash_that_is_no_budget_is_none(run: Run, store: Store, state: redis.Redis) -> None:
    write(state, budget_usd="nan")
    assert "malformed" in none_because(run)
    state.delete("quantum:portfolio:budget:BTCUSDT")
    state.set("quantum:portfolio:budget:BTCUSDT", "1")
    assert "malformed" in none_because(run)


def test_without_redis_it_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setenv("RISKHUB_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    for words in (("explain", "BTCUSDT"), ("list",)):
        result = run(*words)
        assert result.exit_code == 1
        assert "can't be read from Redis" in result.stderr


# -- list -----------------------------------------------------------------------------------------


def test_all_budgets_are_listed_by_symbol(run: Run, state: redis.Redis) -> None:
    write(state, "ETH[x]")
    write(state, "BTCUSDT", timestamp=int(time.time()) - 100, mode="enforce")
    write(state, "cluster:majors")

    rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [(row["symbol"], row["stale"], row["mode"]) for row in rows] == [
        ("BTCUSDT", True, "enforce"),
        ("ETH[x]", False, "shadow"),
    ]
    assert rows[1]["budget_usd"] == 1_868.0
    assert rows[1]["stress_factor"] == 0.066
    told = run("list").output
    for text in ("ETH[x]", "1,868.00", "0.066", "stale", "enforce"):
        assert text in told
    assert "majors" not in told
    assert "cluster:majors" in run("list", "--clusters").output


def test_no_budgets_are_told_in_words(run: Run) -> None:
    assert "There are no budgets" in run("list").output
    assert run("list", "--json").stdout == ""
