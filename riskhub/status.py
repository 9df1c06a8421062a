"""What stands now in the whole hub, as a person wants to see it; `world_status` has one world.

Facts only; how they look is the pages' business. Losses are positive, fractions of equity.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import redis

from riskhub.alerts.reconcile import WATCHDOG, Severity
from riskhub.freshness import Freshness, WorldFreshness
from riskhub.governor.explain import NO_BUDGET
from riskhub.governor.inputs import CLUSTER_MARK
from riskhub.governor.published import Published, read_published
from riskhub.governor.settings import GovernorSettings
from riskhub.hub import Hub
from riskhub.last_days import LastDays
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.exits import EpisodeFilter
from riskhub.store.overview import Overview, Tail

Row = Mapping[str, Any]

LEVEL = "0.99"
METHODS = ("historical", "normal")
"""A world is shown by the first of these that its newest snapshot has."""
SPARK_DAYS = 30
LARGEST = 3
RECENT_LANDINGS = 500
MOST_ALERTS = 200
MOST_EPISODES = 20
MOST_QUARANTINED = 100
BUDGETS_WITHIN_SEC = 0.25
_MISSED_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Light:
    """The newest traffic light of a model: exceedances among the last outcomes, up to `day`."""

    method: str
    zone: str
    exceedances: int
    observations: int
    window: int
    day: date


@dataclass(frozen=True, slots=True)
class WorldStatus:
    """One world and stage.

    Attributes:
        freshness: its state and age.
        method: of tails and light.
        tails: one a day, oldest first; of days that have numbers.
        unavailable: why the newest measured snapshot has no tail.
        light: None before a backtest.
        contributors: symbol and its share of VaR, the largest first; the share is None where the
            whole is no loss.
    """

    freshness: WorldFreshness
    method: str
    tails: tuple[Tail, ...]
    unavailable: str | None
    light: Light | None
    contributors: tuple[tuple[str, float | None], ...]

    @property
    def world_id(self) -> str:
        """The world."""
        return self.freshness.world_id

    @property
    def stage(self) -> str:
        """The stage."""
        return self.freshness.stage

    @property
    def newest(self) -> Tail | None:
        """The newest VaR and ES; None where the newest measured snapshot has none."""
        return None if self.unavailable is not None or not self.tails else self.tails[-1]


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets as gates find them in Redis, those of symbols.

    Attributes:
        problem: why they can't be read; then the rest says nothing.
        modes: of all of them; more than one while a change of mode is under way.
        stale: how many are too old to be held against anybody.
        age_sec: of the newest.
        smallest: those with the least room.
    """

    problem: str | None = None
    count: int = 0
    modes: tuple[str, ...] = ()
    stale: int = 0
    total_usd: float = 0.0
    age_sec: float | None = None
    smallest: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True)
