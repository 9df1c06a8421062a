"""Ranges of calendar days."""

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise

# Friday to Tuesday: a long weekend without snapshots doesn't divide a range.
LONGEST_GAP = timedelta(days=4)


def stretches(
    days: Iterable[date],
    *,
    avoid: frozenset[date] = frozenset(),
    longest_gap: timedelta = LONGEST_GAP,
) -> list[tuple[date, date]]:
    """Days as few ranges (first, last), oldest first.

    Args:
        days: in any order.
        avoid: days that no range may contain, also not in a gap.
        longest_gap: from one day to the next of a range, at most.
    """
    ordered = sorted(set(days) - avoid)
    if not ordered:
        return []
    ranges = [(ordered[0], ordered[0])]
    for before, day in pairwise(ordered):
        if day - before <= longest_gap and avoid.isdisjoint(each_day(before, day)):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def cut(ranges: Iterable[tuple[date, date]], longest: int | None) -> list[tuple[date, date]]:
    """Ranges in pieces of at most `longest` days each, in their order; None leaves them whole."""
    if longest is None:
        return list(ranges)
    return [
        (begin, min(last, begin + timedelta(days=longest - 1)))
        for first, last in ranges
        for begin in each_day(first, last)[::longest]
    ]


def each_day(first: date, last: date) -> list[date]:
    """Every calendar day from `first` to `last`, both included."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
