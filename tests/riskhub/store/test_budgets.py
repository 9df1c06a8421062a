"""The governor's history: cycles with their budgets, and the violations of the gate."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from builders import NOW
from databases import migrate

import riskhub.store
from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.tables import symbol_budgets

LATER = NOW + timedelta(seconds=10)


def cycle(computed_at: datetime = NOW, **row: Any) -> dict[str, Any]:
    return {
        "computed_at": computed_at,
        "writer": "governor on host, process 7 (0a)",
        "no_budget_reason": None,
        "symbols": 2,
        "complete": True,
        "equity_usd": 100_000.0,
        "portfolio_policy": "last_known_good",
        "portfolio_age_sec": 45.5,
        "heat": 0.25,
        "heat_policy": "held",
        "heat_age_sec": 12.5,
        "mode": "shadow",
        "formula_version": "p28/1",
    } | row


def budget(symbol: str, computed_at: datetime = NOW, **row: Any) -> dict[str, Any]:
    numbers = ["stress_factor", "portfolio_heat", "cluster_stress", "vol_regime", "base_risk_pct"]
    return {
        "computed_at": computed_at,
        "symbol": symbol,
        "budget_usd": 1000.0,
        "equity_usd": 100_000.0,
        **dict.fromkeys(numbers, 0.25),
        "mode": "shadow",
        "policies": {"portfolio_state": "last_known_good"},
        "formula_version": "p28/1",
        "haircut": 0.125,
        "portfolio_age_sec": 45.5,
        "share": None,
        "ages": {"portfolio_state": 45.5, "portfolio_heat": None},
    } | row


def violation(symbol: str, at: datetime = NOW, **row: Any) -> dict[str, Any]:
    return {
        "at": at,
        "symbol": symbol,
        "position_notional": -2_500.0,
        "budget_usd": 1_868.0,
        "over_budget": 632.0,
        "mode": "enforce",
    } | row


def test_nothing_was_computed_yet(store: Store) -> None:
    assert store.newest_cycle() is None
    assert store.newest_budgets() == store.budget_cycles(limit=9) == []
    assert store.budget_history("BTCUSDT", limit=9) == store.violations(limit=9) == []


def test_the_newest_cycle_is_read_with_its_budgets_by_symbol(store: Store) -> None:
    newest = [budget("ETHUSDT", LATER), budget("BTCUSDT", LATER, share=0.75)]
    store.add_cycle(cycle(LATER), newest)
    store.add_cycle(cycle(), [budget("BTCUSDT"), budget("SOLUSDT")])

    found = store.newest_cycle()

    assert found is not None
    assert found.cycle == cycle(LATER)
    assert list(found.budgets) == store.newest_budgets() == newest[::-1]


def test_a_cycle_without_budgets_is_the_newest_all_the_same(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    none = cycle(
        LATER, no_budget_reason="portfolio_too_old", symbols=0, equity_usd=None,
        portfolio_policy="too_old", portfolio_age_sec=901.0, heat=None, heat_policy=None,
        heat_age_sec=None,
    )  # fmt: skip
    store.add_cycle(none, [])

    found = store.newest_cycle()

    assert found is not None
    assert (found.cycle, found.budgets) == (none, ())
    assert store.newest_budgets() == []


def test_what_changed_between_whole_cycles_is_history_and_not_the_newest_cycle(
    store: Store,
) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT"), budget("ETHUSDT")])
    store.add_cycle(cycle(LATER, complete=False), [budget("ETHUSDT", LATER, budget_usd=500.0)])

    assert [row["symbol"] for row in store.newest_budgets()] == ["BTCUSDT", "ETHUSDT"]
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == [LATER, NOW]
    assert store.budget_cycles(limit=1) == [cycle(LATER, complete=False)]
    history = store.budget_history("ETHUSDT", limit=9)
    assert [row["budget_usd"] for row in history] == [500.0, 1000.0]
    of_its_cycle = {"writer": "governor on host, process 7 (0a)", "heat_policy": "held"}
    assert history[1] == budget("ETHUSDT") | of_its_cycle
    assert len(store.budget_history("ETHUSDT", limit=1)) == 1


def test_old_cycles_are_forgotten_with_their_budgets_and_violations_stay(store: Store) -> None:
    first, changed, last = NOW, NOW + timedelta(seconds=5), LATER
    store.add_cycle(cycle(first), [budget("BTCUSDT"), budget("ETHUSDT")])
    store.add_cycle(cycle(changed, complete=False), [budget("ETHUSDT", changed)])
    store.add_cycle(cycle(last), [budget("BTCUSDT", last)])
    store.add_violations([violation("BTCUSDT")])

    assert store.forget_budgets(first) == (0, 0)
    assert store.forget_budgets(changed) == (1, 2)
    assert [row["computed_at"] for row in store.budget_history("ETHUSDT", limit=9)] == [changed]
    assert store.forget_budgets(last) == (1, 1)
    assert store.violations(limit=9) == [violation("BTCUSDT")]


def test_the_newest_whole_cycle_is_never_forgotten(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    store.add_cycle(cycle(LATER, complete=False), [budget("BTCUSDT", LATER)])

    assert store.forget_budgets(LATER + timedelta(days=999)) == (0, 0)
    assert store.newest_budgets() == [budget("BTCUSDT")]


def test_more_cycles_than_a_transaction_takes_are_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.budgets._CHUNK", 2)
    instants = [NOW + timedelta(seconds=n) for n in range(6)]
    for at in instants:
        store.add_cycle(cycle(at), [budget("BTCUSDT", at)])

    assert store.forget_budgets(instants[-1]) == (5, 5)
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == instants[-1:]


def test_half_a_cycle_is_never_kept(store: Store) -> None:
    twice = [budget("BTCUSDT"), budget("BTCUSDT")]
    with pytest.raises(sa.exc.IntegrityError):
        store.add_cycle(cycle(), twice)
    assert store.newest_cycle() is None
    assert store.budget_history("BTCUSDT", limit=9) == []


def test_violations_are_read_newest_first(store: Store) -> None:
    store.add_violations([])
    first, second = violation("BTCUSDT"), violation("BTCUSDT", position_notional=9_000.0)
    third = violation("ETHUSDT", LATER)
    store.add_violations([first, second])  # of one instant: several workers stand at the gate
    store.add_violations([third])

    assert store.violations(limit=9) == [third, second, first]
    assert store.violations(symbol="BTCUSDT", limit=9) == [second, first]
    assert store.violations(limit=1) == [third]


def scripts_on(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", riskhub.store.__path__[0] + "/migrations")
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def of_before(open_another: Callable[[], Store]) -> Store:
    """A database as it was before there were cycles, with two of them."""
    store = open_another()
    of_cycles = ("haircut", "portfolio_age_sec", "share", "ages")
    with writing(store.engine) as connection:
        command.upgrade(scripts_on(connection), "0004")
        rows = [budget("BTCUSDT"), budget("BTCUSDT", LATER), budget("ETHUSDT", LATER)]
        for row in rows:
            kept = {name: value for name, value in row.items() if name not in of_cycles}
            connection.execute(sa.insert(symbol_budgets), kept)
    return store


def test_budgets_of_before_there_were_cycles_are_whole_cycles(of_before: Store) -> None:
    migrate(of_before.engine)

    newest, first = of_before.budget_cycles(limit=9)
    assert (newest["computed_at"], newest["symbols"], newest["complete"]) == (LATER, 2, True)
    assert (first["computed_at"], first["symbols"], first["equity_usd"]) == (NOW, 1, 100_000.0)
    assert (newest["portfolio_policy"], newest["heat"]) == ("fresh", 0.25)
    assert [row["symbol"] for row in of_before.newest_budgets()] == ["BTCUSDT", "ETHUSDT"]
    assert of_before.newest_budgets()[0]["haircut"] is None
    assert of_before.newest_budgets()[0]["ages"] is newest["heat_age_sec"] is None


def test_ages_go_and_come_back_without_their_rows(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    with writing(store.engine) as connection:
        command.downgrade(scripts_on(connection), "0008")
    migrate(store.engine)

    found = store.newest_cycle()

    assert found is not None
    assert found.cycle == cycle(heat_age_sec=None)
    assert list(found.budgets) == [budget("BTCUSDT", ages=None)]
