"""The hub of this morning, on a page."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import dagster as dg

from riskhub.briefing import Briefing, briefing, change, markdown
from riskhub.governor.published import client_of
from riskhub.hub import Hub, utc_now
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER
from riskhub_dagster.event_retention import stored_bytes
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub

_OF_A_WORLD = (
    *("world_id", "stage", "state", "as_of", "var99", "es99", "var99_change", "changed_since"),
    *("light", "exceedances", "observations"),
)
_OF_AN_EXIT = ("world_id", "stage", "rule", "action", "mode", "opened_at", "closed_at", "worst")


@dg.multi_asset(
    name="daily_digest",
    specs=[
        dg.AssetSpec(
            "daily_digest",
            deps=["risk_metrics", "var_backtests", "symbol_budgets", "exit_signals"],
            group_name=signposts.OPERATIONS,
            description=signposts.about(
                "How the hub stands and what the last 24 hours brought, on one page: worlds with "
                "VaR, ES and their change, lights, exceedances, quarantine, exits, budgets, the "
                "pipeline, and the room that all of it takes. What is not known is said to be "
                "unknown, never 0. Its figures are charted over the mornings.",
                pages={"how it stands now": "/"},
                doc="dagster.md",
            ),
            kinds={"markdown"},
            owners=[OWNER],
            tags=signposts.cadence("every_morning"),
        )
    ],
)
def daily_digest(
    context: dg.AssetExecutionContext, hub: RiskHub
) -> Iterator[dg.MaterializeResult[Any]]:
    """Gather, and tell."""
    settings = hub.settings
    with closing(client_of(settings.effective_redis_url)) as client:
        found = briefing(Hub(hub.store, settings, utc_now, blobs=hub.blobs), client)
    dagster_bytes = stored_bytes(context.instance)
    sizes = {"Event log of Dagster": dagster_bytes}
    page = markdown(found, api_url=settings.api_url, sizes=sizes)
    figures = _figures(found) | {"dagster_bytes": dagster_bytes}
    yield dg.MaterializeResult(
        metadata={
            "digest": dg.MetadataValue.md(page),
            **{name: figure for name, figure in figures.items() if figure is not None},
            "world_table": table(_worlds(found), _OF_A_WORLD),
            "exceedance_table": table(
                [
                    {name: getattr(each, name) for name in ("world_id", "stage", "day", "var")}
                    | {"method": each.method, "loss": each.loss}
                    for each in found.exceeded
                ],
                ["world_id", "stage", "day", "method", "loss", "var"],
            ),
            "quarantine_table": table(
                [{**row, "why": "; ".join(row["reasons"])} for row in found.quarantined],
                ["world_id", "version", "stage", "since", "why"],
            ),
            "exit_table": table(_exits(found), _OF_AN_EXIT),
        }
    )


def _figures(found: Briefing) -> dict[str, float | int | None]:
    """What is charted; None for what nobody knows, which then is no point of the chart."""
    budgets, pipeline = found.status.budgets, found.status.pipeline
    known = budgets.problem is None
    return {
        "worlds": len(found.status.worlds),
        "alerts": len(found.status.alerts),
        "landed": sum(found.happened.landings.values()),
        "events": found.happened.events,
        "quarantined": found.happened.quarantined,
        "exits_open": len(found.still_open),
        "waiting": pipeline.waiting,
        "furthest_behind": max((reader.behind for reader in pipeline.readers), default=None),
        "dead_letters": pipeline.dead_letters,
        "budgets": budgets.count if known else None,
        "budgets_usd": budgets.total_usd if known else None,
        "hub_bytes": found.hub_bytes,
    }


def _worlds(found: Briefing) -> Sequence[dict[str, Any]]:
    rows = []
    for world in found.status.worlds:
        newest, light, changed = world.newest, world.light, change(world)
        rows.append(
            {
                "world_id": world.world_id,
                "stage": world.stage,
                "state": str(world.freshness.state),
                "as_of": world.freshness.newest_as_of,
                "var99": newest and newest.var,
                "es99": newest and newest.es,
                "var99_change": changed and changed[0],
                "changed_since": changed and changed[1],
                "light": light and light.zone,
                "exceedances": light and light.exceedances,
                "observations": light and light.observations,
            }
        )
    return rows


def _exits(found: Briefing) -> list[dict[str, Any]]:
    """Those of the last day, and the open ones; an episode may be several of these."""
    rows = {row["id"]: dict(row) for row in (*found.opened, *found.closed, *found.still_open)}
    return list(rows.values())
