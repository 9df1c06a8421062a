"""Dagster's daemon, for tests: it looks for backfills every second, where it does every 30.

That interval is no setting of Dagster's. Run with the arguments of ``python -m dagster._daemon``.
"""

import runpy

from dagster._daemon import controller

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
    runpy.run_module("dagster._daemon", run_name="__main__")
