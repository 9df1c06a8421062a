"""What runs by the clock: the governor's budgets, every minute."""

import dagster as dg

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
