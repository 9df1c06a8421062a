"""What the status pages read: of each world the newest and the days before it, of one its days."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from builders import WORLD, accept
from exiting import STAGE, START, compute_world
from stored import contribution, metrics, outcome, plans_of, tail

from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.overview import Overview

METHODS = ("historical", "normal")
KEY = (WORLD, STAGE)


def at(day: int, hours: float = 0) -> datetime:
    return START + timedelta(days=day, hours=hours)


def overview(store: Store) -> Overview:
    return store.overview(methods=METHODS, level="0.99", largest=2)


def es_before(store: Store, days: int = 10, key: tuple[str, str] = KEY) -> list[float]:
    found = store.days_before([key], days=days, methods=METHODS, level="0.99")
    return [tail.es for tail in found[key]]


def backtest(day: date, method: str = "historical", **row: Any) -> dict[str, Any]:
    return {
        "world_id": WORLD,
        "stage": STAGE,
        "method": method,
        "level": "0.99",
        "day": day,
        "window": 250,
        "observations": 250,
        "exceedances": 3,
        "exceeded": False,
        "zone": "green",
        "multiplier": 3.0,
        "kupiec_p": 0.5,
        "christoffersen_p": 0.5,
        "z2": None,
        "code_version": "riskhub/0",
    } | row


def write_backtests(store: Store, *rows: dict[str, Any]) -> None:
    store.write_days({"var_backtests": rows}, sorted({row["day"] for row in rows}), replace=False)


def test_an_empty_hub_has_nothing_to_show(store: Store) -> None:
    assert overview(store) == Overview([], [])
    assert store.days_before([], days=5, methods=METHODS, level="0.99") == {}


def test_of_each_world_and_stage_the_newest_by_as_of_then_by_landing(store: Store) -> None:
    for version, day, es in (("a", 1, 0.1), ("b", 0, 0.2), ("c", 1, 0.3)):
        compute_world(store, es, as_of=at(day), version=version)
    compute_world(store, 0.4, as_of=at(0), version="d", world_id="fx")
    compute_world(store, 0.5, as_of=at(2), version="e", stage="live")
    newest = {(row["world_id"], row["stage"]): row for row in overview(store).newest}
    assert {key: row["es"] for key, row in newest.items()} == {
        KEY: 0.3,
        ("fx", STAGE): 0.4,
        (WORLD, "live"): 0.5,
    }
    assert newest[KEY]["as_of"] == at(1)


def test_a_world_without_a_tail_is_there_with_the_reason(store: Store) -> None:
    compute_world(store, None, as_of=at(0), version="a")
    (row,) = overview(store).newest
    assert (row["var"], row["unavailable"]) == (None, "too few returns")
    assert es_before(store) == []


def test_a_world_without_the_first_method_is_shown_by_the_next(store: Store) -> None:
    for day in (0, 1):
        position = compute_world(store, 0.1, as_of=at(day), version=f"v{day}")
        other = tail(position, method="normal", day=at(day).date(), es=0.4)
        store.write_days({"risk_tails": [other]}, [other["day"]], replace=False)
    (row,) = overview(store).newest
    assert (row["method"], row["es"]) == ("normal", 0.4)
    assert es_before(store) == [0.4]


def test_a_day_is_shown_by_its_last_snapshot_and_a_gap_is_passed_over(store: Store) -> None:
    for version, as_of, es in (
        ("a", at(0), 0.1),
        ("b", at(0, 1), 0.2),
        ("c", at(3, -20), 0.3),
        ("d", at(9), 0.4),
        ("e", at(9, 1), 0.5),
    ):
        compute_world(store, es, as_of=as_of, version=version)
    assert es_before(store) == [0.2, 0.3]
    assert es_before(store, days=1) == [0.3]


def test_the_light_is_the_newest_of_the_method_that_is_shown(store: Store) -> None:
    compute_world(store, 0.1, as_of=at(5), version="a")
    assert overview(store).newest[0]["zone"] is None
    first, second = at(1).date(), at(2).date()
    write_backtests(
        store,
        backtest(first, zone="red"),
        backtest(second, zone="yellow", exceedances=6),
        backtest(second, "normal", zone="green"),
        backtest(second, level="0.95", zone="green"),
    )
    (row,) = overview(store).newest
    assert (row["zone"], row["exceedances"], row["day"]) == ("yellow", 6, second)
    lights = store.newest_lights(WORLD, stage=STAGE, methods=("normal", "ewma"), level="0.99")
    assert [(row["method"], row["zone"]) for row in lights] == [("normal", "green")]


def test_the_largest_contributors_come_with_the_total(store: Store) -> None:
    position = compute_world(store, 0.1, as_of=at(0), version="a")
    parts = {"AAA": 0.01, "BBB": 0.03, "CCC": -0.01, "DDD": 0.02}
    rows = [contribution(position, name, var) for name, var in parts.items()]
    day = at(0).date()
    table = {"risk_contributions": [row | {"day": day} for row in rows]}
    store.write_days(table, [day], replace=False)
    found = overview(store).contributions
    assert [row["symbol"] for row in found] == ["BBB", "DDD"]
    assert [row["total"] for row in found] == [pytest.approx(0.05)] * 2


def test_outcomes_are_the_last_ones_oldest_first_with_the_light_of_the_day(store: Store) -> None:
    positions = [
        compute_world(store, 0.1 * (day + 1), as_of=at(day), version=f"v{day}") for day in range(3)
    ]
    days = [at(day + 1).date() for day in range(3)]
    store.write_outcomes(
        [
            outcome(position, day, 0.01, world_id=WORLD, stage=STAGE)
            for position, day in zip(positions, days, strict=True)
        ],
        days,
    )
    write_backtests(store, backtest(days[2], zone="red"))
    asked: Any = {"stage": STAGE, "level": "0.99", "limit": 2}
    found = store.outcome_days(WORLD, method="historical", **asked)
    assert [(row["day"], row["es"], row["zone"]) for row in found] == [
        (days[1], pytest.approx(0.2), None),
        (days[2], pytest.approx(0.3), "red"),
    ]
    assert store.outcome_days(WORLD, method="ewma", **asked) == []


def test_versions_come_newest_first_page_by_page_with_their_verdicts(store: Store) -> None:
    compute_world(store, 0.1, as_of=at(0), version="a")
    compute_world(store, 0.2, as_of=at(0), version="b", accepted=False)
    compute_world(store, 0.3, as_of=at(1), version="c")
    store.land([accept(version="d", as_of=at(2).isoformat(), received_at=at(2))])
    asked: Any = {"stage": STAGE, "method": "historical", "level": "0.99", "limit": 3}
    first = store.versions(WORLD, **asked)
    assert [(row["version"], row["accepted"]) for row in first.rows] == [
        ("d", None),
        ("c", True),
        ("b", False),
    ]
    assert [row["var"] for row in first.rows] == [None, 0.15, None]
    second = store.versions(WORLD, **asked, after=first.next_key)
    assert ([row["version"] for row in second.rows], second.next_key) == (["a"], None)


@pytest.fixture
def measured(filled: Store) -> Store:
    """Numbers that are each of their snapshot's world and instant, in two stages."""
    with writing(filled.engine) as connection:
        connection.exec_driver_sql(
            "UPDATE risk_metrics SET (world_id, as_of) = "
            "(SELECT world_id, as_of FROM snapshots WHERE snapshots.position = "
            "risk_metrics.position)"
        )
        connection.exec_driver_sql("UPDATE risk_metrics SET stage = 'live' WHERE position > 400")
        connection.exec_driver_sql("ANALYZE")
    return filled


