"""The state of each world and stage: a pure function of what is stored, policies and the time."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from riskhub.freshness.calendars import OpenHours

ALWAYS_OPEN = "24/7"


class Freshness(StrEnum):
    """The state of one world and stage; `docs/hub.md` has them as a table."""

    FRESH = "fresh"
    STALE = "stale"
    CRITICAL = "critical"
    EXPIRED = "expired"
    MISSING = "missing"
    EXEMPT = "exempt"


class Severity(StrEnum):
    """How urgent a state is; the order is that of a monitoring plugin's exit codes."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1 or 2."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class Newest(NamedTuple):
    """What is stored of one world and stage, without what is in the quarantine.

    `newest_as_of`: the greatest; None when nothing is left. `alive_until`: when the last snapshot
    of it expires, or did; None when none is alive.
    """

    world_id: str
    stage: str
    newest_as_of: datetime | None
    alive_until: datetime | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one world and stage: limits of its age in seconds, and when it ages."""

    stale_after_sec: float
    critical_after_sec: float
    calendar: str = ALWAYS_OPEN
    exempt: bool = False


@dataclass(frozen=True, slots=True)
class WorldFreshness:
    """One world and stage as of a moment.

    Ages are in seconds, never negative, and None where nothing landed. `age_seconds` is by the
    clock; `open_age_seconds` counts only the time in which the calendar's market was open, and is
    what is held against the limits. `served`: whether a snapshot is alive, so that it has a latest
    one. `note` says why the calendar could not be used, if it could not.
    """

    world_id: str
    stage: str
    state: Freshness
    severity: Severity
    newest_as_of: datetime | None
    age_seconds: float | None
    open_age_seconds: float | None
    served: bool
    policy: Policy
    note: str | None = None


def assess(
    newest: Iterable[Newest],
    *,
    now: datetime,
    policy_of: Callable[[str, str], Policy],
    expected: Collection[tuple[str, str]] = (),
    hours_of: Callable[[str], OpenHours | str] | None = None,
) -> list[WorldFreshness]:
    """The state of each world and stage: those given, in order, then those that never landed.

    An `as_of` ahead of the clock has age 0.

    Args:
        newest: what is stored.
        now: the moment.
        policy_of: of a world and a stage.
        expected: the worlds and stages that must be there.
        hours_of: of a calendar's name, or why there are none; not asked for `ALWAYS_OPEN`.
    """
    absent = dict.fromkeys(expected)
    assessed = []
    for each in newest:
        key = (each.world_id, each.stage)
        policy = policy_of(*key)
        if each.newest_as_of is not None:
            assessed.append(_assess(each, each.newest_as_of, now, policy, hours_of))
        elif policy.exempt and key not in absent:
            assessed.append(_without_age(*key, Freshness.EXEMPT, policy))
        else:
            assessed.append(_without_age(*key, Freshness.MISSING, policy))
        absent.pop(key, None)
    return assessed + [
        _without_age(*key, Freshness.MISSING, policy_of(*key)) for key in sorted(absent)
    ]


def judge(
    age: float, *, served: bool, stale_after_sec: float, critical_after_sec: float
) -> tuple[Freshness, Severity]:
    """The state of an age, and how urgent it is.

    The limits decide how urgent; what consumers get decides what a late world is called. What is
    late and served is numbers that are too old; what is late and expired is no numbers.
    """
    if age > critical_after_sec:
        return Freshness.CRITICAL if served else Freshness.EXPIRED, Severity.CRITICAL
    if age > stale_after_sec:
        return Freshness.STALE if served else Freshness.EXPIRED, Severity.WARNING
    return Freshness.FRESH, Severity.OK


def age_seconds(as_of: datetime, now: datetime) -> float:
    """How old something is by the clock; 0 when it is ahead of it."""
    return max(0.0, (now - as_of).total_seconds())


def worst_first(worlds: Iterable[WorldFreshness]) -> list[WorldFreshness]:
    """The most urgent first, of these what never landed, then by age; what is exempt is last."""

    def urgency(world: WorldFreshness) -> tuple[int, bool, bool, float, str, str]:
        has_age = world.state is not Freshness.MISSING
        is_exempt = world.state is Freshness.EXEMPT
        age = world.open_age_seconds or 0.0
        return -world.severity.rank, is_exempt, has_age, -age, world.world_id, world.stage

    return sorted(worlds, key=urgency)


def _assess(
    each: Newest,
    newest_as_of: datetime,
    now: datetime,
    policy: Policy,
    hours_of: Callable[[str], OpenHours | str] | None,
) -> WorldFreshness:
    age = age_seconds(newest_as_of, now)
    open_age, note = age, None
    if age and policy.calendar != ALWAYS_OPEN and hours_of is not None:
        open_age, note = _open_age(newest_as_of, now, age, hours_of(policy.calendar))
    served = each.alive_until is not None and each.alive_until > now
    if policy.exempt:
        state, severity = Freshness.EXEMPT, Severity.OK
    else:
        state, severity = judge(
            open_age,
            served=served,
            stale_after_sec=policy.stale_after_sec,
            critical_after_sec=policy.critical_after_sec,
        )
    return WorldFreshness(
        each.world_id,
        each.stage,
        state,
        severity,
        newest_as_of,
        age,
        open_age,
        served,
        policy,
        note,
    )


def _open_age(
    since: datetime, now: datetime, age: float, hours: OpenHours | str
) -> tuple[float, str | None]:
    """The open part of an age; all of it, with the reason, where the calendar can't tell."""
    if isinstance(hours, str):
        return age, hours
    if not (hours.knows(since) and hours.knows(now)):
        return age, f"{hours.span}; closed hours count, too"
    return hours.open_seconds(since, now), None


def _without_age(world_id: str, stage: str, state: Freshness, policy: Policy) -> WorldFreshness:
    severity = Severity.OK if state is Freshness.EXEMPT else Severity.CRITICAL
    return WorldFreshness(world_id, stage, state, severity, None, None, None, False, policy)
