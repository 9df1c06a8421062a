"""How old is too old: the states of a world, at and around their limits, in open hours."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from builders import NOW
from hypothesis import given
from hypothesis import strategies as st

from riskhub.freshness import (
    Freshness,
    Newest,
    Policies,
    Policy,
    Severity,
    WorldFreshness,
    assess,
    calendars,
    worst_first,
)
from riskhub.freshness.calendars import OpenHours, open_hours
from riskhub.freshness.settings import FreshnessRule, FreshnessSettings
from riskhub.settings import Settings, SettingsInvalid, load_settings

USUAL = Policy(600, 1800)
HOUR = 3600.0
SECOND = timedelta(seconds=1)


def newest(
    age_seconds: float, *, served: bool = True, world: str = "equities", stage: str = "paper"
) -> Newest:
    alive_until = NOW + SECOND if served else NOW
    return Newest(world, stage, NOW - timedelta(seconds=age_seconds), alive_until)


def state_at(
    age_seconds: float, policy: Policy = USUAL, *, served: bool = True, now: datetime = NOW
) -> WorldFreshness:
    (assessed,) = assess([newest(age_seconds, served=served)], now=now, policy_of=lambda *_: policy)
    return assessed


@pytest.mark.parametrize(
    ("age", "served", "not_served", "severity"),
    [
        (0, "fresh", "fresh", "ok"),
        (600, "fresh", "fresh", "ok"),
        (600.000001, "stale", "expired", "warning"),
        (1800, "stale", "expired", "warning"),
        (1800.000001, "critical", "expired", "critical"),
        (10**9, "critical", "expired", "critical"),
    ],
)
def test_a_state_begins_beyond_its_limit_and_says_what_consumers_get(
    age: float, served: str, not_served: str, severity: str
) -> None:
    for is_served, state in ((True, served), (False, not_served)):
        assessed = state_at(age, served=is_served)
        assert (assessed.state, assessed.severity) == (state, severity)
        assert assessed.age_seconds == assessed.open_age_seconds == pytest.approx(age)
        assert assessed.served == is_served


def test_what_expires_at_this_very_instant_is_not_served() -> None:
    for until, served in ((NOW, False), (NOW + SECOND / 1e6, True), (None, False)):
        (assessed,) = assess(
            [newest(700)._replace(alive_until=until)], now=NOW, policy_of=lambda *_: USUAL
        )
        assert assessed.served == served


def test_a_world_ahead_of_the_clock_is_fresh_and_of_age_zero() -> None:
    assert (state_at(-60).state, state_at(-60).age_seconds) == (Freshness.FRESH, 0.0)


@pytest.mark.parametrize("age", [0, 10**9])
def test_history_is_never_late_and_still_has_an_age(age: float) -> None:
    assessed = state_at(age, replace(USUAL, exempt=True), served=False)
    assert (assessed.state, assessed.severity) == (Freshness.EXEMPT, Severity.OK)
    assert assessed.age_seconds == age


def test_an_offset_makes_no_difference_to_an_age() -> None:
    tokyo = (NOW - timedelta(seconds=60)).astimezone(timezone(timedelta(hours=9)))
    (assessed,) = assess(
        [Newest("fx", "live", tokyo, None)], now=NOW, policy_of=lambda *_: Policy(60, 61)
    )
    assert (assessed.state, assessed.age_seconds) == (Freshness.FRESH, 60.0)


def test_what_is_expected_and_never_landed_is_missing() -> None:
    expected = {("fx", "live"), ("equities", "paper"), ("bonds", "backtest")}
    assessed = assess([newest(0)], now=NOW, policy_of=lambda *_: USUAL, expected=expected)
    assert [(each.world_id, each.stage, each.state) for each in assessed] == [
        ("equities", "paper", "fresh"),
        ("bonds", "backtest", "missing"),
        ("fx", "live", "missing"),
    ]
    assert {each.severity for each in assessed[1:]} == {Severity.CRITICAL}
    assert assessed[1].age_seconds is assessed[1].open_age_seconds is None
    assert not assessed[1].served


@pytest.mark.parametrize(
    ("exempt", "expected", "state"),
    [
        (False, set(), "missing"),
        (True, set(), "exempt"),
        (True, {("equities", "paper")}, "missing"),
    ],
)
def test_a_world_of_which_everything_was_rejected_has_no_news(
    exempt: bool, expected: set[tuple[str, str]], state: str
) -> None:
    (assessed,) = assess(
        [Newest("equities", "paper", None, None)],
        now=NOW,
        policy_of=lambda *_: replace(USUAL, exempt=exempt),
        expected=expected,
    )
    assert (assessed.state, assessed.newest_as_of) == (state, None)


ages = st.floats(-1e9, 1e9)
limits = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).map(sorted)


@given(ages, ages, limits, st.booleans())
def test_who_is_older_is_never_less_urgent_and_no_age_is_negative(
    one: float, other: float, given: list[int], served: bool
) -> None:
    policy = Policy(*given)
    younger, older = (state_at(age, policy, served=served) for age in sorted((one, other)))
    assert younger.severity.rank <= older.severity.rank
    assert younger.age_seconds is not None
    assert younger.age_seconds >= 0


def test_the_most_urgent_come_first_then_what_is_missing_then_the_oldest() -> None:
    rows = [
        newest(10, world="young"),
        newest(700, world="late"),
        newest(2_000, world="too-late"),
        newest(9_000, world="far-too-late", served=False),
        newest(300, world="older"),
    ]
    assessed = assess(rows, now=NOW, policy_of=lambda *_: USUAL, expected={("never", "live")})
    assert [world.world_id for world in worst_first(assessed)] == [
        "never", "far-too-late", "too-late", "late", "older", "young",
    ]  # fmt: skip


# -- open hours -----------------------------------------------------------------------------------

MONDAY = datetime(2026, 1, 26, tzinfo=UTC)


def at(hours: float) -> datetime:
    return MONDAY + timedelta(hours=hours)


def days_from_9_to_17(count: int) -> OpenHours:
    begin = MONDAY.timestamp()
    return OpenHours.of(
        "DESK", [(begin + (24 * n + 9) * HOUR, begin + (24 * n + 17) * HOUR) for n in range(count)]
    )


DESK = days_from_9_to_17(5)


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        (9, 17, 8),
        (10, 12.5, 2.5),
        (16, 33.5, 1.5),  # over a night
        (17, 33, 0),
        (18, 30, 0),
        (12, 12 + 48, 16),
        (9, 4 * 24 + 17, 40),
    ],
)
def test_only_open_hours_count(since: float, until: float, hours: float) -> None:
    assert DESK.open_seconds(at(since), at(until)) == hours * HOUR


@given(*[st.floats(9, 4 * 24 + 17)] * 3)
def test_open_hours_add_up_and_never_exceed_the_clock(one: float, two: float, three: float) -> None:
    first, middle, last = map(at, sorted((one, two, three)))
    whole = DESK.open_seconds(first, last)
    parts = DESK.open_seconds(first, middle) + DESK.open_seconds(middle, last)
    assert parts == pytest.approx(whole, abs=1e-3)
    assert -1e-3 <= whole <= (last - first).total_seconds() + 1e-3


def by_desk(since: float, now: float, hours: OpenHours | str = DESK) -> WorldFreshness:
    (assessed,) = assess(
        [Newest("equities", "live", at(since), at(now) + SECOND)],
        now=at(now),
        policy_of=lambda *_: Policy(600, 1800, "DESK"),
        hours_of=lambda _: hours,
    )
    return assessed


def test_a_closed_market_is_not_stale_and_ages_again_when_it_opens() -> None:
    just_before_the_close = 17 - 120 / HOUR
    ages = {
        17 + 8: (120, "fresh"),
        33: (120, "fresh"),
        33 + 480 / HOUR: (600, "fresh"),
        33 + 481 / HOUR: (601, "stale"),
        33 + 1681 / HOUR: (1801, "critical"),
    }
    for now, (open_age, state) in ages.items():
        assessed = by_desk(just_before_the_close, now)
        assert (assessed.open_age_seconds, assessed.state) == (pytest.approx(open_age), state)
        assert assessed.age_seconds == pytest.approx((now - just_before_the_close) * HOUR)
        assert assessed.note is None


@pytest.mark.parametrize(("since", "now"), [(8.99, 9.1), (16, 4 * 24 + 17.1), (-9_000, 9_000)])
def test_beyond_its_range_a_calendar_is_left_out_and_that_is_told(since: float, now: float) -> None:
    assessed = by_desk(since, now)
    assert assessed.open_age_seconds == assessed.age_seconds == pytest.approx((now - since) * HOUR)
    assert assessed.note == ("DESK is known from 2026-01-26 to 2026-01-30; closed hours count, too")


def test_without_a_calendar_every_hour_counts_and_the_reason_is_told() -> None:
    assessed = by_desk(10, 12, "exchange-calendars has no calendar DESK")
    assert (assessed.open_age_seconds, assessed.state) == (2 * HOUR, "critical")
    assert assessed.note == "exchange-calendars has no calendar DESK"


def test_what_is_ahead_of_the_clock_needs_no_calendar() -> None:
    assert (by_desk(12, 11).open_age_seconds, by_desk(12, 11).state) == (0, "fresh")


# -- real calendars -------------------------------------------------------------------------------


def test_new_york_over_a_weekend_a_holiday_and_an_early_close() -> None:
    hours = open_hours("XNYS")
    assert isinstance(hours, OpenHours)

    def between(*ends: str) -> float:
        return hours.open_seconds(*map(datetime.fromisoformat, ends))  # type: ignore[arg-type]

    assert between("2026-01-30T20:59:00Z", "2026-02-02T14:31:00Z") == 120
    assert between("2025-12-24T14:30:00Z", "2025-12-26T14:30:00Z") == 3.5 * HOUR
    # Summer time begins on the 8th of March: it opens an hour earlier by UTC.
    assert between("2026-03-06T14:30:00Z", "2026-03-09T14:30:00Z") == 7.5 * HOUR


def test_a_pause_at_noon_is_no_open_time() -> None:
    hours = open_hours("XHKG")
    assert isinstance(hours, OpenHours)
    day = [datetime(2026, 1, 30, hour, tzinfo=UTC) for hour in (1, 9)]
    assert hours.open_seconds(*day) == 5.5 * HOUR


def test_a_calendar_that_does_not_exist_is_told_and_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = open_hours("MARS")
    assert told == "exchange-calendars has no calendar MARS; closed hours count, too"
    monkeypatch.setattr(calendars, "_load", lambda _: pytest.fail("asked again"))
    assert open_hours("MARS") == told


def test_nothing_imports_the_calendars_before_an_age_is_asked_for() -> None:
    code = (
        "import sys, api.app, riskhub.cli, riskhub_dagster.definitions as d; "
        "sys.exit('exchange_calendars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- policies -------------------------------------------------------------------------------------


def policies(*rules: FreshnessRule, **settings: object) -> Policies:
    return Policies(
        FreshnessSettings(rules=rules, **settings),  # type: ignore[arg-type]
        stale_after_sec=600,
        critical_after_sec=1800,
        timeless_stages={"backtest"},
    )


def test_without_rules_the_old_settings_hold() -> None:
    held = policies()
    assert held.policy("w", "live") == Policy(600, 1800, "24/7", exempt=False)
    assert held.policy("w", "backtest") == Policy(600, 1800, "24/7", exempt=True)
    assert (held.expected, held.calendars) == (frozenset(), ["24/7"])


def test_of_the_rules_that_apply_the_first_that_says_a_thing_decides_it() -> None:
    held = policies(
        FreshnessRule(world="fx", stale_after_sec=30, critical_after_sec=60),
        FreshnessRule(world="eq-*", stage="live", stale_after_sec=5, critical_after_sec=9),
        FreshnessRule(world="eq-*", stale_after_sec=99, critical_after_sec=999, calendar="XNYS"),
        FreshnessRule(stage="backtest", exempt=False),
        FreshnessRule(world="retired", exempt=True),
        FreshnessRule(calendar="XLON"),
        calendar="XHKG",
    )
    assert held.policy("fx", "live") == Policy(30, 60, "XLON")
    assert held.policy("eq-us", "live") == Policy(5, 9, "XNYS")
    assert held.policy("eq-us", "paper") == Policy(99, 999, "XNYS")
    assert held.policy("other", "backtest") == Policy(600, 1800, "XLON", exempt=False)
    assert held.policy("retired", "live").exempt
    assert held.policy("EQ-US", "live") == Policy(600, 1800, "XLON")
    assert held.calendars == ["XHKG", "XLON", "XNYS"]


def test_a_name_with_a_patterns_signs_in_it_is_still_a_name() -> None:
    held = policies(FreshnessRule(stage="live [eu]", exempt=True))
    assert held.policy("w", "live [eu]").exempt


def test_only_what_is_asked_about_is_expected() -> None:
    held = policies(expected=("a/live", "a/paper", "b/live/eu"))
    ask: Callable[..., set[tuple[str, str]]] = lambda **which: {  # noqa: E731
        (each.world_id, each.stage) for each in held.assess([], now=NOW, **which)
    }
    assert ask() == {("a", "live"), ("a", "paper"), ("b", "live/eu")}
    assert ask(world_id="a") == {("a", "live"), ("a", "paper")}
    assert ask(stage="live") == {("a", "live")}
    assert ask(world_id="c") == set()


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ('{"expected": ["equities"]}', "expected"),
        ('{"rules": [{"stale_after_sec": 5}]}', "go together"),
        (
            '{"rules": [{"stale_after_sec": 9, "critical_after_sec": 5}]}',
            "stale_after_sec 9 is beyond critical_after_sec 5",
        ),
        ('{"rules": [{"worlds": "x"}]}', "there is no such setting"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, block: str, why: str
) -> None:
    monkeypatch.setenv("RISKHUB_FRESHNESS", block)
    with pytest.raises(SettingsInvalid, match=why):
        load_settings()


def test_the_settings_of_a_process_are_its_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_STALE_AFTER_SEC", "5")
    monkeypatch.setenv("RISKHUB_TIMELESS_STAGES", '["test"]')
    monkeypatch.setenv("RISKHUB_FRESHNESS", '{"expected": ["a/live"], "calendar": "XNYS"}')
    held = Policies.of(Settings())
    assert held.policy("a", "test") == Policy(5, 1800, "XNYS", exempt=True)
    assert held.expected == {("a", "live")}
