"""Outcomes and backtests as they are kept, alike on both databases."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from builders import WORLD, accept
from stored import land_days, metrics, tail, verdict

from riskhub.store import Store

DAYS = [date(2026, 1, day) for day in range(5, 10)]
STAGE = "paper"


def measured(position: int, day: date, hour: int = 12, **row: Any) -> dict[str, Any]:
    return metrics(position, day=day, as_of=datetime(2026, 1, day.day, hour, tzinfo=UTC), **row)


def outcome(position: int, day: date, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "stage": STAGE,
        "forecast_day": day - timedelta(days=1),
        "loss": 0.01,
        "hindsight": False,
        "prices_digest": "sha256:2",
        "code_version": "riskhub/0",
    } | row


def backtested(day: date, **row: Any) -> dict[str, Any]:
    return {
        "world_id": WORLD,
        "stage": STAGE,
        "method": "historical",
        "level": "0.99",
        "day": day,
        "window": 250,
        "observations": 10,
        "exceedances": 0,
        "exceeded": False,
        "zone": "green",
        "multiplier": None,
        "kupiec_p": 1.0,
        "christoffersen_p": 1.0,
        "z2": 1.0,
        "code_version": "riskhub/0",
    } | row


def add(store: Store, name: str, *rows: dict[str, Any]) -> None:
    store.write_days({name: rows}, sorted({row["day"] for row in rows}), replace=False)


def days_backtested(store: Store, world_id: str = WORLD) -> list[date]:
    return [row["day"] for row in store.backtests(world_id)]


def test_the_forecast_of_a_day_is_its_newest_by_as_of_then_by_landing(store: Store) -> None:
    late, early, twin, unmeasured, tomorrow = land_days(store, 5, 5, 5, 5, 6)
    day, other = DAYS[:2]
    add(
        store,
        "risk_metrics",
        measured(late, day, 21),
        measured(early, day, 9),
        measured(twin, day, 21),
        measured(unmeasured, day, 22, unavailable="no returns"),
        measured(tomorrow, other),
    )
    add(store, "risk_tails", *(tail(each, day=day) for each in (late, early, twin)))
    add(store, "risk_tails", tail(tomorrow, day=other))

    found = store.forecasts_on(day, day)

    assert [(each.position, each.day, each.stage) for each in found] == [(twin, day, STAGE)]
    assert [each.position for each in store.forecasts_on(day, other)] == [twin, tomorrow]
    assert store.forecasts_on(day, other, worlds={"elsewhere"}) == []


def test_a_forecast_says_when_it_was_received(store: Store) -> None:
    received = datetime(2026, 1, 5, 21, 5, tzinfo=UTC)
    store.land([accept(as_of="2026-01-05T21:00:00Z", received_at=received)])
    position = store.head()
    add(store, "risk_metrics", measured(position, DAYS[0]))
    add(store, "risk_tails", tail(position, day=DAYS[0]))

    (found,) = store.forecasts_on(DAYS[0], DAYS[0])

    assert found.received_at == received


def test_an_outcome_that_changes_takes_the_worlds_later_backtests_with_it(store: Store) -> None:
    rows = [outcome(position, day) for position, day in enumerate(DAYS, start=1)]
    store.write_outcomes(rows, DAYS)
    add(store, "var_backtests", *(backtested(day) for day in DAYS))
    add(store, "var_backtests", *(backtested(day, world_id="other") for day in DAYS[:1]))
    add(store, "var_backtests", *(backtested(day, stage="live") for day in DAYS[3:]))

    store.write_outcomes(rows[1:3], DAYS[1:3])
    assert days_backtested(store) == sorted([*DAYS, *DAYS[3:]])  # the same outcomes: nothing moves

    store.write_outcomes([rows[1], outcome(9, DAYS[2])], DAYS[1:3], worlds={WORLD})
    assert [(row["day"], row["stage"]) for row in store.backtests(WORLD)] == [
        (DAYS[0], STAGE),
        (DAYS[1], STAGE),
        (DAYS[3], "live"),
        (DAYS[4], "live"),
    ]
    assert [row["position"] for row in store.outcomes_on(DAYS[0], DAYS[4])] == [1, 2, 9, 4, 5]
    assert days_backtested(store, "other") == DAYS[:1]


@pytest.mark.parametrize("how", ["the outcome goes", "it went before", "its loss is another"])
def test_what_a_backtest_counted_and_is_not_so_any_more_removes_it(store: Store, how: str) -> None:
    before, after = DAYS[:2], DAYS[2:]
    store.write_outcomes([outcome(n, day) for n, day in enumerate(DAYS)], DAYS)
    add(store, "var_backtests", *(backtested(day) for day in DAYS))
    rows: list[dict[str, Any]] = []
    if how == "it went before":
        store.write_verdicts(
            [verdict(2, day=DAYS[1], accepted=False, reasons=["late"])],
            [DAYS[1]],
            now=datetime(2026, 1, 20, tzinfo=UTC),
            replace=True,
        )
        assert [row["position"] for row in store.outcomes_on(DAYS[0], DAYS[4])] == [0, 1, 3, 4]
    elif how == "its loss is another":
        rows = [outcome(2, after[0], loss=0.02)]

    store.write_outcomes(rows, after[:1])

    assert days_backtested(store) == before


def test_only_the_worlds_of_a_write_are_replaced(store: Store) -> None:
    day = DAYS[0]
    store.write_outcomes([outcome(1, day), outcome(2, day, world_id="other")], [day])

    store.write_outcomes([], [day], worlds={WORLD})

    assert [row["world_id"] for row in store.outcomes_on(day, day)] == ["other"]
    assert store.newest_outcome_day() == day
    assert store.newest_outcome_day({WORLD}) is None


def test_outcomes_are_read_with_the_forecasts_that_they_met(store: Store) -> None:
    store.write_outcomes([outcome(n, day, loss=n / 100) for n, day in enumerate(DAYS)], DAYS)
    for n, day in enumerate(DAYS):
        normal = [] if n == 2 else [tail(n, day=day, method="normal", var=0.5, rank=None)]
        add(store, "risk_tails", tail(n, day=day, var=0.1 + n), tail(n, "0.95", day=day), *normal)

    asked = {"world_id": WORLD, "stage": STAGE, "method": "normal", "level": "0.99"}
    assert store.met_before(DAYS[4], 3, **asked) == [
        (0.0, 0.5, 0.03),
        (0.01, 0.5, 0.03),
        (0.03, 0.5, 0.03),
    ]
    assert store.met_before(DAYS[4], 1, **asked) == [(0.03, 0.5, 0.03)]
    assert store.met_before(DAYS[0], 9, **asked) == []
    assert [row[2:6] for row in store.met_on(DAYS[2], DAYS[2], level="0.99")] == [
        (DAYS[2], "historical", 0.02, 2.1)
    ]
    assert store.met_on(DAYS[2], DAYS[2], level="0.99", worlds={"other"}) == []
    rows = store.met_forecasts(WORLD, stage=STAGE, methods=["historical"], first=DAYS[3])
    assert [(row["day"], row["level"], row["loss"]) for row in rows] == [
        (DAYS[3], "0.95", 0.03),
        (DAYS[3], "0.99", 0.03),
        (DAYS[4], "0.95", 0.04),
        (DAYS[4], "0.99", 0.04),
    ]
    assert store.met_forecasts(WORLD, stage="live") == []


def test_backtests_are_read_by_world_method_and_days_and_the_newest_of_all(store: Store) -> None:
    add(store, "var_backtests", *(backtested(day) for day in DAYS[:3]))
    add(store, "var_backtests", backtested(DAYS[1], method="normal"))
    add(store, "var_backtests", backtested(DAYS[1], world_id="other", zone="red"))

    newest = store.newest_backtests(DAYS[1])

    assert [(row["world_id"], row["method"]) for row in newest] == [
        (WORLD, "historical"),
        (WORLD, "normal"),
        ("other", "historical"),
    ]
    assert [row["day"] for row in store.newest_backtests()] == [DAYS[2]]
    assert store.newest_backtests(DAYS[0] - timedelta(days=1)) == []
    assert len(store.backtests(WORLD, method="normal")) == 1
    assert [row["day"] for row in store.backtests(WORLD, first=DAYS[2])] == [DAYS[2]]
    assert store.backtests(WORLD, level="0.95") == store.backtests(WORLD, stage="live") == []


def test_an_outcome_with_a_forecast_but_no_backtest_is_told(store: Store) -> None:
    store.write_outcomes([outcome(n, day) for n, day in enumerate(DAYS[:4])], DAYS[:4])
    add(
        store,
        "risk_tails",
        *(tail(n, day=DAYS[n]) for n in (0, 1, 2)),
        tail(3, "0.95", day=DAYS[3]),
    )
    add(store, "var_backtests", backtested(DAYS[0]), backtested(DAYS[1], stage="live"))

    assert store.without_backtest("0.99") == {(WORLD, STAGE, day) for day in DAYS[1:3]}
