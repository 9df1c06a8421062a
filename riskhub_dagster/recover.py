"""What killed processes left behind, put right before the next ones start.

`up` holds its directory exclusively, so whatever Dagster still calls running there when it starts
is dead. Run as ``python -m riskhub_dagster.recover``. When only the code server died, the runs that
it had are dead and the backfills are not: ``--runs-to-retry UNIX_TIME``, that of its death.
"""

import sys

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG

_DEAD = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_QUEUED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]


def recover(instance: dg.DagsterInstance) -> tuple[int, int]:
    """End dead runs and backfills; gives how many of each.

    Queued runs stay, and the daemon takes them up; those of an ended backfill end with it. What an
    ended run had not computed is pending in the store, where the landing sensor and the demo find
    it.
    """
    requested = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    backfills = instance.get_backfills(filters=requested)
    runs = list(instance.get_runs(filters=dg.RunsFilter(statuses=_DEAD)))
    if backfills:
        tags = {BACKFILL_ID_TAG: [backfill.backfill_id for backfill in backfills]}
        runs += instance.get_runs(filters=dg.RunsFilter(statuses=_QUEUED, tags=tags))
    for run in runs:
        instance.report_run_canceled(run, "The process ended before this run did.")
    for backfill in backfills:
        instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))  # type: ignore[no-untyped-call]
    return len(runs), len(backfills)


def fail_dead_runs(instance: dg.DagsterInstance, died_at: float) -> int:
    """Tell Dagster of runs that died with their code server, so that it retries them.

    To be called when there is a code server again: Dagster gives up a retry that it can't launch.

    Args:
        died_at: when the old one ended, unix seconds; runs that changed since are the new one's.
    """
    if instance.run_launcher.supports_check_run_worker_health:
        return 0  # runs of run workers: they didn't, and run monitoring knows which are lost
    records = [
        record
        for record in instance.get_run_records(filters=dg.RunsFilter(statuses=_DEAD))
        if record.update_timestamp.timestamp() < died_at
    ]
    for record in records:
        reason = "The code server ended, and this run with it."
        instance.report_run_failed(record.dagster_run, reason)
    return len(records)


def main() -> None:
    """Recover the instance of ``$DAGSTER_HOME`` and say what was found."""
    with dg.DagsterInstance.get() as instance:
        if "--runs-to-retry" in sys.argv[1:]:
            ended = fail_dead_runs(instance, float(sys.argv[-1]))
            print(f"ended {ended} runs whose code server ended")
            return
        instance.all_asset_keys()  # a broken event log is told before the start as well
        runs, backfills = recover(instance)
    if runs or backfills:
        print(f"ended {runs} runs and {backfills} backfills that a killed process left behind")


if __name__ == "__main__":
    main()
