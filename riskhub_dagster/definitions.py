"""The composition root: what this code location defines, by name."""

import dagster as dg

from riskhub.settings import load_settings
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.budgets import symbol_budgets
from riskhub_dagster.assets.digest import daily_digest
from riskhub_dagster.assets.exits import exit_signals
from riskhub_dagster.assets.maintenance import maintenance
from riskhub_dagster.assets.retention import retention
from riskhub_dagster.assets.returns import asset_returns, prices_spec
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results
from riskhub_dagster.backtest_sensor import backtest_job, outcome_sensor
from riskhub_dagster.checks.freshness import worlds_are_fresh
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.schedules import (
    budgets_job,
    budgets_schedule,
    digest_job,
    digest_schedule,
    exits_job,
    exits_schedule,
    maintenance_job,
    maintenance_schedule,
    retention_job,
    retention_schedule,
    returns_job,
    returns_schedule,
)
from riskhub_dagster.sensors import days_job, freshness_sensor, landing_job, landing_sensor

defs = dg.Definitions(
    assets=[
        landed_snapshots,
        validated_snapshots,
        snapshot_weights,
        risk_metrics,
        stress_results,
        var_outcomes,
        var_backtests,
        prices_spec(load_settings()),
        asset_returns,
        symbol_budgets,
        exit_signals,
        retention,
        maintenance,
        daily_digest,
    ],
    asset_checks=[worlds_are_fresh],
    jobs=[
        landing_job,
        days_job,
        backtest_job,
        budgets_job,
        exits_job,
        returns_job,
        retention_job,
        maintenance_job,
        digest_job,
    ],
    sensors=[landing_sensor, outcome_sensor, freshness_sensor],
    schedules=[
        budgets_schedule,
        exits_schedule,
        returns_schedule,
        retention_schedule(load_settings()),
        maintenance_schedule,
        digest_schedule,
    ],
    resources={"hub": RiskHub()},
    # A process per step would cost two seconds each, and SQLite serves one writer anyway.
    executor=dg.in_process_executor,
)
