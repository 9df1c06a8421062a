"""More processes, and more machines' worth of them: what is gained, and what it is bound by.

Limits: two API processes land at least 1.6 times what one does, where the API is what is full; a
run begins on warm run workers in at most 0.7 of the default launcher's time, and two workers
compute a backfill at least 1.6 times as fast as one, where the cores allow it.
"""

from benchmarks import _api_processes, _run_workers


def run() -> bool:
    """Measure each part; True when every limit holds, or what bounds it is named."""
    parts = (_api_processes.ingest, _run_workers.launches, _run_workers.backfills)
    within = [part() for part in parts]
    return all(within)
