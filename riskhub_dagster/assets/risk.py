"""From weights to risk numbers."""

from datetime import date
from typing import Any

import dagster as dg

from riskhub.metrics import CODE_VERSION, metrics_of
from riskhub_dagster.assets.daily import Step, daily_asset, newest_position, replaces_days
from riskhub_dagster.metadata import attach, table
from riskhub_dagster.partitions import days_of, in_chunks
from riskhub_dagster.resources import RiskHub

NUMBERS_AVAILABLE = "numbers_available"
ES_COVERS_VAR = "es_covers_var"


@daily_asset(
    "risk_metrics",
    deps=["snapshot_weights"],
    group="risk",
    description=(
        "Risk of every accepted snapshot: historical and normal VaR and ES at 95, 97.5 and 99 %, "
        "volatility, drawdown, concentration. Losses are positive, as a fraction of equity, over "
        "one day. Each number names its window, its returns and their digest."
    ),
    kinds={"numpy", "table"},
    metadata={"dagster/table_name": "risk_metrics"},
    check_specs=[
        dg.AssetCheckSpec(
            NUMBERS_AVAILABLE,
            asset="risk_metrics",
            description="Fails when a snapshot has too few returns, or none, to measure.",
        ),
        dg.AssetCheckSpec(
            ES_COVERS_VAR,
            asset="risk_metrics",
            description="The mean loss beyond VaR can't be smaller than VaR: fails on a bug.",
        ),
    ],
)
def risk_metrics(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Measure each accepted snapshot."""
    days, anew = days_of(context.partition_keys), replaces_days(context)
    settings = hub.settings
    metrics: list[dict[str, Any]] = []
    tails: dict[int, list[dict[str, Any]]] = {}
    for chunk in in_chunks(days):
        missing_from = None if anew else "risk_metrics"
        weights = hub.store.weights_of(chunk[0], chunk[-1], missing_from=missing_from)
        accepted = hub.store.accepted_on(chunk[0], chunk[-1], missing_from=missing_from)
        # One that was accepted a moment ago by another run has no weights yet, and is that run's.
        with_weights = [snapshot for snapshot in accepted if snapshot.position in weights]
        measured = [
            metrics_of(
                snapshot,
                weights[snapshot.position],
                hub.panel,
                window=settings.risk_window,
                min_returns=settings.risk_min_returns,
                blobs=hub.blobs,
            )
            for snapshot in with_weights
        ]
        hub.store.write_days(
            {
                "risk_metrics": [rows.metrics for rows in measured],
                "risk_tails": [tail for rows in measured for tail in rows.tails],
            },
            chunk,
            replace=anew,
            read_up_to=newest_position(with_weights),
        )
        metrics += (rows.metrics for rows in measured)
        tails |= {rows.metrics["position"]: rows.tails for rows in measured}

    shown = [_shown(row, tails[row["position"]]) for row in metrics]
    attach(context, _per_day(days, shown))
    unavailable = [row for row in metrics if row["unavailable"]]
    yield dg.AssetCheckResult(
        check_name=NUMBERS_AVAILABLE,
        passed=not unavailable,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unavailable)} of {len(metrics)} snapshots have no risk numbers",
        metadata={"without": table(unavailable, ["world_id", "version", "stage", "unavailable"])},
    )
    wrong = [tail for of_one in tails.values() for tail in of_one if tail["es"] < tail["var"]]
    yield dg.AssetCheckResult(
        check_name=ES_COVERS_VAR,
        passed=not wrong,
        metadata={"wrong": table(wrong, ["position", "method", "level", "var", "es"])},
    )
    metadata: dict[str, Any] = {"window": settings.risk_window, "code_version": CODE_VERSION}
    if len(days) == 1:  # what is said here is said of each day of a range
        newest = sorted(shown, key=lambda row: row["as_of"], reverse=True)[:12]
        metadata["newest"] = table(
            newest, ["world_id", "stage", "var99", "es99", "normal_var99", "volatility", "as_of"]
        )
    yield dg.MaterializeResult(metadata=metadata)


def _shown(row: dict[str, Any], tails: list[dict[str, Any]]) -> dict[str, Any]:
    by_name = {(tail["method"], tail["level"]): tail for tail in tails}
    historical, normal = by_name.get(("historical", "0.99")), by_name.get(("normal", "0.99"))
    return row | {
        "var99": historical and historical["var"],
        "es99": historical and historical["es"],
        "normal_var99": normal and normal["var"],
    }


def _per_day(days: list[date], shown: list[dict[str, Any]]) -> dict[date, dict[str, Any]]:
    """The day's rows, and the VaR99 of each world's newest snapshot: charted by the UI."""
    by_day: dict[date, dict[str, Any]] = {
        day: {"dagster/row_count": 0, "without_numbers": 0} for day in days
    }
    for row in sorted(shown, key=lambda row: row["as_of"]):
        metadata = by_day[row["day"]]
        metadata["dagster/row_count"] += 1
        metadata["without_numbers"] += row["unavailable"] is not None
        if row["var99"] is not None:
            metadata[f"var99_{row['world_id']}"] = row["var99"]
    return by_day
