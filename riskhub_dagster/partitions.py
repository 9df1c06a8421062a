"""The daily partitions that every table made from snapshots has: the UTC day of `as_of`.

Worlds are rows, not partitions: a day of a thousand worlds is one partition.
"""

from collections.abc import Iterator, Sequence
from datetime import date

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
