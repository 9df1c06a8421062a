"""The daily partitions that every table made from snapshots has: the UTC day of `as_of`.

Worlds are rows, not partitions: a day of a thousand worlds is one partition. Here is also how a
range of them is cut into the runs of a backfill, and those into transactions.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

import dagster as dg

from riskhub.settings import load_settings

_DAYS_PER_WRITE = 32
_SNAPSHOTS_PER_WRITE = 2_000


def daily_partitions() -> dg.DailyPartitionsDefinition:
    """Every UTC day from the configured first one to today's, which is still being written."""
    return dg.DailyPartitionsDefinition(
        start_date=load_settings().partitions_start.isoformat(), end_offset=1
    )


def backfill_policy() -> dg.BackfillPolicy:
    """How a backfill makes runs of a range: one by default, or several that go side by side.

    They end in any order. What a day is made from is in its own day, but for outcomes and
    backtests: what these lack in such a run is due by then, and the outcome sensor has it computed.
    The store has one writer a day, whoever it is.
    """
    longest = load_settings().backfill_days_per_run
    if longest is None:
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=longest)


def days_of(partition_keys: Sequence[str]) -> list[date]:
    """Partition keys as days, oldest first."""
    return sorted(date.fromisoformat(key) for key in partition_keys)


def in_chunks(days: Sequence[date], sizes: Mapping[date, int]) -> Iterator[Sequence[date]]:
    """Consecutive days as a range run writes them: to a transaction a month, or fewer snapshots.

    Long enough to be quick, short enough that memory stays bounded however many worlds there are,
    and producers posting meanwhile hardly wait. A day is never split, and a chunk has no gaps.

    Args:
        sizes: how many snapshots a day has; a day that is missing has none.
    """
    chunk: list[date] = []
    size = 0
    for day in days:
        more = sizes.get(day, 0)
        full = len(chunk) == _DAYS_PER_WRITE or size + more > _SNAPSHOTS_PER_WRITE
        if chunk and (full or day - chunk[-1] > timedelta(days=1)):
            yield chunk
            chunk, size = [], 0
        chunk.append(day)
        size += more
    if chunk:
        yield chunk
