"""What is counted by many processes, in one hash."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from riskhub.governor import counters, published
from riskhub.governor.budget import SymbolBudget
from riskhub.governor.counters import Tally, add, counts_of_cycle, read_counts, stale_input
from riskhub.governor.metrics import MOST_SYMBOLS, exposition
from riskhub.governor.settings import GovernorSettings

NOW = 1_738_000_000.5


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with published.client_of(redis_url) as connected:
        yield connected


def budget(symbol: str = "BTCUSDT", **policies: str) -> SymbolBudget:
    fresh = dict.fromkeys(
        ("portfolio_state", "portfolio_heat", "cluster_stress", "vol_regime"), "fresh"
    )
    return SymbolBudget(
        symbol=symbol,
        budget_usd=1_868.0,
        stress_factor=0.066,
        equity_usd=100_000.0,
        portfolio_heat=0.0,
        cluster_stress=0.0,
        vol_regime=0.33,
        mode="shadow",
        timestamp=int(NOW),
        base_risk_pct=0.02,
        policies=fresh | policies,
    )


def write(client: redis.Redis, symbol: str, **fields: Any) -> None:
    hash_ = {
        "symbol": symbol,
        "budget_usd": 1_868.0,
        "stress_factor": 0.066,
        "mode": "shadow",
        "timestamp": int(NOW),
    }
    client.hset(f"quantum:portfolio:budget:{symbol}", mapping=hash_ | fields)


def samples(page: bytes) -> dict[str, float]:
    """Of a page, by name and labels as they are written."""
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


# --- what a cycle adds -----------------------------------------------------------------------


def test_a_cycle_of_fresh_inputs_counts_itself_and_its_budgets() -> None:
    budgets = [budget("A"), budget("B")]
    assert counts_of_cycle(budgets, portfolio_policy="fresh", symbols=2) == {
        counters.CYCLES: 1,
        counters.BUDGET_COMPUTED: 2,
    }


def test_each_budget_of_the_last_known_good_state_counts() -> None:
    budgets = [budget(name, portfolio_state="last_known_good") for name in "ABC"]
    assert counts_of_cycle(budgets, portfolio_policy="last_known_good", symbols=3) == {
        counters.CYCLES: 1,
        counters.BUDGET_COMPUTED: 3,
        counters.LKG_CACHE_USED: 3,
        stale_input("portfolio_state"): 3,
    }


def test_each_symbol_left_without_a_budget_counts() -> None:
    assert counts_of_cycle([], portfolio_policy="too_old", symbols=7) == {
        counters.CYCLES: 1,
        counters.PORTFOLIO_TOO_OLD: 7,
        stale_input("portfolio_state"): 7,
    }
    assert counts_of_cycle([], portfolio_policy="missing", symbols=7) == {
        counters.CYCLES: 1,
        stale_input("portfolio_state"): 7,
    }


def test_inputs_that_were_not_fresh_count_each_but_not_those_that_nobody_configured() -> None:
    budgets = [
        budget("A", portfolio_heat="not_configured", cluster_stress="missing"),
        budget("B", vol_regime="malformed", cluster_stress="held"),
    ]
    assert counts_of_cycle(budgets, portfolio_policy="fresh", symbols=2) == {
        counters.CYCLES: 1,
        counters.BUDGET_COMPUTED: 2,
        stale_input("cluster_stress"): 2,
        stale_input("vol_regime"): 1,
    }


# --- in Redis --------------------------------------------------------------------------------


def test_processes_add_to_one_another(client: redis.Redis) -> None:
    for counts in ({"p28_budget_allow_total": 2}, {"p28_budget_allow_total": 3, "x": 0}):
        with client.pipeline(transaction=True) as transaction:
            add(transaction, counts)
            transaction.execute()
    assert client.hgetall(counters.COUNTERS_KEY) == {"p28_budget_allow_total": "5"}


def test_a_tally_loses_nothing_between_threads() -> None:
    tally, brought = Tally(), Tally()
    done = threading.Event()

    def bring() -> None:
        while not done.is_set() or tally:
            for field, count in tally.take().items():
                brought.count(field, count)

    bringing = threading.Thread(target=bring)
    counting = [
        threading.Thread(target=lambda: [tally.count("a") for _ in range(5_000)]) for _ in range(4)
    ]
    for thread in (bringing, *counting):
        thread.start()
    for thread in counting:
        thread.join()
    done.set()
    bringing.join()
    assert brought.take() == {"a": 20_000}


def test_what_could_not_be_brought_is_kept_beside_what_came_since() -> None:
    tally = Tally()
    tally.count("a", 2)
    taken = tally.take()
    assert not tally
    tally.count("a")
    tally.give_back(taken)
    assert tally.take() == {"a": 3}


def test_counters_are_there_at_zero_and_strange_fields_are_left_out() -> None:
    told = {
        (name, value): count
        for name, value, count in read_counts(
            {
                "p28_budget_allow_total": "7",
                "p28_stale_input_total|portfolio_state": "4",
                "p28_stale_input_total": "9",
                "p28_budget_blocks_total|x": "9",
                "p28_budget_computed_total": "many",
                "somebody_elses_total": "9",
            }
        )
    }
    assert told["p28_budget_allow_total", None] == 7
    assert told["p28_stale_input_total", "portfolio_state"] == 4
    assert told["p28_stale_input_total", "vol_regime"] == 0
    assert told["p28_budget_computed_total", None] == 0
    assert sum(told.values()) == 11


# --- on the page -----------------------------------------------------------------------------


def test_the_page_has_every_metric_of_the_contract(client: redis.Redis) -> None:
    write(client, "BTCUSDT")
    client.hset(counters.COUNTERS_KEY, mapping={"p28_lkg_cache_used_total": 12})
    told = samples(exposition(client, GovernorSettings(), NOW))
    assert (
        told.items()
        >= {
            "p28_budget_computed_total": 0.0,
            "p28_lkg_cache_used_total": 12.0,
            "p28_portfolio_too_old_total": 0.0,
            "p28_stale_input_total[portfolio_state]": 0.0,
            "p28_enforce_mode": 0.0,
            "p28_budget_value_usd[BTCUSDT]": 1_868.0,
            "p28_stress_factor[BTCUSDT]": 0.066,
            "p28_budget_blocks_total": 0.0,
            "p28_budget_allow_total": 0.0,
            "p28_redis_write_fail_total": 0.0,
            "p28_redis_up": 1.0,
            "p28_budget_age_seconds": 0.5,
        }.items()
    )


def test_gauges_show_what_the_gate_goes_by(client: redis.Redis) -> None:
    write(client, "FRESH", mode="enforce")
    write(client, "STALE", timestamp=int(NOW) - 60)
    write(client, "BAD", budget_usd="nan")
    write(client, "cluster:majors")
    told = samples(exposition(client, GovernorSettings(), NOW))
    shown = [name for name in told if name.startswith("p28_budget_value_usd")]
    assert shown == ["p28_budget_value_usd[FRESH]"]
    assert told["p28_enforce_mode"] == 1.0


@pytest.mark.parametrize(("mode", "told"), [("shadow", 0.0), ("enforce", 1.0)])
def test_without_budgets_the_mode_is_that_of_the_settings(
    client: redis.Redis, mode: Any, told: float
) -> None:
    page = samples(exposition(client, GovernorSettings(mode=mode), NOW))
    assert page["p28_enforce_mode"] == told
    assert "p28_budget_age_seconds" not in page


def test_the_age_is_that_of_the_newest_also_when_all_are_stale(client: redis.Redis) -> None:
    write(client, "A", timestamp=int(NOW) - 200)
    write(client, "B", timestamp=int(NOW) - 100)
    assert samples(exposition(client, GovernorSettings(), NOW))["p28_budget_age_seconds"] == 100.5


def test_a_page_has_so_many_symbols_and_says_how_many_more_there_are(client: redis.Redis) -> None:
    for number in range(MOST_SYMBOLS + 5):
        write(client, f"S{number:04d}", budget_usd=500.0 + number)
    told = samples(exposition(client, GovernorSettings(), NOW))
    assert sum(name.startswith("p28_budget_value_usd[") for name in told) == MOST_SYMBOLS
    assert told["p28_budget_symbols_left_out"] == 5.0
    assert "p28_budget_value_usd[S0000]" in told
    assert f"p28_budget_value_usd[S{MOST_SYMBOLS:04d}]" not in told


def test_labels_are_escaped(client: redis.Redis) -> None:
    write(client, 'A"\\B')
    assert 'p28_budget_value_usd[A"\\B]' in samples(exposition(client, GovernorSettings(), NOW))
