"""How old is too old: the states of a world, at and around their limits."""

from datetime import timedelta, timezone

import pytest
from builders import NOW

from riskhub.freshness import Freshness, WorldFreshness, assess


def state_at(age_seconds: float, stage: str = "paper") -> WorldFreshness:
    (assessed,) = assess(
        [("equities", stage, NOW - timedelta(seconds=age_seconds))],
        now=NOW,
        stale_after_sec=600,
        critical_after_sec=1800,
        timeless_stages=frozenset({"backtest"}),
    )
    return assessed


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (0, Freshness.FRESH),
        (600, Freshness.FRESH),
        (600.000001, Freshness.STALE),
        (1800, Freshness.STALE),
        (1800.000001, Freshness.CRITICAL),
        (10**9, Freshness.CRITICAL),
    ],
)
def test_a_state_begins_beyond_its_limit(age: float, state: Freshness) -> None:
    assessed = state_at(age)
    assert (assessed.state, assessed.age_seconds) == (state, pytest.approx(age))


def test_a_world_ahead_of_the_clock_is_fresh_and_of_age_zero() -> None:
    assert (state_at(-60).state, state_at(-60).age_seconds) == (Freshness.FRESH, 0.0)


@pytest.mark.parametrize("age", [0, 10**9])
def test_history_is_never_stale_and_still_has_an_age(age: float) -> None:
    assessed = state_at(age, stage="backtest")
    assert (assessed.state, assessed.age_seconds) == (Freshness.EXEMPT, age)


def test_an_offset_makes_no_difference_to_an_age() -> None:
    tokyo = (NOW - timedelta(seconds=60)).astimezone(timezone(timedelta(hours=9)))
    (assessed,) = assess(
        [("fx", "live", tokyo)],
        now=NOW,
        stale_after_sec=60,
        critical_after_sec=61,
        timeless_stages=frozenset(),
    )
    assert assessed == WorldFreshness("fx", "live", tokyo, 60.0, Freshness.FRESH)


def test_every_world_and_stage_is_assessed_by_itself_in_the_order_given() -> None:
    ages = {("b", "live"): 0, ("a", "live"): 700, ("a", "paper"): 2000, ("a", "backtest"): 2000}
    assessed = assess(
        [(world, stage, NOW - timedelta(seconds=age)) for (world, stage), age in ages.items()],
        now=NOW,
        stale_after_sec=600,
        critical_after_sec=1800,
        timeless_stages=frozenset({"backtest"}),
    )
    assert [(row.world_id, row.stage) for row in assessed] == list(ages)
    assert [row.state for row in assessed] == ["fresh", "stale", "critical", "exempt"]
    assert (
        assess([], now=NOW, stale_after_sec=1, critical_after_sec=2, timeless_stages=frozenset())
        == []
    )
