"""From the source of prices to the returns of each day.

Risk numbers read the panel from the source itself and carry the same digest, so that they never
wait for another table: this one is for people and for whatever else needs returns.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from riskhub.prices import PricePanel
from riskhub.prices.returns import (
    extremes,
    return_days_among,
    return_rows,
    returns_on,
    split_like,
)
from riskhub.settings import Settings
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER, Step, chunks_to_write, daily_asset, scope_of
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import attach, table
from riskhub_dagster.partitions import days_of
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.returns_frame import reasons_against_days, returns_schema

RETURNS_COMPLETE = "returns_complete"
_SHOWN = ["day", "symbol", "simple_return"]


def prices_spec(settings: Settings) -> dg.AssetSpec:
    """The source of prices, which is not ours to write, as the settings name it."""
    where, kind = {
        "file": ("the file that `prices_path` names", "file"),
        "s3": ("an object in S3 (`prices.s3_key`)", "s3"),
        "table": ("a table of a database (`prices.table`)", "table"),
    }[settings.prices.kind]
    return dg.AssetSpec(
        "prices",
        group_name=signposts.PRICES,
        description=signposts.about(
            f"Daily prices, as {where} has them. Nothing is ever filled in.", doc="hub.md"
        ),
        tags=signposts.cadence("when_it_is_read"),
        kinds={kind},
        owners=[OWNER],
    )


@daily_asset(
    "asset_returns",
    deps=["prices"],
    group=signposts.PRICES,
    description=signposts.about(
        "The simple return of every symbol of the price source on every trading day, from the "
        "prices of that day and the trading day before. Other days have no rows.",
        doc="hub.md",
    ),
    kinds={"numpy", "pandera", "table"},
    tags=signposts.cadence("every_evening"),
    metadata=of_table("asset_returns", frame=returns_schema()),
    check_specs=[
        dg.AssetCheckSpec(
            RETURNS_COMPLETE,
            asset="asset_returns",
            description=(
                "Fails when a trading day lacks returns, or has one beyond 45 %: a price that was "
                "not adjusted for a split, until somebody has looked."
            ),
        )
    ],
)
def asset_returns(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Lay the returns of each day out as rows."""
    days, scope, panel = days_of(context.partition_keys), scope_of(context), hub.panel
    refused: dict[date, list[str]] = {}
    with chunks_to_write(hub, scope, "asset_returns", days) as chunks:
        for chunk in chunks:
            rows = return_rows(panel, chunk)
            refused |= reasons_against_days(rows, panel.symbols)
            good = [row for row in rows if row["day"] not in refused]
            hub.store.write_days({"asset_returns": good}, chunk, replace=True, run_id=scope.run_id)

    written = hub.store.returns_per_day(days[0], days[-1])
    trading = return_days_among(panel, days)
    whole = [day for day in trading if written.get(day) == len(panel.symbols)]
    attach(context, _per_day(panel, days, whole))
    yield _complete(panel, trading, whole, refused)
    if trading and not whole:
        return  # nothing of these days is good: they stay unmaterialized, the run succeeds
    yield dg.MaterializeResult(
        metadata={
            "prices_digest": panel.digest,
            "first_day": panel.days[0].isoformat(),
            "last_day": panel.days[-1].isoformat(),
            "symbols": len(panel.symbols),
            "extremes": table(extremes(panel, whole, 5), _SHOWN),
        }
    )


def _complete(
    panel: PricePanel,
    trading: Sequence[date],
    whole: Sequence[date],
    refused: Mapping[date, Sequence[str]],
) -> dg.AssetCheckResult:
    lacking = [
        {"day": day, "why": "; ".join(refused.get(day, ["a symbol has no row"]))}
        for day in sorted(set(trading).difference(whole))
    ]
    splits = split_like(panel, whole)
    return dg.AssetCheckResult(
        check_name=RETURNS_COMPLETE,
        passed=not lacking and not splits,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(lacking)} of {len(trading)} trading days lack returns; {len(splits)} returns "
            f"may be splits; prices end on {panel.days[-1]}"
        ),
        metadata={
            "lacking": table(lacking, ["day", "why"]),
            "may_be_splits": table(splits, _SHOWN),
        },
    )


def _per_day(
    panel: PricePanel, days: Sequence[date], whole: Sequence[date]
) -> dict[date, dict[str, Any]]:
    """How many returns a day has and, where it has some, their mean: charted by the UI."""
    by_day: dict[date, dict[str, Any]] = {day: {"dagster/row_count": 0} for day in days}
    for day, returns in zip(whole, returns_on(panel, whole), strict=True):
        mean = float(returns.mean())
        by_day[day] = {"dagster/row_count": len(returns), "mean_return": mean}
    return by_day
