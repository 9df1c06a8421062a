"""From what landed to validated snapshots and their weights."""

import json
from collections import Counter
from typing import Any

import dagster as dg

from riskhub_dagster.assets.daily import (
    OWNER,
    Step,
    daily_asset,
    newest_position,
    replaces_days,
)
from riskhub_dagster.frames import SCHEMA_VERSION, WEIGHTS, reasons_against, table_schema
from riskhub_dagster.metadata import attach, table
from riskhub_dagster.partitions import days_of, in_chunks
from riskhub_dagster.resources import RiskHub

NOTHING_QUARANTINED = "nothing_quarantined"

landed_snapshots = dg.AssetSpec(
    "landed_snapshots",
    group_name="landing",
    description=(
        "Snapshots as producers posted them: each version once, never changed. The hub's API "
        "writes it; the landing sensor observes what is new."
    ),
    kinds={"fastapi", "table"},
    owners=[OWNER],
    metadata={"dagster/table_name": "snapshots"},
)


@daily_asset(
    "validated_snapshots",
    deps=["landed_snapshots"],
    group="snapshots",
    description=(
        "The verdict on each landed snapshot: accepted, or quarantined with its reasons. "
        "Judged by pandera schemas; a quarantined one has no weights and no risk numbers."
    ),
    kinds={"pandera", "table"},
    metadata={"dagster/table_name": "validated_snapshots"},
    check_specs=[
        dg.AssetCheckSpec(
            NOTHING_QUARANTINED,
            asset="validated_snapshots",
            description="Fails, without failing the run, when a snapshot of the days is rejected.",
        )
    ],
)
def validated_snapshots(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Judge the snapshots of each day."""
    days, anew = days_of(context.partition_keys), replaces_days(context)
    judged: list[dict[str, Any]] = []
    for chunk in in_chunks(days):
        landed = hub.store.landed_on(chunk[0], chunk[-1], only_unvalidated=not anew)
        reasons = reasons_against(landed, hub.blobs)
        rows: list[dict[str, Any]] = [
            {
                "position": snapshot.position,
                "day": snapshot.day,
                "world_id": snapshot.world_id,
                "version": snapshot.version,
                "as_of": snapshot.as_of,
                "stage": snapshot.stage,
                "digest": snapshot.digest,
                "accepted": not reasons[snapshot.position],
                "reasons": reasons[snapshot.position],
                "schema_version": SCHEMA_VERSION,
            }
            for snapshot in landed
        ]
        hub.store.write_days(
            {"validated_snapshots": rows},
            chunk,
            replace=anew,
            read_up_to=newest_position(landed),
            rejected=[row["position"] for row in rows if not row["accepted"]],
        )
        judged += rows

    per_day = Counter(row["day"] for row in judged)
    rejected_per_day = Counter(row["day"] for row in judged if not row["accepted"])
    attach(
        context,
        {
            day: {
                "dagster/row_count": per_day[day],
                "accepted": per_day[day] - rejected_per_day[day],
                "quarantined": rejected_per_day[day],
            }
            for day in days
        },
    )
    # From the table: also what earlier runs of these days rejected is still quarantined.
    quarantined = hub.store.quarantined_on(days[0], days[-1])
    shown = [{**row, "why": "; ".join(row["reasons"])} for row in quarantined]
    yield dg.AssetCheckResult(
        check_name=NOTHING_QUARANTINED,
        passed=not quarantined,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(quarantined)} snapshots of these days are quarantined",
        metadata={"quarantined": table(shown, ["world_id", "version", "stage", "why"])},
    )
    if judged and rejected_per_day.total() == len(judged):
        return  # nothing of these days is good: they stay unmaterialized, the run succeeds
    yield dg.MaterializeResult(metadata={"schema_version": SCHEMA_VERSION})


@daily_asset(
    "snapshot_weights",
    deps=["validated_snapshots"],
    group="snapshots",
    description="The weights of every accepted snapshot, a row per symbol.",
    kinds={"table"},
    metadata={
        "dagster/table_name": "snapshot_weights",
        "dagster/column_schema": table_schema(WEIGHTS),
    },
)
def snapshot_weights(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Lay the accepted weights out as rows."""
    days, anew = days_of(context.partition_keys), replaces_days(context)
    rows_per_day: Counter[Any] = Counter()
    for chunk in in_chunks(days):
        accepted = hub.store.accepted_on(
            chunk[0], chunk[-1], missing_from=None if anew else "snapshot_weights"
        )
        rows = [
            {
                "position": snapshot.position,
                "symbol": symbol,
                "day": snapshot.day,
                "world_id": snapshot.world_id,
                "weight": weight,
            }
            for snapshot in accepted
            for symbol, weight in json.loads(snapshot.body)["weights"].items()
        ]
        hub.store.write_days(
            {"snapshot_weights": rows},
            chunk,
            replace=anew,
            read_up_to=newest_position(accepted),
        )
        rows_per_day.update(row["day"] for row in rows)
    attach(context, {day: {"dagster/row_count": rows_per_day[day]} for day in days})
    yield dg.MaterializeResult()
