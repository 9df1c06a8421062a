"""Ranges of calendar days: few, whole, and never over a day that is to be avoided."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from riskhub.days import LONGEST_GAP, cut, each_day, stretches

FRIDAY = date(2020, 1, 3)
MONDAY, TUESDAY, WEDNESDAY = (FRIDAY + timedelta(days=n) for n in (3, 4, 5))
some_days = st.sets(st.dates(date(2020, 1, 1), date(2020, 3, 1)), max_size=25)


def test_no_days_are_no_range() -> None:
    assert stretches([]) == []


def test_one_day_is_a_range_of_itself() -> None:
    assert stretches([MONDAY]) == [(MONDAY, MONDAY)]


def test_days_in_any_order_and_twice_make_one_range() -> None:
    assert stretches([TUESDAY, MONDAY, TUESDAY, WEDNESDAY]) == [(MONDAY, WEDNESDAY)]


def test_a_long_weekend_does_not_divide_a_range() -> None:
    assert stretches([FRIDAY, TUESDAY]) == [(FRIDAY, TUESDAY)]


def test_a_longer_gap_divides_ranges_oldest_first() -> None:
    assert stretches([WEDNESDAY, FRIDAY]) == [(FRIDAY, FRIDAY), (WEDNESDAY, WEDNESDAY)]


def test_a_day_to_avoid_is_in_no_range() -> None:
    assert stretches([FRIDAY, MONDAY, TUESDAY], avoid=frozenset({MONDAY})) == [
        (FRIDAY, FRIDAY),
        (TUESDAY, TUESDAY),
    ]


def test_a_day_to_avoid_divides_a_range_also_from_within_a_gap() -> None:
    sunday = FRIDAY + timedelta(days=2)

    assert stretches([FRIDAY, MONDAY], avoid=frozenset({sunday})) == [
        (FRIDAY, FRIDAY),
        (MONDAY, MONDAY),
    ]


def test_each_day_includes_both_ends() -> None:
    assert each_day(MONDAY, WEDNESDAY) == [MONDAY, TUESDAY, WEDNESDAY]
    assert each_day(MONDAY, MONDAY) == [MONDAY]


def test_each_day_passes_a_leap_day() -> None:
    assert each_day(date(2020, 2, 28), date(2020, 3, 1))[1] == date(2020, 2, 29)


@given(some_days, some_days)
def test_ranges_cover_every_day_that_is_not_avoided_and_none_that_is(
    days: set[date], avoid: set[date]
) -> None:
    covered = [day for span in stretches(days, avoid=frozenset(avoid)) for day in each_day(*span)]

    assert days - avoid <= set(covered)
    assert avoid.isdisjoint(covered)
    assert covered == sorted(set(covered))


@given(some_days, some_days)
def test_ranges_are_as_few_as_the_gap_and_the_avoided_days_allow(
    days: set[date], avoid: set[date]
) -> None:
    ranges = stretches(days, avoid=frozenset(avoid))

    assert {end for span in ranges for end in span} <= days
    for (_, last), (first, _) in pairwise(ranges):
        assert first - last > LONGEST_GAP or not avoid.isdisjoint(each_day(last, first))


def test_long_ranges_are_cut_and_short_ones_stay() -> None:
    ranges = [(MONDAY, MONDAY + timedelta(days=6)), (FRIDAY, FRIDAY)]

    assert cut(ranges, 3) == [
        (MONDAY, MONDAY + timedelta(days=2)),
        (MONDAY + timedelta(days=3), MONDAY + timedelta(days=5)),
        (MONDAY + timedelta(days=6), MONDAY + timedelta(days=6)),
        (FRIDAY, FRIDAY),
    ]


def test_nothing_is_cut_without_a_length() -> None:
    assert cut([(MONDAY, FRIDAY)], None) == [(MONDAY, FRIDAY)]
