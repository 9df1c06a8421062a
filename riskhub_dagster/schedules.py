"""What runs by the clock: the governor's budgets every minute, retention every night."""

import dagster as dg

from riskhub.settings import Settings

budgets_job = dg.define_asset_job(
    "compute_budgets",
    selection=["symbol_budgets"],
    description="One cycle of the governor.",
    tags={"dagster/max_retries": "0"},  # the next minute's cycle is the retry
)

budgets_schedule = dg.ScheduleDefinition(
    name="budgets_every_minute",
    job=budgets_job,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Budgets are stale to their consumers after a minute.",
)

retention_job = dg.define_asset_job(
    "apply_retention",
    selection=["retention"],
    description="Removes what the retention policy gives up.",
    tags={"dagster/max_retries": "0"},  # the next night's run goes on where this one ended
)


def retention_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Nightly, and running by itself only where some stage has a policy.

    Without one the run would still remove blobs that nothing in this database refers to. That is
    right for the database that the blobs belong to, and fatal for one that was restored empty or
    pointed at another's blobs: who never asked for anything to be removed must not find out so.
    """
    asked_for = settings.retention.removes_snapshots
    return dg.ScheduleDefinition(
        name="retention_every_night",
        job=retention_job,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if asked_for else dg.DefaultScheduleStatus.STOPPED
        ),
        description="Runs by default where the settings say that some stage is not kept for ever.",
    )
