"""From the state of portfolio and market to per-symbol budgets."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from riskhub.governor import run_cycle
from riskhub.governor.lease import Lease
from riskhub.governor.loop import once
from riskhub.store.budgets import StoredCycle
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER, Step
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import plain, table
from riskhub_dagster.resources import RiskHub

BUDGETS_COMPUTED = "budgets_computed"

# The pulse of the pipeline: every minute through schedule, queue, code server, Redis and database,
# whatever lands or doesn't. How fresh the worlds are is another question; see checks.freshness.
_PULSE = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=5), fail_window=timedelta(minutes=15)
)

_OF_THE_CYCLE = (
    *("writer", "computed_at", "mode", "equity_usd", "formula_version"),
    *("portfolio_policy", "portfolio_age_sec", "heat", "heat_policy", "heat_age_sec"),
)
_OF_A_BUDGET = (
    *("symbol", "budget_usd", "stress_factor", "portfolio_heat", "cluster_stress"),
    *("vol_regime", "haircut", "share", "portfolio_age_sec", "policies", "ages"),
)


@dg.multi_asset(
    name="symbol_budgets",
    specs=[
        dg.AssetSpec(
            "symbol_budgets",
            deps=["risk_metrics"],
            group_name=signposts.DECISIONS,
            description=signposts.about(
                "How many USD each active symbol may risk now. Written to Redis for the trading "
                "gate (hash and time to live at once), and kept as history with the policy that "
                "each input was read under. While `riskhub governor` runs it is the one that "
                "writes, and what is materialized here is its newest cycle on record.",
                pages={"all budgets": "/"},
                doc="governor.md",
            ),
            kinds={"redis", "table"},
            owners=[OWNER],
            tags=signposts.cadence("every_minute"),
            metadata=of_table("symbol_budgets"),
            skippable=True,
            freshness_policy=_PULSE,
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            BUDGETS_COMPUTED,
            asset="symbol_budgets",
            description=(
                "Fails when the inputs allow no budget: consumers then fail open. And when "
                "another writes budgets, but puts none on record."
            ),
        )
    ],
)
def symbol_budgets(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Run one cycle of the governor, unless another is at it; tell the newest one."""
    settings, now = hub.settings.governor, datetime.now(UTC)
    with closing(hub.redis()) as redis:
        lease = Lease(redis, f"symbol_budgets, run {context.run.run_id}", sec=settings.lease_sec)
        once(
            lease,
            partial(run_cycle, redis, settings, hub=hub, lease=lease),
            hub.store.add_cycle,
            mode=settings.mode,
            now=now.timestamp(),
        )
        holder = lease.holder()
    newest = hub.store.newest_cycle()
    missing = _missing(newest, holder, now, settings.history_sec)
    yield dg.AssetCheckResult(
        check_name=BUDGETS_COMPUTED,
        passed=missing is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=missing or f"{len(newest.budgets if newest else ())} budgets",
    )
    if newest is not None and missing is None:
        yield dg.MaterializeResult(metadata=_told(newest))


def _missing(
    newest: StoredCycle | None, holder: str | None, now: datetime, history_sec: float
) -> str | None:
    """Why there is nothing to materialize; None when there is."""
    on_record = newest.cycle["computed_at"] if newest else None
    # The writer keeps a cycle each `history_sec`, and may be late once.
    late = timedelta(seconds=2 * history_sec + 60)
    if newest is None or on_record is None or now - on_record > late:
        since = f"since {on_record:%Y-%m-%d %H:%M:%S}Z" if on_record else "yet"
        return f"{holder or 'another'} writes budgets, and has put none on record {since}"
    reason: str | None = newest.cycle["no_budget_reason"]
    return reason


def _told(newest: StoredCycle) -> dict[str, Any]:
    cycle = newest.cycle
    rows = [
        row
        | {
            "policies": ", ".join(f"{name}: {how}" for name, how in row["policies"].items()),
            "ages": ", ".join(
                f"{name}: {age:.1f} s"
                for name, age in (row["ages"] or {}).items()
                if age is not None
            ),
        }
        for row in map(dict, newest.budgets)
    ]
    budgets = [row["budget_usd"] for row in rows]
    of_the_cycle = {name: plain(cycle[name]) for name in _OF_THE_CYCLE if cycle[name] is not None}
    return of_the_cycle | {
        "dagster/row_count": len(rows),
        "total_usd": sum(budgets),
        "smallest_usd": min(budgets),
        "largest_usd": max(budgets),
        "budgets": table(rows, _OF_A_BUDGET),
    }