class Governor:
    """The newest cycle on record, its age in seconds, and why it had no budgets (or None)."""

    at: datetime
    age_sec: float
    writer: str
    no_budget_reason: str | None


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of the outbox: how many events it is behind the newest, and when it moved last."""

    name: str
    behind: int
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How far the computing and the telling are behind the landings.

    Attributes:
        waiting: of the newest `looked_at` landings, those without a verdict or numbers.
        waits_since: when the newest of them landed.
        outbox: the newest event there is.
        readers: of the outbox, the furthest behind first.
        dead_letters: events that were given up on, and not sent again.
    """

    waiting: int
    looked_at: int
    waits_since: datetime | None
    outbox: int
    readers: tuple[Reader, ...]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now.

    `world_id` and `stage` where it is about one; `since` where it is known.
    """

    severity: Severity
    what: str
    why: str
    world_id: str | None = None
    stage: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class HubStatus:
    """The whole hub at one moment."""

    at: datetime
    worlds: tuple[WorldStatus, ...]
    budgets: Budgets
    governor: Governor | None
    pipeline: Pipeline
    alerts: tuple[Alert, ...]


def remembered_days(store: Store) -> LastDays:
    """What `hub_status` remembers from one time to the next."""
    return LastDays(store, days=SPARK_DAYS - 1, methods=METHODS, level=LEVEL)


def hub_status(hub: Hub, client: redis.Redis | None, days: LastDays) -> HubStatus:
    """Everything about the whole hub.

    Args:
        client: that reads budgets; see `riskhub.governor.published.client_of`. None: ask no Redis.
        days: of `remembered_days`, the same each time.

    Raises:
        StoreUnavailable, StoreNotMigrated: without the database nothing is known.
    """
    store, settings, now = hub.store, hub.settings, hub.clock()
    with ThreadPoolExecutor(1) as aside:  # Redis is asked while the database is
        asked = aside.submit(_budgets, client, settings.governor, now)
        found = store.overview(methods=METHODS, level=LEVEL, largest=LARGEST)
        earlier = days.before({_key(row): row["as_of"] for row in found.newest})
        worlds = _worlds(found, earlier, hub.freshness())
        budgets = asked.result()
    governor = _governor(store, now)
    pipeline = _pipeline(store)
    alerts = open_alerts(store, settings, now, worlds, budgets, governor, pipeline)
    return HubStatus(now, worlds, budgets, governor, pipeline, tuple(alerts))


def open_alerts(
    store: Store,
    settings: Settings,
    now: datetime,
    worlds: Sequence[WorldStatus],
    budgets: Budgets,
    governor: Governor | None,
    pipeline: Pipeline,
) -> list[Alert]:
    """What is wrong now, the worst first.

    While `riskhub alerts` watches, what it has on record; else what can be seen from here, which is
    less, and is told to nobody.
    """
    watch = store.alert_watch()
    quiet_sec = _MISSED_LOOKS * settings.alerts.interval_sec + settings.alerts.timeout_sec
    if watch is not None and now - watch["at"] <= timedelta(seconds=quiet_sec):
        found = list(_on_record(store))
    else:
        found = [
            *_of_worlds(worlds),
            *_of_exits(store),
            *_of_quarantine(store),
            *_of_governor(settings.governor, budgets, governor),
        ]
        if pipeline.dead_letters:
            why = f"{pipeline.dead_letters} events were given up on and wait to be sent again"
            found.append(Alert(Severity.WARNING, "dead letters", why))
        if watch is not None:
            why = "nobody is told of what is wrong while riskhub alerts does not run"
            found.append(Alert(Severity.WARNING, "nobody watches", why, since=watch["at"]))
    return sorted(found, key=lambda alert: -alert.severity.rank)


def _worlds(
    found: Overview,
    earlier: Mapping[tuple[str, str], Sequence[Tail]],
    fresh: Sequence[WorldFreshness],
) -> tuple[WorldStatus, ...]:
    newest = {_key(row): row for row in found.newest}
    largest: dict[int, list[tuple[str, float | None]]] = {}
    for row in found.contributions:
        share = row["var"] / row["total"] if row["total"] > 0 else None
        largest.setdefault(row["position"], []).append((row["symbol"], share))
    worlds = []
    for each in fresh:
        key = (each.world_id, each.stage)
        last = newest.get(key)
        if last is None:
            worlds.append(WorldStatus(each, METHODS[0], (), None, None, ()))
            continue
        tails = [*earlier[key]]
        if last["var"] is not None:
            tails.append(Tail(last["as_of"], last["var"], last["es"]))
        worlds.append(
            WorldStatus(
                freshness=each,
                method=last["method"],
                tails=tuple(tails),
                unavailable=_why_no_tail(last),
                light=None if last["zone"] is None else light(last),
                contributors=tuple(largest.get(last["position"], ())),
            )
        )
    return tuple(worlds)


def _key(row: Row) -> tuple[str, str]:
    return row["world_id"], row["stage"]


def light(row: Row) -> Light:
    """A row of `var_backtests` as a traffic light."""
    return Light(
        *(row[name] for name in ("method", "zone", "exceedances", "observations", "window", "day"))
    )


def _why_no_tail(row: Row) -> str | None:
    if row["var"] is not None:
        return None
    return row["unavailable"] or f"no {' or '.join(METHODS)} VaR at {LEVEL}"


def _budgets(client: redis.Redis | None, settings: GovernorSettings, now: datetime) -> Budgets:
    if client is None:
        return Budgets("no Redis was asked")
    at = now.timestamp()
    try:
        found = read_published(client, at, within_sec=BUDGETS_WITHIN_SEC)
    except (redis.RedisError, OSError, ValueError):  # its text may hold where Redis is
        return Budgets("Redis does not answer")
    budgets = [each for each in found.values() if not each.symbol.startswith(CLUSTER_MARK)]
    ages = [each.age_sec(at) for each in budgets]
    return Budgets(
        count=len(budgets),
        modes=tuple(sorted({each.mode for each in budgets})),
        stale=sum(age >= settings.gate_stale_sec for age in ages),
        total_usd=sum(each.budget_usd for each in budgets),
        age_sec=min(ages, default=None),
        smallest=tuple(sorted(budgets, key=lambda each: (each.budget_usd, each.symbol))[:LARGEST]),
    )


def _governor(store: Store, now: datetime) -> Governor | None:
    for row in store.budget_cycles(limit=1):
        age = max((now - row["computed_at"]).total_seconds(), 0.0)
        return Governor(row["computed_at"], age, row["writer"], row["no_budget_reason"])
    return None


def _pipeline(store: Store) -> Pipeline:
    # Of all that ever landed it would be asked for seconds: what waits is among the newest.
    pending = store.pending_days(after=max(store.head() - RECENT_LANDINGS, 0))
    outbox = store.events_head()
    readers = [
        Reader(name, max(outbox - sequence, 0), moved_at)
        for name, (sequence, moved_at) in store.cursors().items()
    ]
    return Pipeline(
        waiting=sum(day.count for day in pending.days),
        looked_at=min(pending.head, RECENT_LANDINGS),
        waits_since=max((day.newest_receipt for day in pending.days), default=None),
        outbox=outbox,
        readers=tuple(sorted(readers, key=lambda reader: (-reader.behind, reader.name))),
        dead_letters=store.count_dead_letters(),
    )


# -- what is wrong ---------------------------------------------------------------------------------

_OF_ZONE = {"yellow": Severity.WARNING, "red": Severity.CRITICAL}
_OF_STATE = {
    Freshness.STALE: "no newer snapshot",
    Freshness.CRITICAL: "no newer snapshot",
    Freshness.EXPIRED: "no newer snapshot, and what there was is not served any more",
    Freshness.MISSING: "nothing of it has landed",
}


def _on_record(store: Store) -> Iterator[Alert]:
    for row in store.alerts(is_open=True, limit=MOST_ALERTS).rows:
        if row["key"] != WATCHDOG:
            seen = f" Seen by {row['acknowledged_by']}." if row["acknowledged_by"] else ""
            yield Alert(
                Severity(row["severity"]),
                row["summary"],
                row["detail"] + seen,
                row["labels"].get("world_id"),
                row["labels"].get("stage"),
                row["opened_at"],
            )


def _of_worlds(worlds: Sequence[WorldStatus]) -> Iterator[Alert]:
    for world in worlds:
        named: Any = {"world_id": world.world_id, "stage": world.stage}
        fresh = world.freshness
        if fresh.policy.exempt:
            continue  # of history nobody has to know at once
        if fresh.state in _OF_STATE:
            severity, why = Severity(fresh.severity), _OF_STATE[fresh.state]
            yield Alert(severity, fresh.state, why, since=fresh.newest_as_of, **named)
        if world.unavailable is not None:
            yield Alert(Severity.WARNING, "no VaR", world.unavailable, **named)
        if world.light is not None and world.light.zone in _OF_ZONE:
            counted = f"{world.light.exceedances} of {world.light.observations} days exceeded"
            why = f"{counted} the {world.light.method} VaR, up to {world.light.day}"
            what = f"VaR model in {world.light.zone}"
            yield Alert(_OF_ZONE[world.light.zone], what, why, **named)


def _of_exits(store: Store) -> Iterator[Alert]:
    for row in store.exit_episodes(EpisodeFilter(is_open=True), limit=MOST_EPISODES).rows:
        seen = f", seen by {row['acknowledged_by']}" if row["acknowledged_by"] else ""
        yield Alert(
            Severity(row["severity"]),
            f"exit signal: {row['action']}",
            f"rule {row['rule']}, {row['mode']}{seen}",
            row["world_id"],
            row["stage"],
            row["opened_at"],
        )


def _of_quarantine(store: Store) -> Iterator[Alert]:
    newest: dict[tuple[str, str], list[Row]] = {}
    for row in store.quarantined(limit=MOST_QUARANTINED).rows:
        newest.setdefault((row["world_id"], row["stage"]), []).append(row)
    for (world_id, stage), rows in newest.items():
        last = rows[0]
        others = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        why = f"version {last['version']}: {'; '.join(last['reasons'])}{others}"
        yield Alert(Severity.WARNING, "in quarantine", why, world_id, stage, last["since"])


def _of_governor(
    settings: GovernorSettings, budgets: Budgets, governor: Governor | None
) -> Iterator[Alert]:
    if budgets.problem is not None:
        yield Alert(Severity.WARNING, "budgets unavailable", budgets.problem)
    if budgets.stale:
        why = f"{budgets.stale} of {budgets.count} are too old to be held against anybody"
        yield Alert(Severity.WARNING, "budgets stale", why)
    if governor is None:
        return
    # The history has a cycle every `history_sec`; one that is late by as much again is missing.
    if governor.age_sec > 2 * settings.history_sec + settings.lease_sec:
        why = "its last cycle on record is older than it should be"
        yield Alert(Severity.WARNING, "governor too old", why, since=governor.at)
    elif governor.no_budget_reason is not None:
        why = NO_BUDGET.get(governor.no_budget_reason, governor.no_budget_reason)
        yield Alert(Severity.WARNING, "no budgets", why, since=governor.at)
