"""The daily partitions that every table made from snapshots has: the UTC day of `as_of`.

Worlds are rows, not partitions: a day of a thousand worlds is one partition.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg

from riskhub.settings import load_settings

_DAYS_PER_WRITE = 32


def daily_partitions() -> dg.DailyPartitionsDefinition:
    """Every UTC day from the configured first one to today's, which is still being written."""
    return dg.DailyPartitionsDefinition(
        start_date=load_settings().partitions_start.isoformat(), end_offset=1
    )


def days_of(partition_keys: Sequence[str]) -> list[date]:
    """Partition keys as days, oldest first."""
    return sorted(date.fromisoformat(key) for key in partition_keys)


def in_chunks(days: Sequence[date]) -> Iterator[Sequence[date]]:
    """Consecutive days as a range run writes them: a month to a transaction.

    Long enough to be quick, short enough that producers posting meanwhile hardly wait.
    """
    for start in range(0, len(days), _DAYS_PER_WRITE):
        yield days[start : start + _DAYS_PER_WRITE]


def stretches(days: Iterable[date], *, avoid: frozenset[date]) -> list[tuple[date, date]]:
    """Days as few ranges, oldest first: a weekend in between joins, a day to avoid divides."""
    ordered = sorted(set(days) - avoid)
    if not ordered:
        return []
    ranges = [(ordered[0], ordered[0])]
    for before, day in pairwise(ordered):
        between = (before + timedelta(days=n) for n in range(1, (day - before).days))
        if day - before <= timedelta(days=4) and avoid.isdisjoint(between):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges
