"""What the exit engine reads: the newest of each world and stage, and history by day."""

from datetime import date, timedelta
from typing import Any

from builders import WORLD
from exiting import STAGE, START, compute_world, write_verdict
from stored import DAY, metrics, plans_of

from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.observed import Observed

KINDS = [("historical", "0.99")]


def observed(store: Store, **asked: Any) -> Observed:
    return store.observed(**{"worlds": None, "tails": KINDS, "zones": [("ewma", "0.99")]} | asked)


def days(number: int) -> Any:
    return START + timedelta(days=number)


def backtest(day: date, **row: Any) -> dict[str, Any]:
    return {
        "world_id": WORLD,
        "stage": STAGE,
        "method": "ewma",
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


def test_nothing_is_known_of_an_empty_hub(store: Store) -> None:
    assert observed(store) == Observed([])
    assert store.measured_days() is None


def test_of_each_world_and_stage_the_newest_by_as_of_then_by_landing(store: Store) -> None:
    for version, number, es in (("a", 1, 0.1), ("b", 0, 0.2), ("c", 1, 0.3)):
        compute_world(store, es, as_of=days(number), version=version)
    compute_world(store, 0.4, as_of=days(0), version="d", world_id="fx")
    compute_world(store, 0.5, as_of=days(0), version="e", stage="live")
    found = observed(store)
    assert sorted(found.worlds) == [(WORLD, "live"), (WORLD, STAGE), ("fx", STAGE)]
    newest = {each.metrics["version"]: each for each in found.numbers}
    assert newest.keys() == {"c", "d", "e"}
    assert [tail["es"] for tail in newest["c"].tails] == [0.3]
    assert {row["version"] for row in found.landed} == {"c", "d", "e"}
    assert observed(store, without_stages=["live", STAGE]) == Observed([])
    assert observed(store, without_stages=[STAGE]).worlds == [(WORLD, "live")]
    only = observed(store, worlds=["fx"])
    assert [each.metrics["version"] for each in only.numbers] == ["d"]


def test_the_newest_of_each_world_is_found_without_reading_what_came_before(filled: Store) -> None:
    landed_rows = filled.landed_on(date(2020, 1, 1), DAY)
    named = ("world_id", "version", "as_of", "day")
    rows = [
        metrics(each.position, **{name: getattr(each, name) for name in named})
        for each in landed_rows
    ]
    filled.write_days({"risk_metrics": rows}, [], replace=False)
    with writing(filled.engine) as connection:
        connection.exec_driver_sql("ANALYZE")
    with plans_of(filled) as plans:
        found = observed(filled)
    assert len(found.landed) == len(found.numbers) == 20
    (measured,) = [plan for plan in plans if "ix_risk_metrics_world_id_stage_as_of" in plan]
    (landed,) = [plan for plan in plans if "ix_snapshots_stage" in plan]
    for plan in (measured, landed):
        for table in ("risk_metrics", "snapshots"):
            assert f"Seq Scan on {table} " not in plan, plan
            assert f"SCAN {table}" not in plan, plan


def test_a_snapshot_without_numbers_is_landed_and_not_measured(store: Store) -> None:
    compute_world(store, None, as_of=days(0), version="a")
    (numbers,) = observed(store).numbers
    assert (numbers.metrics["unavailable"], numbers.tails) == ("too few returns", [])


def test_what_is_in_the_quarantine_is_neither_measured_nor_the_newest(store: Store) -> None:
    compute_world(store, 0.1, as_of=days(0), version="a")
    position = compute_world(store, 0.2, as_of=days(1), version="b")
    of_it = {"version": "b", "world_id": WORLD, "stage": STAGE, "as_of": days(1)}
    write_verdict(store, position, now=days(1), accepted=False, **of_it)
    found = observed(store, positions=[position, position - 1])
    assert [each.metrics["version"] for each in found.numbers] == ["a"]
    assert [row["version"] for row in found.landed] == ["a"]
    assert found.rejected == {position}
    write_verdict(store, position, now=days(2), accepted=True, **of_it)
    found = observed(store, positions=[position])
    assert [row["version"] for row in found.landed] == ["b"]
    assert found.rejected == frozenset()


def test_stress_is_read_with_what_is_unavailable_and_without_what_has_no_loss(
    store: Store,
) -> None:
    position = compute_world(store, 0.1, as_of=days(0), version="a", pnl={"2008": -0.3})
    store.write_days(
        {
            "stress_results": [
                {
                    **dict.fromkeys(("worst", "max_drawdown", "ruined", "es", "measures")),
                    "position": position,
                    "day": days(0).date(),
                    "origin": origin,
                    "scenario": name,
                    "pnl": pnl,
                    "var": var,
                    "unavailable": why,
                }
                for origin, name, pnl, var, why in (
                    ("riskhub", "2008", -0.3, None, None),
                    ("riskhub", "2020", None, None, "lies ahead"),
                    ("riskhub", "volatility-x2", None, 0.2, None),
                    ("producer", "own", -0.9, None, None),
                )
            ]
        },
        [days(0).date()],
        replace=False,
    )
    (numbers,) = observed(store).numbers
    assert numbers.stressed
    assert numbers.stress == [("2008", -0.3, None), ("2020", None, "lies ahead")]


def test_of_each_model_the_newest_backtest(store: Store) -> None:
    compute_world(store, 0.1, as_of=days(0), version="a")
    rows = [
        backtest(date(2026, 1, 5)),
        backtest(date(2026, 1, 6), zone="red"),
        backtest(date(2026, 1, 7), method="normal"),
        backtest(date(2026, 1, 8), stage="live"),
    ]
    store.write_days({"var_backtests": rows}, [row["day"] for row in rows], replace=True)
    (found,) = observed(store).backtests
    assert (found["day"], found["zone"]) == (date(2026, 1, 6), "red")
    read = store.backtests_between(date(2026, 1, 5), DAY, worlds=[WORLD], zones=[("ewma", "0.99")])
    assert [(row["day"].day, row["stage"]) for row in read] == [
        *((5, STAGE), (6, STAGE)),
        (8, "live"),
    ]


def test_history_is_a_day_at_a_time_and_a_correction_replaces_what_it_corrects(
    store: Store,
) -> None:
    for version, number, es in (("a", 1, 0.1), ("b", 0, 0.2), ("c", 1, 0.3)):
        compute_world(store, es, as_of=days(number), version=version)
    compute_world(store, 0.4, as_of=days(1), version="d", world_id="fx")

    def read(first: Any, last: Any, worlds: Any = None) -> list[list[str]]:
        found = store.numbers_by_day(first.date(), last.date(), worlds=worlds, tails=KINDS)
        return [[each.metrics["version"] for each in of_day] for of_day in found]

    assert read(days(0), days(5)) == [["b"], ["c", "d"]]
    assert read(days(1), days(1), [WORLD]) == [["c"]]
    assert store.measured_days() == (days(0).date(), days(1).date())
    landed = store.landed_between(days(0).date(), days(1).date(), worlds=[WORLD])
    assert [row["version"] for row in landed] == ["b", "a", "c"]
