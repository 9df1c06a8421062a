"""A world's stress results: newest first, each with its own, and through an index."""

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD, accept
from stored import DAY, land_days, plans_of, together

from riskhub.store import Store
from riskhub.store.engine import reading, writing
from riskhub.store.stress import StressFilter
from riskhub.store.tables import snapshot_stress, stress_results

HOUR = timedelta(hours=1)
BOOK = "sha256:b"
NUMBERS = ("pnl", "worst", "max_drawdown", "ruined", "var", "es", "unavailable", "measures")
# Their places are not the order of their names.
SCENARIOS = [("storm", "historical"), ("gap", "gap"), ("calm", "covariance")]


def book(*scenarios: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "scenario": scenario,
            "place": place,
            "kind": kind,
            "label": f"The {scenario}",
            "definition": {"id": scenario, "size": 0.5},
        }
        for place, (scenario, kind) in enumerate(scenarios)
    ]


def stressed(position: int, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": DAY,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "book_digest": BOOK,
        "snapshot_digest": "sha256:0",
        "prices_digest": "sha256:1",
        "covariance_source": "prices",
        "loss_limit": 0.1,
        "against": 0.1,
        "market": -0.2,
        "code_version": "riskhub/0",
    } | row


def result(position: int, scenario: str, origin: str = "riskhub", **numbers: Any) -> dict[str, Any]:
    identity = {"position": position, "day": DAY, "origin": origin, "scenario": scenario}
    return identity | dict.fromkeys(NUMBERS) | numbers


def write(store: Store, position: int, *results: dict[str, Any], **row: Any) -> None:
    tables = {"snapshot_stress": [stressed(position, **row)], "stress_results": list(results)}
    store.write_days(tables, [DAY], replace=False)


def positions(store: Store, **which: Any) -> list[int]:
    found = store.stress(WORLD, StressFilter(**which), limit=100).rows
    return [row["position"] for row in found]


def results_of(store: Store, **which: Any) -> list[list[tuple[str, str]]]:
    rows = store.stress(WORLD, StressFilter(**which), limit=9).rows
    return [[(each["origin"], each["scenario"]) for each in row["results"]] for row in rows]


def test_results_come_in_the_order_of_the_book_with_its_labels_then_the_producers(
    store: Store,
) -> None:
    store.add_scenario_book(BOOK, book(*SCENARIOS))
    write(
        store,
        1,
        result(1, "calm", var=0.02, es=0.03),
        result(1, "storm", pnl=-0.2, worst=-0.3, max_drawdown=0.31, ruined=False),
        result(1, "storm", "producer", measures={"loss": -0.25, "days": 3}),
        result(1, "a flood", "producer", measures={}),
        result(1, "gap", unavailable="no prices for ZZZ"),
    )
    page = store.stress(WORLD, limit=1)
    (row,) = page.rows
    expected = {name: value for name, value in stressed(1).items() if name != "day"}
    assert row == expected | {
        "results": [
            {"scenario": scenario, "origin": origin, "kind": kind, "label": label}
            | dict.fromkeys(NUMBERS)
            | numbers
            for scenario, origin, kind, label, numbers in (
                ("storm", "riskhub", "historical", "The storm",
                 {"pnl": -0.2, "worst": -0.3, "max_drawdown": 0.31, "ruined": False}),
                ("gap", "riskhub", "gap", "The gap", {"unavailable": "no prices for ZZZ"}),
                ("calm", "riskhub", "covariance", "The calm", {"var": 0.02, "es": 0.03}),
                ("a flood", "producer", None, None, {"measures": {}}),
                ("storm", "producer", None, None, {"measures": {"loss": -0.25, "days": 3}}),
            )
        ]
    }  # fmt: skip
    assert row["results"][0]["ruined"] is False
    assert page.next_key is None


def test_a_result_is_labelled_by_the_book_that_it_was_made_with(store: Store) -> None:
    store.add_scenario_book(BOOK, book(*SCENARIOS))
    store.add_scenario_book("sha256:newer", book(("gap", "market")))
    write(store, 1, result(1, "gap", pnl=-0.5))
    write(store, 2, result(2, "gap", pnl=-0.4), book_digest="sha256:newer")
    kinds = [row["results"][0]["kind"] for row in store.stress(WORLD, limit=2).rows]
    assert kinds == ["market", "gap"]


def test_a_snapshot_without_results_is_found_and_has_none(store: Store) -> None:
    write(store, 1)
    (row,) = store.stress(WORLD, limit=5).rows
    assert (row["position"], row["results"]) == (1, [])
    assert store.stress("fx", limit=5).rows == []


def test_the_greatest_as_of_comes_first_then_the_later_landing(store: Store) -> None:
    for position, hours in ((1, 0), (2, 2), (3, 1), (4, 1), (5, 0)):
        write(store, position, as_of=NOW - hours * HOUR)
    assert positions(store) == [5, 1, 4, 3, 2]
    write(store, 6, as_of=NOW + HOUR, world_id="fx")
    assert positions(store)[0] == 5


