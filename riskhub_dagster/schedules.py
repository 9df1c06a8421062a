"""What runs by the clock, in UTC: budgets every minute, returns in the evening, the rest at night.

At night 03:30 retention, 04:00 exits, 04:30 maintenance; at 06:00 the digest tells of them.
"""

from datetime import UTC, timedelta

import dagster as dg

from riskhub.settings import Settings, load_settings
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

budgets_job = dg.define_asset_job(
    "compute_budgets",
    selection=["symbol_budgets"],
    description=(
        "One cycle of the governor; where `riskhub governor` runs, its newest one is told instead."
    ),
    tags={"dagster/max_retries": "0"},  # the next minute's cycle is the retry
)

budgets_schedule = dg.ScheduleDefinition(
    name="budgets_every_minute",
    job=budgets_job,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every minute: one cycle of the governor. Budgets are stale to their consumers after that."
    ),
)

exits_job = dg.define_asset_job(
    "replay_exits",
    selection=["exit_signals"],
    description=(
        "The episodes of the exit engine, and its rules replayed over history; over some days only "
        "when the run's config names the first and the last."
    ),
    tags={"dagster/max_retries": "0"},  # the next night's run is the retry
)

exits_schedule = dg.ScheduleDefinition(
    name="exits_every_night",
    job=exits_job,
    cron_schedule="0 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "04:00: what the exit engine told, and its rules replayed. The signals themselves are told "
        "by `riskhub exit-engine`, at once; this is their history."
    ),
)

returns_job = dg.define_asset_job(
    "compute_returns",
    selection=["asset_returns"],
    description=(
        "The returns of some days, from the source of prices. To be backfilled when prices of "
        "earlier days were corrected."
    ),
)


@dg.schedule(
    name="returns_every_evening",
    job=returns_job,
    cron_schedule="30 22 * * 1-5",  # an hour and a half after New York's later close
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "22:30 on weekdays, after New York's later close: the last seven days as one run, so that "
        "a price that came late is picked up."
    ),
)
def returns_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a run of the last seven days, as far as they are partitions."""
    last = context.scheduled_execution_time.astimezone(UTC).date()
    first = max(last - timedelta(days=6), load_settings().partitions_start)
    if first > last:
        return dg.SkipReason(f"the first partition is that of {first}")
    return dg.RunRequest(tags={RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()})


retention_job = dg.define_asset_job(
    "apply_retention",
    selection=["retention"],
    description=(
        "Removes expired snapshots and blobs that the policy of `retention` gives up, for ever."
    ),
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
        description=(
            "03:30: removes what the policy gives up. On from the start only where the settings "
            "say that some stage is not kept for ever."
        ),
    )


maintenance_job = dg.define_asset_job(
    "maintain",
    selection=["maintenance"],
    description=(
        "Forgets log lines of runs that ended long ago, and what riskhub notes of its own running. "
        "No snapshot, no number, no materialization."
    ),
    tags={"dagster/max_retries": "0"},  # the next night's run goes on where this one ended
)

maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_every_night",
    job=maintenance_job,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "04:30: what grows with every run is kept for `retention.run_log_days`. Ticks are purged "
        "by Dagster itself, as `dagster.yaml` says."
    ),
)

digest_job = dg.define_asset_job(
    "write_digest",
    selection=["daily_digest"],
    description="How the hub stands and what the last 24 hours brought, on one page.",
)

digest_schedule = dg.ScheduleDefinition(
    name="digest_every_morning",
    job=digest_job,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="06:00: the page to begin the day with, in the metadata of `daily_digest`.",
)
