"""From the state of portfolio and market to per-symbol budgets."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from riskhub.governor import SymbolBudget, run_cycle
from riskhub_dagster.assets.daily import OWNER, Step
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub

BUDGETS_COMPUTED = "budgets_computed"


@dg.multi_asset(
    name="symbol_budgets",
    specs=[
        dg.AssetSpec(
            "symbol_budgets",
            deps=["risk_metrics"],
            group_name="governor",
            description=(
                "How many USD each active symbol may risk now. Written to Redis for the trading "
                "gate (hash and time to live at once), and kept as history with the policy that "
                "each input was read under."
            ),
            kinds={"redis", "table"},
            owners=[OWNER],
            metadata={"dagster/table_name": "symbol_budgets"},
            skippable=True,
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            BUDGETS_COMPUTED,
            asset="symbol_budgets",
            description="Fails when the inputs allow no budget: consumers then fail open.",
        )
    ],
)
def symbol_budgets(hub: RiskHub) -> Step:
    """Run one cycle of the governor."""
    now = datetime.now(UTC)
    redis = hub.redis()
    try:
        cycle = run_cycle(redis, hub.settings.governor, now.timestamp())
    finally:
        redis.close()
    rows = [_row(budget, now) for budget in cycle.budgets]
    hub.store.add_budgets(rows)
    yield dg.AssetCheckResult(
        check_name=BUDGETS_COMPUTED,
        passed=bool(rows),
        severity=dg.AssetCheckSeverity.WARN,
        description=cycle.no_budget_reason or f"{len(rows)} budgets",
    )
    if not rows:
        return
    budgets = [row["budget_usd"] for row in rows]
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "total_usd": sum(budgets),
            "smallest_usd": min(budgets),
            "largest_usd": max(budgets),
            "equity_usd": rows[0]["equity_usd"],
            "mode": rows[0]["mode"],
            "budgets": table(
                rows, ["symbol", "budget_usd", "stress_factor", "vol_regime", "cluster_stress"]
            ),
        }
    )


def _row(budget: SymbolBudget, now: datetime) -> dict[str, Any]:
    row = asdict(budget)
    del row["timestamp"]  # whole seconds, for consumers; the history has the instant
    return row | {"computed_at": now}
