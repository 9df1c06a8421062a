"""The composition root: what this code location defines, by name."""

import logging

import dagster as dg

from riskhub_dagster.assets.budgets import symbol_budgets
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.checks.freshness import worlds_are_fresh
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.schedules import budgets_job, budgets_schedule
from riskhub_dagster.sensors import freshness_sensor, landing_job, landing_sensor


@dg.logger({}, "Warnings and errors. The event log has everything, and the UI shows it.")
def quiet_console(_context: dg.InitLoggerContext) -> logging.Logger:
    """A run's console log, without a line per event: a long range run has tens of thousands."""
    logger = logging.Logger("riskhub_dagster", level=logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


defs = dg.Definitions(
    assets=[landed_snapshots, validated_snapshots, snapshot_weights, risk_metrics, symbol_budgets],
    asset_checks=[worlds_are_fresh],
    jobs=[landing_job, budgets_job],
    sensors=[landing_sensor, freshness_sensor],
    schedules=[budgets_schedule],
    resources={"hub": RiskHub()},
    loggers={"console": quiet_console},
    # A process per step would cost two seconds each, and SQLite serves one writer anyway.
    executor=dg.in_process_executor,
)
