"""More processes, and more machines' worth of them: what is gained, and what it is bound by.

Limits: a run begins on warm run workers in at most 0.7 of the default launcher's time, and two
workers compute a backfill at least 1.6 times as fast as one, where the cores allow it.
"""

from benchmarks import _run_workers


def run() -> bool:
    """Measure each part; True when every limit holds, or what bounds it is named."""
    within = [part() for part in (_run_workers.launches, _run_workers.backfills)]
    return all(within)
