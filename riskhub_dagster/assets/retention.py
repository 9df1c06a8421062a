"""What the hub forgets, a figure a day."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import dagster as dg

from riskhub.hub import utc_now
from riskhub.retention import apply
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub


@dg.multi_asset(
    name="retention",
    specs=[
        dg.AssetSpec(
            "retention",
            deps=["landed_snapshots"],
            group_name=signposts.OPERATIONS,
            description=signposts.about(
                "Removes what the policy of each stage gives up: snapshots that expired and were "
                "received too many days ago, with all that was made from them, and blobs that "
                "nothing has referred to for their time of grace. `riskhub retention` shows what "
                "would go.",
                doc="hub.md",
            ),
            kinds={"sql"},
            tags=signposts.cadence("nightly"),
            owners=[OWNER],
        )
    ],
)
def retention(hub: RiskHub) -> Iterator[dg.MaterializeResult[Any]]:
    """Apply the policy."""
    figures = apply(hub.store, hub.blobs, hub.settings.retention, utc_now())
    removed = [asdict(stage) for stage in figures.snapshots]
    yield dg.MaterializeResult(
        metadata={
            "snapshots_removed": figures.snapshots_removed,
            "blobs_condemned": figures.blobs_condemned,
            "blobs_removed": figures.blobs_removed,
            "removed": table(removed, ["stage", "count", "oldest_as_of", "newest_as_of"]),
        }
    )
