"""The facts of the whole hub, from what is stored and what Redis has."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from builders import NOW, WORLD, Clock, accept
from databases import migrate
from exiting import compute_world
from stored import contribution

from riskhub.alerts.reconcile import WATCHDOG, Severity
from riskhub.freshness import Freshness
from riskhub.governor.published import client_of
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.status import Budgets, HubStatus, hub_status, remembered_days
from riskhub.store import create_engine, open_store

STAGE = "paper"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    settings = Settings(home=tmp_path)
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    hub = Hub(open_store(settings.effective_database_url), settings, Clock())
    yield hub
    hub.store.close()


def status(hub: Hub, client: redis.Redis | None = None) -> HubStatus:
    return hub_status(hub, client, remembered_days(hub.store))


def told(found: HubStatus) -> list[tuple[str, str | None]]:
    return [(alert.what, alert.world_id) for alert in found.alerts]


def light(zone: str) -> dict[str, Any]:
    day = NOW.date()
    return {"world_id": WORLD, "stage": STAGE, "method": "historical", "level": "0.99",
            "day": day, "window": 250, "observations": 250, "exceedances": 7, "exceeded": False,
            "zone": zone, "multiplier": 3.5, "kupiec_p": 0.1, "christoffersen_p": 1.0,
            "z2": None, "code_version": "riskhub/0"}  # fmt: skip


def test_an_empty_hub_has_nothing_and_lacks_nothing(hub: Hub) -> None:
    found = status(hub)
    assert (found.worlds, found.governor, found.pipeline.waiting) == ((), None, 0)
    assert told(found) == [("budgets unavailable", None)]  # nobody was asked


def test_a_world_has_its_tails_a_day_its_light_and_what_its_risk_comes_from(hub: Hub) -> None:
    store = hub.store
    for number in range(3):
        as_of = NOW - timedelta(days=2 - number, minutes=1)
        position = compute_world(store, 0.1 + number, as_of=as_of, version=f"v{number}")
    day = as_of.date()
    parts = [contribution(position, name, var) for name, var in (("AAA", 0.01), ("BBB", 0.03))]
    table = {"risk_contributions": [row | {"day": day} for row in parts]}
    store.write_days(table, [day], replace=False)
    store.write_days({"var_backtests": [light("yellow")]}, [NOW.date()], replace=False)
    found = status(hub)
    (world,) = found.worlds
    assert world.freshness.state is Freshness.FRESH
    assert [tail.es for tail in world.tails] == [0.1, 1.1, 2.1]
    assert world.newest == world.tails[-1]
    assert world.contributors == (("BBB", 0.75), ("AAA", 0.25))
    assert world.light is not None
    assert (world.light.zone, world.light.exceedances) == ("yellow", 7)
    assert ("VaR model in yellow", WORLD) in told(found)


def test_where_the_whole_is_no_loss_nobody_has_a_share(hub: Hub) -> None:
    position = compute_world(hub.store, 0.1, as_of=NOW, version="a")
    row = contribution(position, "AAA", -0.01)
    hub.store.write_days({"risk_contributions": [row]}, [NOW.date()], replace=False)
    assert status(hub).worlds[0].contributors == (("AAA", None),)


def test_a_world_without_numbers_is_there_all_the_same(hub: Hub) -> None:
    hub.store.land([accept()])
    (world,) = (found := status(hub)).worlds
    assert (world.newest, world.unavailable, world.tails, world.light) == (None, None, (), None)
    assert (found.pipeline.waiting, found.pipeline.waits_since) == (1, NOW)


def test_a_newest_snapshot_without_a_tail_is_not_passed_over(hub: Hub) -> None:
    compute_world(hub.store, 0.1, as_of=NOW - timedelta(days=1), version="a")
    compute_world(hub.store, None, as_of=NOW, version="b")
    (world,) = (found := status(hub)).worlds
    assert (world.newest, world.unavailable) == (None, "too few returns")
    assert [tail.es for tail in world.tails] == [0.1]
    assert ("no VaR", WORLD) in told(found)


def test_the_worst_comes_first(hub: Hub) -> None:
    compute_world(hub.store, None, as_of=NOW, version="a", world_id="calm")
    compute_world(hub.store, 0.1, as_of=NOW - timedelta(hours=1), version="b")
    found = status(hub)
    assert found.alerts[0].severity is Severity.CRITICAL
    assert told(found)[0] == ("expired", WORLD)
    assert found.alerts[0].since == NOW - timedelta(hours=1)


def test_the_quarantine_is_told_once_a_world(hub: Hub) -> None:
    for number in range(3):
        compute_world(hub.store, 0.1, as_of=NOW, version=f"v{number}", accepted=False)
    (alert,) = [each for each in status(hub).alerts if each.what == "in quarantine"]
    assert "and 2 more" in alert.why


def test_readers_of_the_outbox_are_told_by_how_far_they_are_behind(hub: Hub) -> None:
    store = hub.store
    store.land([accept(version=f"v{number}") for number in range(4)])
    store.move_cursor("near", 3, NOW)
    store.move_cursor("far", 1, NOW)
    pipeline = status(hub).pipeline
    assert [(reader.name, reader.behind) for reader in pipeline.readers] == [
        ("far", 3),
        ("near", 1),
    ]
    assert pipeline.outbox == 4


def test_dead_letters_are_told(hub: Hub) -> None:
    letter = {"handler": "numbers", "event_id": "e", "type": "t", "key": "k", "origin": "o",
              "reason": "r", "attempts": 3, "raw": b"", "died_at": NOW}  # fmt: skip
    hub.store.add_dead_letters([letter])
    found = status(hub)
    assert found.pipeline.dead_letters == 1
    assert ("dead letters", None) in told(found)


def test_a_governor_that_has_fallen_silent_is_told(hub: Hub) -> None:
    cycle = {"writer": "me", "no_budget_reason": None, "symbols": 0, "complete": True,
             "equity_usd": None, "portfolio_policy": "fresh", "portfolio_age_sec": None,
             "heat": None, "heat_policy": None, "mode": "shadow",
             "formula_version": "1"}  # fmt: skip
    hub.store.add_cycle(cycle | {"computed_at": NOW - timedelta(seconds=30)}, [])
    assert "governor too old" not in dict(told(status(hub)))
    hub.clock.advance(600)  # type: ignore[attr-defined]
    found = status(hub)
    assert found.governor is not None
    assert found.governor.age_sec == 630
    assert "governor too old" in dict(told(found))


@pytest.fixture
def budgets(redis_url: str) -> Iterator[redis.Redis]:
    client = client_of(redis_url)
    for symbol, usd, age in (("AAA", 50, 5), ("BBB", 10, 500), ("cluster:default", 1, 5)):
        fields = {"budget_usd": usd, "mode": "enforce", "timestamp": NOW.timestamp() - age}
        client.hset(f"quantum:portfolio:budget:{symbol}", mapping=fields)
    yield client
    client.close()


def test_budgets_are_those_of_symbols_the_smallest_first(hub: Hub, budgets: redis.Redis) -> None:
    found = status(hub, budgets)
    assert [each.symbol for each in found.budgets.smallest] == ["BBB", "AAA"]
    assert (found.budgets.count, found.budgets.stale) == (2, 1)
    assert (found.budgets.total_usd, found.budgets.age_sec) == (60, 5)
    assert found.budgets.modes == ("enforce",)
    assert told(found) == [("budgets stale", None)]


def test_budgets_that_can_not_be_read_are_said_to_be_so(hub: Hub, free_port: Any) -> None:
    found = status(hub, client_of(f"redis://127.0.0.1:{free_port()}/0"))
    assert found.budgets == Budgets("Redis does not answer")
    assert told(found) == [("budgets unavailable", None)]


def alert_row(key: str, **row: Any) -> dict[str, Any]:
    return {"id": key, "key": key, "source": "worlds", "name": "RiskHubSnapshotStale", "cause": [],
            "severity": "warning", "state": "open", "summary": f"{key} is late", "detail": "Why.",
            "labels": {"world_id": WORLD, "stage": STAGE}, "runbook": "", "first_seen": NOW,
            "last_seen": NOW, "opened_at": NOW, "gone_since": None, "resolved_at": None, "count": 1,
            "acknowledged_by": None, "acknowledged_at": None, "notified": {},
            "over": False} | row  # fmt: skip


def test_while_somebody_watches_the_alerts_are_those_on_record(hub: Hub) -> None:
    rows = [
        alert_row(WATCHDOG, severity="info"),
        alert_row("a", acknowledged_by="me"),
        alert_row("b", severity="critical"),
        alert_row("c", resolved_at=NOW, over=True),
    ]
    hub.store.write_alerts(rows, acknowledgements=["a"], turn=0, writer="it", receivers={}, now=NOW)
    found = status(hub)
    assert told(found) == [("b is late", WORLD), ("a is late", WORLD)]
    assert found.alerts[1].why == "Why. Seen by me."
    hub.clock.advance(600)  # type: ignore[attr-defined]
    assert told(status(hub)) == [("budgets unavailable", None), ("nobody watches", None)]


def test_history_wants_no_attention(hub: Hub) -> None:
    compute_world(hub.store, None, as_of=NOW - timedelta(days=99), version="a", stage="backtest")
    assert told(status(hub)) == [("budgets unavailable", None)]
