"""What stands now in one world and stage, as a person wants to see it; `status` has the whole hub.

Losses are positive, fractions of equity; a stress P&L is signed.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, get_args

from riskhub.freshness import WorldFreshness
from riskhub.hub import Hub
from riskhub.risk import Method
from riskhub.status import LEVEL, METHODS, Light, light
from riskhub.store import Store
from riskhub.store.exits import EpisodeFilter
from riskhub.store.numbers import NumbersFilter
from riskhub.store.overview import VersionKey, VersionPage
from riskhub.store.stress import StressFilter

Row = dict[str, Any]

OUTCOME_DAYS = 250
VERSIONS_A_PAGE = 20
MOST_EPISODES = 10
_ALL_METHODS = get_args(Method)


@dataclass(frozen=True, slots=True)
class Met:
    """A trading day: its loss, and the VaR and ES that were forecast for it.

    `zone`: of the traffic light that day; None before a backtest.
    """

    day: date
    loss: float
    var: float
    es: float
    zone: str | None

    @property
    def exceeded(self) -> bool:
        """Whether more was lost than the VaR."""
        return self.loss > self.var


@dataclass(frozen=True, slots=True)
class Contribution:
    """A position, and its part of VaR and ES; `share` of VaR is None where it is no loss."""

    symbol: str
    weight: float
    var: float
    es: float
    share: float | None


@dataclass(frozen=True, slots=True)
class WorldDetail:
    """One world and stage at one moment.

    Attributes:
        stages: of the world, what lives before what is history.
        freshness: of this stage.
        method: that days and versions are shown by.
        numbers: of the newest measured snapshot: a row of `risk_metrics` with its `tails` at 99 %.
        lights: the newest of each method.
        days: the last trading days with an outcome, oldest first.
        contributions: the largest first.
        stress: of the newest snapshot that was stressed: a row with its `results`.
        episodes: of the exit engine, the newest first.
        versions: a page of them.
    """

    at: datetime
    stages: tuple[WorldFreshness, ...]
    freshness: WorldFreshness
    method: str
    numbers: Row | None
    lights: dict[str, Light]
    days: tuple[Met, ...]
    contributions: tuple[Contribution, ...]
    stress: Row | None
    episodes: tuple[Row, ...]
    versions: VersionPage

    @property
    def exceedances(self) -> int:
        """How many of `days` exceeded."""
        return sum(day.exceeded for day in self.days)


def world_detail(
    hub: Hub,
    world_id: str,
    *,
    stage: str | None = None,
    after: VersionKey | None = None,
) -> WorldDetail | None:
    """Everything about one world and a stage of it; None when there is no such.

    Args:
        stage: None is the one that landed last, of those that are not history if there are any.
        after: where the page of versions starts.

    Raises:
        StoreUnavailable, StoreNotMigrated.
    """
    store, now = hub.store, hub.clock()
    stages = sorted(hub.freshness(world_id=world_id), key=_live_first)
    chosen = next((each for each in stages if stage in (None, each.stage)), None)
    if chosen is None:
        return None
    which = NumbersFilter(stage=chosen.stage, level=LEVEL)
    numbers = next(iter(store.numbers(world_id, which, limit=1).rows), None)
    has = {tail["method"] for tail in numbers["tails"]} if numbers else set[str]()
    method = next((each for each in METHODS if each in has), METHODS[0])
    one: Any = {"stage": chosen.stage, "level": LEVEL}
    lights = store.newest_lights(world_id, methods=_ALL_METHODS, **one)
    met = store.outcome_days(world_id, method=method, limit=OUTCOME_DAYS, **one)
    stressed = store.stress(world_id, StressFilter(stage=chosen.stage), limit=1).rows
    episodes = EpisodeFilter(world_id=world_id, stage=chosen.stage)
    return WorldDetail(
        at=now,
        stages=tuple(stages),
        freshness=chosen,
        method=method,
        numbers=numbers,
        lights={row["method"]: light(row) for row in lights},
        days=tuple(Met(**row) for row in met),
        contributions=_contributions(store, world_id, which),
        stress=next(iter(stressed), None),
        episodes=tuple(store.exit_episodes(episodes, limit=MOST_EPISODES).rows),
        versions=store.versions(world_id, method=method, limit=VERSIONS_A_PAGE, after=after, **one),
    )


def _live_first(each: WorldFreshness) -> tuple[bool, float, str]:
    age = float("inf") if each.age_seconds is None else each.age_seconds
    return each.policy.exempt, age, each.stage


def _contributions(store: Store, world_id: str, which: NumbersFilter) -> tuple[Contribution, ...]:
    found = store.contributions(world_id, which, limit=1).rows
    rows = found[0]["contributions"] if found else []
    total = sum(row["var"] for row in rows)
    return tuple(
        Contribution(
            row["symbol"],
            row["weight"],
            row["var"],
            row["es"],
            row["var"] / total if total > 0 else None,
        )
        for row in sorted(rows, key=lambda row: (-row["var"], row["symbol"]))
    )