def test_the_newest_of_a_stage_is_not_looked_for_among_another(measured: Store) -> None:
    with plans_of(measured) as plans:
        measured.days_before([("w1", "paper")], days=3, methods=METHODS, level="0.99")
    assert "ix_risk_metrics_world_id_stage_as_of" in plans[0]
    assert "ix_risk_metrics_world_id_as_of" not in plans[0]


def test_every_read_of_a_page_goes_by_index(measured: Store) -> None:
    asked: Any = {"stage": "paper", "level": "0.99"}
    with plans_of(measured) as plans:
        overview(measured)
        measured.days_before([("w1", "paper")], days=30, methods=METHODS, level="0.99")
        measured.outcome_days("w1", method="historical", limit=250, **asked)
        measured.newest_lights("w1", methods=METHODS, **asked)
        measured.versions("w1", method="historical", limit=20, **asked)
        day = datetime(2021, 1, 1, tzinfo=START.tzinfo)
        measured.versions("w1", method="historical", limit=20, after=(day, 7), **asked)
    for plan in plans:
        for table in ("snapshots", "risk_metrics", "risk_tails", "validated_snapshots"):
            assert f"SCAN {table}\n" not in f"{plan}\n"
            assert f"Seq Scan on {table}" not in plan


def test_numbers_of_what_was_made_again_are_those_that_are_shown(store: Store) -> None:
    position = compute_world(store, 0.1, as_of=at(0), version="a")
    day = at(0).date()
    again = metrics(position, day=day, as_of=at(0), unavailable="made again")
    store.write_days({"risk_metrics": [again], "risk_tails": []}, [day], replace=True)
    assert overview(store).newest[0]["unavailable"] == "made again"
