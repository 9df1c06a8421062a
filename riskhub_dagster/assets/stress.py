"""From weights to what the portfolios would lose under the scenarios of the book."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import dagster as dg

from riskhub.metrics import CODE_VERSION
from riskhub.portfolio import Sources, portfolio_of
from riskhub.scenarios import load_scenarios
from riskhub.stressing import Row, StressRows, StressRunner, book_rows, stress_tables
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import (
    Step,
    accepted_batches,
    chunks_to_write,
    daily_asset,
    newest_position,
    scope_of,
)
from riskhub_dagster.assets.risk import MAX_CHARTED
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import attach, table
from riskhub_dagster.partitions import days_of
from riskhub_dagster.resources import RiskHub

SCENARIOS_AVAILABLE = "scenarios_available"


@daily_asset(
    "stress_results",
    deps=["snapshot_weights", "prices"],
    group=signposts.RISK,
    description=signposts.about(
        "What every accepted snapshot would lose: crises replayed on its weights, shocks of "
        "volatility, correlation and single names, 1987 mapped by beta, and the smallest shocks "
        "that break a limit. P&L is signed, a fraction of equity. No scenario is used before it "
        "happened. Beside them, never mixed in, what the producer sent as its own stress.",
        pages={"all worlds": "/"},
        doc="risk.md",
    ),
    kinds={"numpy", "table"},
    tags=signposts.cadence("when_it_landed"),
    metadata=of_table(
        "stress_results",
        made_from={
            name: [("snapshot_weights", "weight")]
            for name in ("pnl", "worst", "max_drawdown", "ruined", "var", "es")
        },
    ),
    check_specs=[
        dg.AssetCheckSpec(
            SCENARIOS_AVAILABLE,
            asset="stress_results",
            description=(
                "Fails when a scenario can't be had for a snapshot, other than because it had not "
                "happened yet: a symbol without prices, too short a panel, no covariance."
            ),
        )
    ],
)
def stress_results(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Run the book of scenarios over each accepted snapshot."""
    days, scope = days_of(context.partition_keys), scope_of(context)
    book = load_scenarios(hub.settings.scenarios_path)
    runner = StressRunner(book, hub.panel, hub.settings.risk)
    sources = Sources.of(hub.settings, hub.panel, hub.blobs)
    hub.store.add_scenario_book(book.digest, book_rows(book))
    lacking: Counter[tuple[str, str]] = Counter()
    by_day: dict[date, dict[str, Any]] = {}
    worst: list[Row] = []
    with chunks_to_write(hub, scope, "snapshot_stress", days) as chunks:
        for chunk in chunks:
            made: list[StressRows] = []
            read_up_to = 0
            for batch, weights in accepted_batches(hub, scope, "snapshot_stress", chunk):
                for snapshot in batch:
                    portfolio = portfolio_of(snapshot, weights[snapshot.position], sources)
                    made.append(runner.rows_of(snapshot, portfolio, hub.blobs))
                read_up_to = max(read_up_to, newest_position(batch))
            hub.store.write_days(
                stress_tables(made),
                chunk,
                replace=scope.anew,
                read_up_to=read_up_to,
                worlds=scope.worlds,
                run_id=scope.run_id,
            )
            lacking.update(scenario for rows in made for scenario in rows.lacking)
            for day, of_day in _by_day(chunk, made).items():
                worst = _worst(of_day)
                by_day[day] = _charted(of_day, worst)

    attach(context, by_day)
    yield dg.AssetCheckResult(
        check_name=SCENARIOS_AVAILABLE,
        passed=not lacking,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{lacking.total()} results can't be had",
        metadata={
            "unavailable": table(
                [
                    {"scenario": scenario, "reason": reason, "count": count}
                    for (scenario, reason), count in lacking.most_common()
                ],
                ["scenario", "reason", "count"],
            )
        },
    )
    metadata: dict[str, Any] = {"scenario_book": book.digest, "code_version": CODE_VERSION}
    if len(days) == 1:  # what is said here is said of each day of a range
        labels = {scenario.id: scenario.label for scenario in book.scenarios}
        metadata["worst"] = table(
            [row | {"label": labels[row["scenario"]]} for row in worst],
            ["world_id", "stage", "scenario", "label", "pnl", "as_of"],
        )
    yield dg.MaterializeResult(metadata=metadata)


def _by_day(chunk: Sequence[date], made: Sequence[StressRows]) -> Mapping[date, list[StressRows]]:
    by_day: dict[date, list[StressRows]] = {day: [] for day in chunk}
    for rows in made:
        by_day[rows.snapshot["day"]].append(rows)
    return by_day


def _worst(of_day: Sequence[StressRows]) -> list[Row]:
    """Of the newest snapshot of each world the result that loses most; the worst one first."""
    newest: dict[str, StressRows] = {}
    for rows in sorted(of_day, key=_order):
        newest[rows.snapshot["world_id"]] = rows
    worst = []
    for rows in newest.values():
        results = [row for row in rows.results if row["pnl"] is not None]
        if results:
            worst.append(rows.snapshot | min(results, key=lambda row: row["pnl"]))
    return sorted(worst, key=lambda row: row["pnl"])


def _order(rows: StressRows) -> tuple[datetime, int]:
    return rows.snapshot["as_of"], rows.snapshot["position"]


def _charted(of_day: Sequence[StressRows], worst: Sequence[Row]) -> dict[str, Any]:
    """Numbers that the UI charts over days; the worst P&L of so many worlds as can be read."""
    pnl_of = {row["world_id"]: row["pnl"] for row in worst}
    return {
        "dagster/row_count": sum(len(rows.results) for rows in of_day),
        "snapshots": len(of_day),
        "unavailable": sum(len(rows.lacking) for rows in of_day),
        **{f"worst_pnl_{world}": pnl_of[world] for world in sorted(pnl_of)[:MAX_CHARTED]},
    }
