"""Dagster's events of a range run: our batched SQLite storage against Dagster's own.

The alternative in the same run is `SqliteEventLogStorage`, which is what an instance without our
class would use. The claim: at least 5 times as fast.
"""

import os
import sys
import tempfile
import time

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from riskhub_dagster.event_log import BatchedSqliteEventLogStorage

DAYS = 250
LEAST_RATIO = 5.0


def run() -> bool:
    """Measure both; True when the claim holds."""
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "1000"
    plain = _seconds(SqliteEventLogStorage)
    batched = _seconds(BatchedSqliteEventLogStorage)
    ratio = plain / batched
    print(
        f"event_log: {DAYS} partitions, plain {plain:.2f} s, batched {batched:.2f} s, "
        f"ratio {ratio:.1f} (at least {LEAST_RATIO})"
    )
    return ratio >= LEAST_RATIO


def _seconds(storage: type[SqliteEventLogStorage]) -> float:
    @dg.multi_asset(
        specs=[dg.AssetSpec("days", partitions_def=dg.DailyPartitionsDefinition("2020-01-01"))],
        check_specs=[dg.AssetCheckSpec("sound", asset="days")],  # as ours have
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def days():
        yield dg.AssetCheckResult(check_name="sound", passed=True)
        yield dg.MaterializeResult(metadata={"rows": 6})

    with (
        tempfile.TemporaryDirectory() as home,
        dg.instance_for_test(
            temp_dir=home,
            overrides={
                "event_log_storage": {
                    "module": storage.__module__,
                    "class": storage.__name__,
                    "config": {"base_dir": f"{home}/events"},
                },
                "python_logs": {"python_log_level": "WARNING"},
            },
        ) as instance,
    ):
        job = dg.Definitions(assets=[days], executor=dg.in_process_executor)
        keys = days.partitions_def.get_partition_keys()[:DAYS]
        tags = {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
        definition = job.resolve_implicit_global_asset_job_def()
        began = time.perf_counter()
        assert definition.execute_in_process(instance=instance, tags=tags).success
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
