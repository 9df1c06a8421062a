"""Is each world's newest snapshot young enough? By the snapshots' own time, not by that of runs.

Evaluated on demand as a check, and by a sensor without a run (`riskhub_dagster.sensors`).
"""

from datetime import UTC, datetime

import dagster as dg

from riskhub.freshness import Freshness, WorldFreshness, assess
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub

LANDED = dg.AssetKey("landed_snapshots")
WORLDS_ARE_FRESH = "worlds_are_fresh"

_ORDER = (Freshness.CRITICAL, Freshness.STALE, Freshness.FRESH, Freshness.EXEMPT)


@dg.asset_check(
    asset=LANDED,
    name=WORLDS_ARE_FRESH,
    description=(
        "Every world's newest snapshot is younger than the limit of its stage; history (backtest) "
        "is exempt. The limits are the settings stale_after_sec and critical_after_sec."
    ),
)
def worlds_are_fresh(hub: RiskHub) -> dg.AssetCheckResult:
    """Assess every world now."""
    verdict = evaluation(assess_now(hub.store, hub.settings))
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=verdict.severity,
        metadata=dict(verdict.metadata),
        description=verdict.description,
    )


def assess_now(store: Store, settings: Settings) -> list[WorldFreshness]:
    """The freshness of every world and stage at this moment."""
    return assess(
        store.newest_per_world(),
        now=datetime.now(UTC),
        stale_after_sec=settings.stale_after_sec,
        critical_after_sec=settings.critical_after_sec,
        timeless_stages=settings.timeless_stages,
    )


def evaluation(worlds: list[WorldFreshness]) -> dg.AssetCheckEvaluation:
    """The worlds' freshness as one evaluation: critical ones are errors, stale ones warnings."""
    late = [world for world in worlds if world.state in (Freshness.STALE, Freshness.CRITICAL)]
    critical = any(world.state is Freshness.CRITICAL for world in late)
    rows = [
        {
            "world_id": world.world_id,
            "stage": world.stage,
            "state": str(world.state),
            "newest_as_of": world.newest_as_of,
            "age_seconds": None if world.state is Freshness.EXEMPT else round(world.age_seconds),
        }
        for world in sorted(worlds, key=lambda world: _ORDER.index(world.state))
    ]
    return dg.AssetCheckEvaluation(
        asset_key=LANDED,
        check_name=WORLDS_ARE_FRESH,
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(late)} of {len(worlds)} worlds are late" if late else "every world is fresh"
        ),
        metadata={
            "worlds": table(rows, ["world_id", "stage", "state", "newest_as_of", "age_seconds"])
        },
    )
