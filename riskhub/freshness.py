"""How fresh each world is: a pure function of the newest `as_of` and the time."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Freshness(StrEnum):
    """The state of one world and stage."""

    FRESH = "fresh"
    STALE = "stale"
    CRITICAL = "critical"
    EXEMPT = "exempt"


@dataclass(frozen=True, slots=True)
class WorldFreshness:
    """One world and stage: its newest `as_of`, its age in seconds (never negative), its state."""

    world_id: str
    stage: str
    newest_as_of: datetime
    age_seconds: float
    state: Freshness


def assess(
    newest: Iterable[tuple[str, str, datetime]],
    *,
    now: datetime,
    stale_after_sec: float,
    critical_after_sec: float,
    timeless_stages: frozenset[str],
) -> list[WorldFreshness]:
    """The state of each (world, stage, newest `as_of`).

    Stages in `timeless_stages` are history and exempt. An `as_of` ahead of the clock has age 0.
    """
    assessed = []
    for world_id, stage, newest_as_of in newest:
        age = max(0.0, (now - newest_as_of).total_seconds())
        if stage in timeless_stages:
            state = Freshness.EXEMPT
        elif age > critical_after_sec:
            state = Freshness.CRITICAL
        elif age > stale_after_sec:
            state = Freshness.STALE
        else:
            state = Freshness.FRESH
        assessed.append(WorldFreshness(world_id, stage, newest_as_of, age, state))
    return assessed
