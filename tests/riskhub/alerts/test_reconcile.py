"""What is told of what is wrong: once, again, and that it is over; by example and by property."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from alerting import (
    DESK,
    OPEN_AFTER,
    POLICY,
    REPEAT,
    RESOLVE_AFTER,
    Timeline,
    condition,
)
from builders import NOW
from hypothesis import given
from hypothesis import strategies as st

from riskhub.alerts.reconcile import (
    WATCHDOG,
    Alert,
    Severity,
    Silence,
    State,
    Terms,
    What,
    acknowledged,
    reconcile,
    told,
)

KEY = "late:w/live"
AM = Terms("am", timedelta(seconds=30), refreshes=True, watchdog=True)


def test_something_wrong_is_told_once_it_has_held_and_its_end_once_it_is_gone_for_long() -> None:
    line = Timeline()
    assert line.at(0, condition()) == []
    assert line.at(29, condition()) == []
    assert line.at(30, condition()) == [("opened", KEY)]
    assert line.at(60, condition()) == []
    assert line.at(70) == []
    assert line.at(129) == []
    assert line.at(130) == [("resolved", KEY)]
    assert line.at(140) == []
    assert (len(line.alerts), len(line.over)) == (0, 1)
    (over,) = line.over
    assert over.first_seen == NOW
    assert over.opened_at == NOW + OPEN_AFTER
    assert over.resolved_at == NOW + timedelta(seconds=130)


def test_what_goes_before_it_has_held_is_nothing() -> None:
    line = Timeline()
    line.at(0, condition())
    line.at(20)
    assert line.alerts == []
    assert line.at(40, condition()) == line.at(60, condition()) == []


def test_an_open_alert_that_flickers_is_one_alert() -> None:
    line = Timeline()
    line.at(0, condition())
    line.at(30, condition())
    for second in range(40, 400, 20):
        assert line.at(second, *[condition()] * (second % 40 == 0)) == []
    (alert,) = line.alerts
    assert alert.count == 9


def test_what_comes_from_what_does_not_flap_opens_at_once() -> None:
    assert Timeline().at(0, condition(at_once=True)) == [("opened", KEY)]


def test_it_is_repeated_until_somebody_has_seen_it() -> None:
    line = Timeline()
    line.at(0, condition(at_once=True))
    assert line.at(3_599, condition()) == []
    assert line.at(3_600, condition()) == [("repeated", KEY)]
    line.alerts = [acknowledged(alert, "ann", line.now) for alert in line.alerts]
    line.alerts = [acknowledged(alert, "bob", line.now) for alert in line.alerts]
    assert line.alerts[0].acknowledged_by == "ann"
    assert line.at(9_000, condition()) == []
    line.at(9_010)
    assert line.at(9_070) == [("resolved", KEY)]


def test_who_has_seen_a_warning_has_not_seen_that_it_is_critical() -> None:
    line = Timeline()
    line.at(0, condition(at_once=True))
    line.alerts = [acknowledged(alert, "ann", line.now) for alert in line.alerts]
    critical = condition(severity=Severity.CRITICAL)
    assert line.at(10, critical) == [("worsened", KEY)]
    assert line.alerts[0].acknowledged_by is None
    # It gets better by going, not by becoming a warning for a while.
    assert line.at(20, condition()) == []
    assert line.alerts[0].severity is Severity.CRITICAL


def test_a_silenced_alert_is_told_when_the_silence_ends_and_it_is_still_there() -> None:
    line = Timeline()
    line.silences = [Silence("late:w/*", NOW, NOW + timedelta(seconds=100))]
    assert line.at(0, condition(at_once=True)) == []
    assert line.alerts[0].state is State.OPEN
    assert line.at(99, condition()) == []
    assert line.at(100, condition()) == [("opened", KEY)]


def test_what_came_and_went_in_silence_is_never_told() -> None:
    line = Timeline()
    line.silences = [Silence("*", NOW, NOW + timedelta(seconds=100))]
    line.at(0, condition(at_once=True))
    line.at(10)
    assert line.at(70) == line.at(200) == []
    assert len(line.over) == 1


def test_the_end_of_what_was_told_is_told_in_silence_too() -> None:
    line = Timeline()
    line.at(0, condition(at_once=True))
    line.silences = [Silence(KEY, NOW, NOW + timedelta(days=1))]
    assert line.at(4_000, condition()) == []
    line.at(4_010)
    assert line.at(4_070) == [("resolved", KEY)]


def test_a_source_that_can_not_be_asked_changes_nothing() -> None:
    line = Timeline()
    line.at(0, condition(at_once=True))
    assert line.at(1_000, unknown=["worlds"]) == []
    assert line.alerts[0].state is State.OPEN
    assert line.at(3_600, unknown=["worlds"]) == [("repeated", KEY)]
    pending = Timeline()
    pending.at(0, condition())
    assert pending.at(40, unknown=["worlds"]) == []
    assert pending.at(50, condition()) == [("opened", KEY)]


# --- one reason for many ---------------------------------------------------------------------


def members(count: int = 3) -> list:
    return [condition(f"late:w{n}/live", explained_by=("worlds-late",)) for n in range(count)]


def test_many_with_one_reason_are_one_alert_that_opens_and_one_that_resolves() -> None:
    line = Timeline()
    reason = condition("worlds-late")
    for second in range(0, 300, 10):
        line.at(second, reason, *members())
    assert line.told == [("desk", "opened", "worlds-late")]
    # The first lands again, then the others one by one: nobody hears of them.
    for second in range(300, 380, 10):
        line.at(second, *members(max(0, 2 - (second - 300) // 30)))
    assert line.told == [("desk", "opened", "worlds-late"), ("desk", "resolved", "worlds-late")]


def test_what_stays_wrong_when_the_reason_is_gone_is_told_by_itself() -> None:
    line = Timeline()
    for second in range(0, 100, 10):
        line.at(second, condition("worlds-late"), *members())
    line.told.clear()
    for second in range(100, 200, 10):
        line.at(second, *members(1))
    assert [each[1:] for each in line.told] == [
        ("resolved", "worlds-late"),
        ("opened", "late:w0/live"),
    ]


def test_a_reason_that_never_holds_long_enough_hides_nothing() -> None:
    line = Timeline()
    for second in range(0, 60, 10):
        line.at(second, *[condition("worlds-late")] * (second % 20 == 0), *members(1))
    assert line.told == [("desk", "opened", "late:w0/live")]


def test_what_was_told_before_its_reason_is_not_repeated_beside_it() -> None:
    line = Timeline()
    (one,) = members(1)
    line.at(0, replace(one, at_once=True))
    for second in range(10, 8_000, 1_000):
        line.at(second, one, condition("worlds-late"))
    repeated = Counter(key for _, what, key in line.told if what == What.REPEATED)
    assert repeated.keys() == {"worlds-late"}


# --- receivers -------------------------------------------------------------------------------


def test_each_receiver_is_told_by_its_own_marks() -> None:
    line = Timeline(DESK, Terms("log", REPEAT))
    line.away = {"desk"}
    line.at(0, condition(at_once=True))
    line.at(10, condition())
    assert line.told == [("log", "opened", KEY)]
    line.away.clear()
    line.at(20, condition())
    assert line.told[1:] == [("desk", "opened", KEY)]


def test_an_alert_that_was_over_before_it_could_be_told_is_told_all_the_same() -> None:
    line = Timeline()
    line.away = {"desk"}
    line.at(0, condition(at_once=True))
    line.at(10)
    line.at(70)
    assert line.alerts[0].state is State.RESOLVED
    line.away.clear()
    assert line.at(5_000) == [("opened", KEY)]
    assert line.at(5_010) == [("resolved", KEY)]
    assert line.at(5_020) == []


def test_one_that_forgets_is_told_over_and_over_also_what_somebody_has_seen() -> None:
    line = Timeline(AM)
    line.at(0, condition(at_once=True))
    line.alerts = [acknowledged(alert, "ann", line.now) for alert in line.alerts]
    line.silences = [Silence("*", NOW, NOW + timedelta(days=1))]
    assert line.at(29, condition()) == []
    assert line.at(30, condition()) == [("repeated", KEY)]


def test_the_watchdog_goes_to_whoever_wants_it_and_can_not_be_silenced() -> None:
    dog = condition(WATCHDOG, source=WATCHDOG, at_once=True)
    line = Timeline(DESK, AM, Terms("dog", timedelta(seconds=60), watchdog=True, others=False))
    line.silences = [Silence("*", NOW, NOW + timedelta(days=1))]
    line.at(0, dog, condition(at_once=True))
    assert line.told == [("am", "opened", WATCHDOG), ("dog", "opened", WATCHDOG)]
    line.at(60, dog)
    assert line.told[2:] == [("am", "repeated", WATCHDOG), ("dog", "repeated", WATCHDOG)]


# --- properties ------------------------------------------------------------------------------

KEYS = ("a", "b", "c", "reason")
looks = st.lists(
    st.tuples(
        st.integers(1, 50),  # seconds since the last
        st.sets(st.sampled_from(KEYS)),  # what is wrong
        st.sampled_from(Severity),
        st.sets(st.sampled_from(["desk", "log"])),  # who is away
        st.booleans(),  # whether the process was started anew
        st.booleans(),  # whether the source can be asked
    ),
    max_size=60,
)


def lived(line: Timeline, history: list, *, ends: bool = True) -> int:
    """Live through a history, and on until nothing is left; gives how long it took."""
    second = 0
    for passed, wrong, severity, away, restarted, known in history:
        second += passed
        line.away = away
        if restarted:  # what is pending is nowhere on record
            line.alerts = [each for each in line.alerts if each.state is not State.PENDING]
        line.at(
            second,
            *(
                condition(key, severity=severity, explained_by=("reason",) * (key != "reason"))
                for key in wrong
                if known
            ),
            unknown=() if known else ("worlds",),
        )
        open_keys = [each.key for each in line.alerts if each.state is not State.RESOLVED]
        assert len(open_keys) == len(set(open_keys))
    if ends:
        line.away = set()
        for _ in range(6):
            second += 60
            line.at(second)
        assert line.alerts == []
    return second


@given(looks)
def test_every_opening_is_told_to_everybody_and_resolved_exactly_once(history: list) -> None:
    line = Timeline(DESK, Terms("log", timedelta(seconds=120)))
    lived(line, history)
    opened = Counter(alert.key for alert in line.over)
    assert len({alert.id for alert in line.over}) == len(line.over)
    for receiver in ("desk", "log"):
        for what in (What.OPENED, What.RESOLVED):
            of_it = Counter(
                key for who, told_, key in line.told if (who, told_) == (receiver, what)
            )
            assert of_it == opened
        for key in KEYS:
            story = [told_ for who, told_, of in line.told if (who, of) == (receiver, key)]
            is_open = False
            for told_ in story:
                assert is_open == (told_ != What.OPENED)
                is_open = told_ != What.RESOLVED


@given(looks)
def test_flapping_is_bounded_by_the_times_that_things_must_hold_and_be_gone(history: list) -> None:
    line = Timeline()
    seconds = lived(line, history)
    period = (OPEN_AFTER + RESOLVE_AFTER).total_seconds()
    for key in KEYS:
        assert sum(alert.key == key for alert in line.over) <= seconds / period + 1


@given(looks)
def test_an_alert_is_open_only_when_it_held_and_is_over_only_when_it_was_gone(
    history: list,
) -> None:
    line = Timeline()
    lived(line, history)
    for alert in line.over:
        assert alert.opened_at is not None
        assert alert.resolved_at is not None
        assert alert.gone_since is not None
        assert alert.opened_at - alert.first_seen >= OPEN_AFTER
        assert alert.resolved_at - alert.gone_since >= RESOLVE_AFTER
        assert alert.last_seen <= alert.gone_since


@given(looks)
def test_asked_twice_at_the_same_moment_it_says_the_same(history: list) -> None:
    line = Timeline()
    lived(line, history, ends=False)
    first, second = line.step(condition("a")), line.step(condition("a"))
    assert first == second
    again = reconcile(
        first.alerts, [condition("a")], line.now, policy=POLICY, receivers=line.receivers
    )
    assert again.alerts == first.alerts


@given(looks)
def test_what_holds_on_and_on_is_open_in_the_end(before: list) -> None:
    line = Timeline()
    second = lived(line, before, ends=False)
    line.away = set()
    for _ in range(20):
        second += 10
        line.at(second, condition("a"))
    (alert,) = [each for each in line.alerts if each.key == "a" and each.state is State.OPEN]
    assert alert.told["desk"].what in {What.OPENED, What.WORSENED, What.REPEATED}


def test_a_mark_says_what_was_taken_and_leaves_the_rest_due() -> None:
    line = Timeline()
    line.now = NOW
    (notice,) = line.step(condition(at_once=True)).notices
    worse = replace(
        notice.alert, condition=condition(severity=Severity.CRITICAL)
    )  # it moved on while it was delivered
    marked = told(worse, notice, NOW)
    assert marked.told["desk"].severity is Severity.WARNING
    line.alerts = [marked]
    assert line.at(10, condition(severity=Severity.CRITICAL)) == [("worsened", KEY)]


@pytest.mark.parametrize("pattern", ["late:*", "late:w/live", "*", "late:[vw]/live"])
def test_silences_cover_by_pattern_and_time(pattern: str) -> None:
    silence = Silence(pattern, NOW, NOW + timedelta(hours=1))
    assert silence.covers(KEY, NOW)
    assert not silence.covers(KEY, NOW - timedelta(seconds=1))
    assert not silence.covers(KEY, NOW + timedelta(hours=1))
    assert not silence.covers(WATCHDOG, NOW)


def test_the_id_is_of_one_opening() -> None:
    line = Timeline()
    line.at(0, condition(at_once=True))
    first: Alert = line.alerts[0]
    line.at(10)
    line.at(70)
    line.at(80, condition(at_once=True))
    assert line.over[0].id == first.id != line.alerts[0].id