def test_snapshots_are_filtered_by_stage_and_bounded_by_as_of_both_ends_included(
    store: Store,
) -> None:
    for position in range(1, 7):
        stage = "live" if position % 2 else "paper"
        write(store, position, as_of=NOW + position * HOUR, stage=stage)
    assert positions(store, stage="live") == [5, 3, 1]
    assert positions(store, since=NOW + 5 * HOUR) == [6, 5]
    assert positions(store, up_to=NOW + 2 * HOUR) == [2, 1]
    assert positions(store, since=NOW + 2 * HOUR, up_to=NOW + 4 * HOUR, stage="paper") == [4, 2]


def test_a_version_is_found_by_its_landing(store: Store) -> None:
    first, second = land_days(store, 10, 11)
    for position in (first, second):
        write(store, position)
    assert positions(store, version="1") == [second]
    assert positions(store, version="1", stage="live") == []
    assert positions(store, version="9") == []


def test_scenario_and_origin_choose_results_and_leave_out_no_snapshot(store: Store) -> None:
    store.add_scenario_book(BOOK, book(*SCENARIOS))
    write(store, 1, result(1, "storm", pnl=-0.1), result(1, "gap", pnl=-0.5))
    write(store, 2, result(2, "storm", pnl=-0.1), result(2, "storm", "producer", measures={}))
    ours, gap, theirs = ("riskhub", "storm"), ("riskhub", "gap"), ("producer", "storm")
    assert results_of(store) == [[ours, theirs], [ours, gap]]
    assert results_of(store, scenario="storm") == [[ours, theirs], [ours]]
    assert results_of(store, scenario="gap") == [[], [gap]]
    assert results_of(store, origin="producer") == [[theirs], []]
    assert results_of(store, scenario="storm", origin="riskhub") == [[ours], [ours]]


def test_pages_lead_through_everything_once_also_within_one_as_of(store: Store) -> None:
    store.add_scenario_book(BOOK, book(*SCENARIOS))
    for position in range(1, 8):
        results = [result(position, scenario, pnl=-0.1) for scenario, _ in SCENARIOS]
        write(store, position, *results, as_of=NOW + position // 4 * HOUR)
    walked, after = [], None
    while True:
        page = store.stress(WORLD, limit=2, after=after)
        walked += [row["position"] for row in page.rows]
        assert all(len(row["results"]) == 3 for row in page.rows)
        after = page.next_key
        if after is None:
            break
    assert walked == [7, 6, 5, 4, 3, 2, 1]


def test_a_book_is_noted_once_whoever_else_does_the_same(store: Store, open_another: Any) -> None:
    rows = book(*SCENARIOS)
    stores = [store, *(open_another() for _ in range(3))]
    together(*(lambda each=each: each.add_scenario_book(BOOK, rows) for each in stores))
    assert store.scenario_book(BOOK) == rows
    assert store.scenario_book("sha256:none") == []


def test_what_a_result_lacks_is_null_in_the_table_also_where_json_could_stand(
    store: Store,
) -> None:
    write(store, 1, result(1, "gap", pnl=-0.5))
    with reading(store.engine) as connection:
        without = stress_results.c.measures.is_(sa.null())
        found = connection.execute(sa.select(stress_results.c.scenario).where(without))
        assert found.scalars().all() == ["gap"]


@pytest.fixture
def years(store: Store) -> Store:
    """Four worlds, a thousand snapshots each, with three results each."""
    store.add_scenario_book(BOOK, book(*SCENARIOS))
    store.land([accept(world_id=f"w{n % 4}", version=f"v{n}") for n in range(4_000)])
    with writing(store.engine) as connection:
        rows = [
            stressed(n, world_id=f"w{n % 4}", version=f"v{n}", as_of=NOW - n // 4 * HOUR)
            for n in range(1, 4_001)
        ]
        connection.execute(sa.insert(snapshot_stress), rows)
        results = [result(n, scenario) for n in range(1, 4_001) for scenario, _ in SCENARIOS]
        connection.execute(sa.insert(stress_results), results)
        connection.exec_driver_sql("ANALYZE")
    return store


def test_the_newest_every_page_and_a_version_are_found_through_indexes(years: Store) -> None:
    past = NOW - 500 * HOUR
    with plans_of(years) as plans:
        for which in (
            StressFilter(),
            StressFilter(scenario="gap", origin="riskhub"),
            StressFilter(since=past - 50 * HOUR, up_to=past),
        ):
            assert years.stress("w1", which, limit=1).rows
            page = years.stress("w1", which, limit=5)
            assert years.stress("w1", which, limit=5, after=page.next_key).rows
    assert len(plans) == 9
    for plan in plans:
        assert re.search(r"\bix_snapshot_stress_world_id_as_of\b", plan), plan
    with plans_of(years) as by_version:
        assert years.stress("w1", StressFilter(version="v1"), limit=1)
    assert len(by_version) == 1
    for plan in plans + by_version:
        assert not re.search(r"(Seq Scan on|SCAN) (snapshot|stress)", plan), plan
