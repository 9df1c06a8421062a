"""The facts of one world and stage."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from builders import NOW, WORLD, Clock, accept
from databases import migrate
from exiting import compute_world
from stored import contribution, outcome

from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import create_engine, open_store
from riskhub.world_status import VERSIONS_A_PAGE, WorldDetail, world_detail


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    settings = Settings(home=tmp_path)
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    hub = Hub(open_store(settings.effective_database_url), settings, Clock())
    yield hub
    hub.store.close()


def detail(hub: Hub, stage: str | None = None) -> WorldDetail:
    found = world_detail(hub, WORLD, stage=stage)
    assert found is not None
    return found


def test_an_unknown_world_or_stage_is_none(hub: Hub) -> None:
    hub.store.land([accept()])
    assert world_detail(hub, "nobody") is None
    assert world_detail(hub, WORLD, stage="live") is None
    assert world_detail(hub, WORLD) is not None


def test_what_lives_comes_before_history(hub: Hub) -> None:
    compute_world(hub.store, 0.1, as_of=NOW, version="a", stage="backtest")
    compute_world(hub.store, 0.2, as_of=NOW - timedelta(hours=1), version="b", stage="paper")
    compute_world(hub.store, 0.3, as_of=NOW - timedelta(minutes=1), version="c", stage="live")
    found = detail(hub)
    assert [each.stage for each in found.stages] == ["live", "paper", "backtest"]
    assert found.freshness.stage == "live"
    assert found.numbers is not None
    assert found.numbers["version"] == "c"
    assert detail(hub, "backtest").numbers["version"] == "a"  # type: ignore[index]


def test_a_world_that_has_only_landed_has_a_version_that_waits(hub: Hub) -> None:
    hub.store.land([accept()])
    found = detail(hub)
    assert (found.numbers, found.days, found.contributions, found.stress) == (None, (), (), None)
    assert [row["accepted"] for row in found.versions.rows] == [None]


def test_exceedances_are_days_that_lost_more_than_their_var(hub: Hub) -> None:
    store, days = hub.store, []
    for number, loss in enumerate((0.01, 0.06, 0.05)):  # against a VaR of 0.05
        as_of = NOW - timedelta(days=9 - number)
        position = compute_world(store, 0.1, as_of=as_of, version=f"v{number}")
        day = as_of.date() + timedelta(days=1)
        row = outcome(position, day, loss, world_id=WORLD, stage="paper")
        store.write_outcomes([row], [day])
        days.append(day)
    found = detail(hub)
    assert [day.day for day in found.days] == days
    assert [day.exceeded for day in found.days] == [False, True, False]
    assert found.exceedances == 1


def test_contributions_come_largest_first_with_their_shares(hub: Hub) -> None:
    position = compute_world(hub.store, 0.1, as_of=NOW, version="a")
    parts = {"AAA": 0.01, "BBB": 0.04, "CCC": -0.01}
    rows = [contribution(position, name, var) for name, var in parts.items()]
    hub.store.write_days({"risk_contributions": rows}, [NOW.date()], replace=False)
    found = [(each.symbol, each.share) for each in detail(hub).contributions]
    assert found == [("BBB", 1.0), ("AAA", 0.25), ("CCC", -0.25)]


def test_stress_is_that_of_the_newest_snapshot_that_has_any(hub: Hub) -> None:
    compute_world(hub.store, 0.1, as_of=NOW, version="a", pnl={"2008": -0.3})
    stress = detail(hub).stress
    assert stress is not None
    assert [(each["scenario"], each["pnl"]) for each in stress["results"]] == [("2008", -0.3)]


def test_versions_are_walked_page_by_page(hub: Hub) -> None:
    hub.store.land([accept(version=f"v{number}") for number in range(VERSIONS_A_PAGE + 2)])
    first = detail(hub)
    second = world_detail(hub, WORLD, after=first.versions.next_key)
    assert second is not None
    seen = [row["version"] for page in (first, second) for row in page.versions.rows]
    assert seen == [f"v{number}" for number in reversed(range(VERSIONS_A_PAGE + 2))]
    assert second.versions.next_key is None
