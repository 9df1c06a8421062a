"""From what landed to validated snapshots and their weights."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from riskhub.hub import utc_now
from riskhub.portfolio import weight_rows
from riskhub.store.landing import Landed
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import (
    OWNER,
    Step,
    chunks_to_write,
    daily_asset,
    newest_position,
    scope_of,
)
from riskhub_dagster.columns import of_table
from riskhub_dagster.frames import SCHEMA_VERSION, WEIGHTS, Judge, verdict_row
from riskhub_dagster.metadata import MAX_TABLE_ROWS, attach, table
from riskhub_dagster.partitions import days_of
from riskhub_dagster.resources import RiskHub

NOTHING_QUARANTINED = "nothing_quarantined"
NOTHING_FLAGGED = "nothing_flagged"
_BATCH = 256
_LONGEST_EVIDENCE = 500

landed_snapshots = dg.AssetSpec(
    "landed_snapshots",
    group_name=signposts.LANDING,
    description=signposts.about(
        "Snapshots as producers posted them: each version once, never changed. The hub's API "
        "writes it; the landing sensor observes what is new.",
        pages={"all worlds": "/", "the API": "/docs"},
        doc="hub.md",
    ),
    kinds={"fastapi", "table"},
    owners=[OWNER],
    tags=signposts.cadence("when_it_is_posted"),
    metadata=of_table("snapshots"),
)


@daily_asset(
    "validated_snapshots",
    deps=["landed_snapshots"],
    group=signposts.SNAPSHOTS,
    description=signposts.about(
        "The verdict on each landed snapshot: accepted, perhaps with flags, or quarantined with "
        "its reasons; and what was measured. Judged by pandera schemas; a quarantined one is not "
        "served as latest and has no weights and no risk numbers.",
        pages={"the quarantine": "/risk-hub/quarantine"},
        doc="hub.md",
    ),
    kinds={"pandera", "table"},
    tags=signposts.cadence("when_it_landed"),
    metadata=of_table(
        "validated_snapshots",
        made_from={
            **{
                name: [("landed_snapshots", name)]
                for name in ("position", "world_id", "version", "as_of", "stage", "digest")
            },
            "day": [("landed_snapshots", "as_of")],
            **{
                name: [("landed_snapshots", "body")]
                for name in ("accepted", "reasons", "flags", "evidence")
            },
        },
    ),
    check_specs=[
        dg.AssetCheckSpec(
            NOTHING_QUARANTINED,
            asset="validated_snapshots",
            description="Fails, without failing the run, when a snapshot of the days is rejected.",
        ),
        dg.AssetCheckSpec(
            NOTHING_FLAGGED,
            asset="validated_snapshots",
            description="Fails, without failing the run, when an accepted one is flagged.",
        ),
    ],
)
def validated_snapshots(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Judge the snapshots of each day."""
    days, scope = days_of(context.partition_keys), scope_of(context)
    judge = Judge.on(hub.settings, lambda: hub.panel, hub.blobs)
    accepted = rejected = 0
    with chunks_to_write(hub, scope, "validated_snapshots", days) as chunks:
        for chunk in chunks:
            rows: list[dict[str, Any]] = []
            read = partial(
                hub.store.landed_on,
                *(chunk[0], chunk[-1]),
                only_unvalidated=not scope.anew,
                worlds=scope.worlds,
            )
            for batch in _batches(read):
                verdicts = judge.verdicts(batch)
                rows += [verdict_row(snapshot, verdicts[snapshot.position]) for snapshot in batch]
            hub.store.write_verdicts(
                rows,
                chunk,
                now=utc_now(),
                replace=scope.anew,
                read_up_to=max((row["position"] for row in rows), default=0),
                worlds=scope.worlds,
                run_id=scope.run_id,
            )
            accepted += sum(row["accepted"] for row in rows)
            rejected += sum(not row["accepted"] for row in rows)

    # From the table: also what earlier runs of these days found is still so.
    yield from _report(context, hub, days)
    if rejected and not accepted:
        return  # nothing of these days is good: they stay unmaterialized, the run succeeds
    yield dg.MaterializeResult(metadata={"schema_version": SCHEMA_VERSION})


