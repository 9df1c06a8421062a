"""What the pipeline forgets of its own running, with figures."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from time import monotonic
from typing import Any

import dagster as dg

from riskhub.hub import utc_now
from riskhub.upkeep import forget
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER
from riskhub_dagster.event_retention import Pruned, prune, stored_bytes
from riskhub_dagster.resources import RiskHub


@dg.multi_asset(
    name="maintenance",
    specs=[
        dg.AssetSpec(
            "maintenance",
            group_name=signposts.OPERATIONS,
            description=signposts.about(
                "Forgets the log lines of runs that ended more than `retention.run_log_days` ago: "
                "what they materialized and checked stays, and so do their records. With them go "
                "what event handlers are done with and, where `retention.budget_days` asks for it, "
                "cycles of the governor. Never a snapshot or a number: that is `retention`.",
                doc="dagster.md",
            ),
            kinds={"sql"},
            owners=[OWNER],
            tags=signposts.cadence("nightly"),
        )
    ],
)
def maintenance(
    context: dg.AssetExecutionContext, hub: RiskHub
) -> Iterator[dg.MaterializeResult[Any]]:
    """Forget, and tell how much."""
    policy, now, began = hub.settings.retention, utc_now(), monotonic()
    logs = Pruned()
    if policy.run_log_days is not None:
        logs = prune(context.instance, now - timedelta(days=policy.run_log_days))
    forgotten = forget(hub.store, policy, now)
    size = stored_bytes(context.instance)
    yield dg.MaterializeResult(
        metadata={
            "log_runs": logs.runs,
            "log_rows_before": logs.rows_before,
            "log_rows_after": logs.rows_after,
            "log_bytes_before": logs.bytes_before,
            "log_bytes_after": logs.bytes_after,
            **({} if size is None else {"event_log_bytes": size}),
            **{f"forgotten_{name}": count for name, count in asdict(forgotten).items()},
            "seconds": round(monotonic() - began, 3),
        }
    )
