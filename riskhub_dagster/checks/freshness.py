"""Is each world's newest snapshot young enough? By the snapshots' own time, not by that of runs.

Evaluated on demand as a check, and by a sensor without a run (`riskhub_dagster.sensors`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from riskhub.freshness import Freshness, Policies, Severity, WorldFreshness, worst_first
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub

LANDED = dg.AssetKey("landed_snapshots")
WORLDS_ARE_FRESH = "worlds_are_fresh"

_COLUMNS = [
    *("world_id", "stage", "state", "newest_as_of", "age_seconds", "open_age_seconds", "served"),
    *("stale_after_sec", "critical_after_sec", "calendar", "note"),
]


@dg.asset_check(
    asset=LANDED,
    name=WORLDS_ARE_FRESH,
    description=(
        "Every world's newest snapshot is younger than its limit, in hours in which its market is "
        "open; every world that is expected has landed; history (backtest) is exempt. The limits "
        "are settings: stale_after_sec, critical_after_sec, and freshness."
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
    newest = store.newest_per_world()
    return Policies.of(settings).assess(newest, now=datetime.now(UTC))


def evaluation(worlds: Sequence[WorldFreshness]) -> dg.AssetCheckEvaluation:
    """The worlds' freshness as one evaluation, with a table of those that are late or missing."""
    late = [world for world in worst_first(worlds) if world.severity is not Severity.OK]
    critical = any(world.severity is Severity.CRITICAL for world in late)
    counts = Counter(world.state for world in worlds)
    metadata: dict[str, Any] = {state: counts[state] for state in Freshness if counts[state]}
    if late:
        metadata["late"] = table([_row(world) for world in late], _COLUMNS)
    return dg.AssetCheckEvaluation(
        asset_key=LANDED,
        check_name=WORLDS_ARE_FRESH,
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(late)} of {len(worlds)} worlds {'is' if len(late) == 1 else 'are'} late or "
            f"missing: {_named(late)}"
            if late
            else "every world is fresh"
        ),
        metadata=metadata,
    )


def digest_of(worlds: Sequence[WorldFreshness]) -> str:
    """What changes when a world changes its state: as short for a thousand worlds as for one."""
    states = sorted((each.world_id, each.stage, each.state, each.severity) for each in worlds)
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _named(late: Sequence[WorldFreshness]) -> str:
    names = [f"{world.world_id} {world.stage} {world.state}" for world in late[:3]]
    return ", ".join([*names, *(["..."] if len(late) > len(names) else [])])


def _row(world: WorldFreshness) -> dict[str, Any]:
    def whole(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds)

    return {
        "world_id": world.world_id,
        "stage": world.stage,
        "state": str(world.state),
        "newest_as_of": world.newest_as_of,
        "age_seconds": whole(world.age_seconds),
        "open_age_seconds": whole(world.open_age_seconds),
        "served": world.served,
        "stale_after_sec": world.policy.stale_after_sec,
        "critical_after_sec": world.policy.critical_after_sec,
        "calendar": world.policy.calendar,
        "note": world.note,
    }