def _report(
    context: dg.AssetExecutionContext, hub: RiskHub, days: list[date]
) -> Iterator[dg.AssetCheckResult]:
    """Each day's counts for the UI's charts, and the checks."""
    counts = hub.store.verdicts_per_day(days[0], days[-1])
    attach(
        context,
        {
            day: {
                "dagster/row_count": count.accepted + count.rejected if count else 0,
                "accepted": count.accepted if count else 0,
                "quarantined": count.rejected if count else 0,
                "flagged": count.flagged if count else 0,
            }
            for day in days
            for count in [counts.get(day)]
        },
    )
    quarantined = sum(count.rejected for count in counts.values())
    rows = hub.store.rejected_on(days[0], days[-1], limit=MAX_TABLE_ROWS)
    shown = [
        {**row, "why": "; ".join(row["reasons"]), "evidence": _evidence(row["evidence"])}
        for row in rows
    ]
    columns = ["world_id", "version", "stage", "why", "evidence"]
    yield dg.AssetCheckResult(
        check_name=NOTHING_QUARANTINED,
        passed=not quarantined,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{quarantined} snapshots of these days are quarantined",
        metadata={"quarantined": table(shown, columns)},
    )
    flagged = sum(count.flagged for count in counts.values())
    rows = hub.store.flagged_on(days[0], days[-1], limit=MAX_TABLE_ROWS)
    shown = [{**row, "flags": "; ".join(row["flags"])} for row in rows]
    yield dg.AssetCheckResult(
        check_name=NOTHING_FLAGGED,
        passed=not flagged,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{flagged} accepted snapshots of these days are flagged",
        metadata={"flagged": table(shown, ["world_id", "version", "stage", "flags"])},
    )


def _evidence(measured: dict[str, Any] | None) -> str:
    text = json.dumps(measured) if measured else ""
    return text if len(text) <= _LONGEST_EVIDENCE else f"{text[: _LONGEST_EVIDENCE - 3]}..."


def _batches(read: Callable[..., list[Landed]]) -> Iterator[list[Landed]]:
    """What is read, a few hundred at a time: bodies may be large."""
    after = 0
    while batch := read(after=after, limit=_BATCH):
        after = newest_position(batch)
        yield batch


@daily_asset(
    "snapshot_weights",
    deps=["validated_snapshots"],
    group=signposts.SNAPSHOTS,
    description=signposts.about(
        "The weights of every accepted snapshot, a row per symbol.", doc="hub.md"
    ),
    kinds={"table"},
    tags=signposts.cadence("when_it_landed"),
    metadata=of_table(
        "snapshot_weights",
        frame=WEIGHTS,
        made_from={
            **{name: [("validated_snapshots", name)] for name in ("position", "day", "world_id")},
            **{name: [("landed_snapshots", "body")] for name in ("symbol", "weight")},
        },
    ),
)
def snapshot_weights(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Lay the accepted weights out as rows."""
    days, scope = days_of(context.partition_keys), scope_of(context)
    rows_per_day: Counter[date] = Counter()
    with chunks_to_write(hub, scope, "snapshot_weights", days) as chunks:
        for chunk in chunks:
            rows: list[dict[str, Any]] = []
            read = partial(
                hub.store.accepted_on,
                *(chunk[0], chunk[-1]),
                missing_from=scope.missing_from("snapshot_weights"),
                worlds=scope.worlds,
            )
            for batch in _batches(read):
                rows += weight_rows(batch)
            hub.store.write_days(
                {"snapshot_weights": rows},
                chunk,
                replace=scope.anew,
                read_up_to=max((row["position"] for row in rows), default=0),
                worlds=scope.worlds,
                run_id=scope.run_id,
            )
            rows_per_day.update(row["day"] for row in rows)
    attach(context, {day: {"dagster/row_count": rows_per_day[day]} for day in days})
    yield dg.MaterializeResult()
