"""From risk numbers to what they met, and to how good they have been.

Both read days before their own. Runs over pieces of history go side by side: one of them works here
at a time, and what it could not see yet is due afterwards.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from riskhub.backtesting import RollingBacktest, backtest_rows
from riskhub.metrics import CODE_VERSION
from riskhub.outcomes import outcomes_of_days
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import Step, chunks_to_write, daily_asset, scope_of
from riskhub_dagster.assets.risk import MAX_CHARTED
from riskhub_dagster.checks.lights import light_checks, light_results
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import attach, table
from riskhub_dagster.partitions import days_of
from riskhub_dagster.resources import RiskHub

OUTCOMES_KNOWN = "outcomes_known"


@daily_asset(
    "var_outcomes",
    deps=["risk_metrics", "prices"],
    group=signposts.BACKTESTS,
    description=signposts.about(
        "What the forecast of each trading day met: the loss of that day, on the price panel, of "
        "the portfolio as it was weighted when the forecast was made. A day reads the forecasts of "
        "the days before it, from the last trading day on, and its own prices. `hindsight` marks a "
        "forecast that landed after its outcome.",
        doc="risk.md",
    ),
    kinds={"numpy", "table"},
    tags=signposts.cadence("when_it_is_known"),
    metadata=of_table(
        "var_outcomes",
        made_from={
            **{name: [("risk_metrics", name)] for name in ("position", "world_id", "stage")},
            "forecast_day": [("risk_metrics", "day")],
            "loss": [("snapshot_weights", "weight")],
        },
    ),
    check_specs=[
        dg.AssetCheckSpec(
            OUTCOMES_KNOWN,
            asset="var_outcomes",
            description="Fails when a portfolio holds what has no prices: its loss is not known.",
        )
    ],
)
def var_outcomes(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Hold each forecast against the day after it."""
    days, scope, panel = days_of(context.partition_keys), scope_of(context), hub.panel
    by_day: dict[date, dict[str, Any]] = {}
    unknown: list[dict[str, Any]] = []
    known = 0
    with chunks_to_write(hub, scope, "var_outcomes", days, looks_back=True) as chunks:
        for chunk in chunks:
            made = outcomes_of_days(hub.store, panel, chunk, worlds=scope.worlds)
            hub.store.write_outcomes(made.rows, chunk, worlds=scope.worlds, run_id=scope.run_id)
            known += len(made.rows)
            unknown += made.unknown
            by_day |= _outcomes_per_day(chunk, made.rows)

    attach(context, by_day)
    yield dg.AssetCheckResult(
        check_name=OUTCOMES_KNOWN,
        passed=not unknown,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unknown)} of {known + len(unknown)} outcomes are not known",
        metadata={"unknown": table(unknown, ["day", "world_id", "stage", "forecast_day", "why"])},
    )
    yield dg.MaterializeResult(
        metadata={"prices_digest": panel.digest, "code_version": CODE_VERSION}
    )


@daily_asset(
    "var_backtests",
    deps=["var_outcomes", "risk_metrics"],
    group=signposts.BACKTESTS,
    description=signposts.about(
        "How good each method's VaR at 99 % has been for each world, over its last 250 outcomes up "
        "to the day: exceedances, Basel's traffic light, exact p-values of Kupiec and of "
        "Christoffersen's independence, Acerbi and Szekely's Z2.",
        pages={"all worlds": "/"},
        doc="risk.md",
    ),
    kinds={"numpy", "table"},
    tags=signposts.cadence("when_it_is_known"),
    metadata=of_table(
        "var_backtests",
        made_from={
            **{name: [("var_outcomes", name)] for name in ("world_id", "stage")},
            **{
                name: [("var_outcomes", "loss")]
                for name in (
                    *("exceedances", "exceeded", "zone"),
                    *("kupiec_p", "christoffersen_p", "z2"),
                )
            },
        },
    ),
    check_specs=light_checks(),
)
def var_backtests(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Look back from each day."""
    days, scope = days_of(context.partition_keys), scope_of(context)
    by_day: dict[date, dict[str, Any]] = {}
    rolling = RollingBacktest()
    with chunks_to_write(hub, scope, "var_backtests", days, looks_back=True) as chunks:
        for chunk in chunks:
            rows = backtest_rows(hub.store, rolling, chunk, worlds=scope.worlds)
            hub.store.write_days(
                {"var_backtests": rows},
                chunk,
                replace=True,
                worlds=scope.worlds,
                run_id=scope.run_id,
            )
            by_day |= _backtests_per_day(chunk, rows)

    attach(context, by_day)
    yield from light_results(hub.store.newest_backtests(days[-1]), hub.settings.api_url)
    yield dg.MaterializeResult(metadata={"window": rolling.window, "code_version": CODE_VERSION})


def _outcomes_per_day(
    days: Sequence[date], rows: Sequence[dict[str, Any]]
) -> dict[date, dict[str, Any]]:
    counts = Counter(row["day"] for row in rows)
    late = Counter(row["day"] for row in rows if row["hindsight"])
    return {day: {"dagster/row_count": counts[day], "hindsight": late[day]} for day in days}


def _backtests_per_day(
    days: Sequence[date], rows: Sequence[dict[str, Any]]
) -> dict[date, dict[str, Any]]:
    """Numbers that the UI charts: the red share, and historical VaR's exceedances by world."""
    by_day: dict[date, list[dict[str, Any]]] = {day: [] for day in days}
    for row in rows:
        by_day[row["day"]].append(row)
    charted: dict[date, dict[str, Any]] = {}
    for day, of_day in by_day.items():
        charted[day] = {"dagster/row_count": len(of_day)}
        if of_day:
            charted[day]["red_share"] = sum(row["zone"] == "red" for row in of_day) / len(of_day)
        historical = [row for row in of_day if row["method"] == "historical"]
        charted[day] |= {
            f"exceedances_{row['world_id']}": row["exceedances"] for row in historical[:MAX_CHARTED]
        }
    return charted
