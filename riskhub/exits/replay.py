"""The engine over history: the episodes that the stored numbers would have made. Writes nothing.

Each measured snapshot is observed at its `as_of`, in that order, by the same `decide` as live ones;
a world's ages are looked at where they reach a threshold. It begins with nothing open. What landed,
or was corrected, later than its `as_of` is taken as known then: a replay tells what the rules would
have said to these numbers, not what anybody could have known.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from riskhub.exits.book import RuleBook
from riskhub.exits.engine import Episode, Signal, State, decide
from riskhub.exits.observation import Landed, Observation, midnight
from riskhub.exits.observe import key_of, landed_of, measured_of
from riskhub.exits.records import Key
from riskhub.exits.rules import ExpiredRule, StaleRule
from riskhub.portfolio import CLOSE_UTC
from riskhub.store import Store

# A backtest of the days before the first counts as well: the newest there is.
_LOOK_BACK = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was observed, and when."""

    at: datetime
    seen: Observation


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to: episodes as they ended or still stand, and every signal, in order."""

    episodes: Sequence[Episode]
    signals: Sequence[Signal]
    observed: int


def replay(book: RuleBook, moments: Iterator[Moment]) -> Replayed:
    """The episodes that a sequence of observations makes. Pure.

    Args:
        moments: of any worlds and stages, by time.
    """
    states: dict[Key, dict[str, State]] = {}
    episodes: dict[str, Episode] = {}
    signals: list[Signal] = []
    observed = 0
    for moment in moments:
        observed += 1
        of_key = states.setdefault((moment.seen.world_id, moment.seen.stage), {})
        decision = decide(book, moment.seen, of_key, moment.at)
        of_key.update(decision.states)
        episodes |= {episode.id: episode for episode in decision.episodes}
        signals += decision.signals
    return Replayed(tuple(episodes.values()), tuple(signals), observed)


def history(
    store: Store,
    book: RuleBook,
    first: date,
    last: date,
    *,
    now: datetime,
    worlds: Collection[str] | None = None,
    timeless_stages: Collection[str] = (),
) -> Iterator[Moment]:
    """What was there to observe on the days `first` to `last`, by time.

    Args:
        now: nothing has grown older than it is by now.
        worlds: only of these; None is all.
        timeless_stages: stages that are never stale.
    """
    measured = _measured(store, book, first, last, worlds)
    if not any(isinstance(rule, StaleRule | ExpiredRule) for rule in book.rules):
        return measured
    until = min(now, midnight(last + timedelta(days=1)))
    landings = _landings(store, first, last, worlds, timeless_stages)
    return _with_ages(measured, book, landings, until)


def _measured(
    store: Store, book: RuleBook, first: date, last: date, worlds: Collection[str] | None
) -> Iterator[Moment]:
    backtests = iter(
        store.backtests_between(first - _LOOK_BACK, last, worlds=worlds, zones=book.zone_kinds())
    )
    zones: dict[Key, dict[tuple[str, str], Mapping[str, Any]]] = {}
    ahead = next(backtests, None)
    days = store.numbers_by_day(first, last, worlds=worlds, tails=book.tail_kinds())
    for of_day in days:
        for numbers in of_day:
            as_of: datetime = numbers.metrics["as_of"]
            # The light of a day is known once that day's prices are.
            while ahead is not None and _close_of(ahead["day"]) <= as_of:
                of_key = zones.get(key_of(ahead), {})
                # Another dict each time: an observation keeps what it was made with.
                zones[key_of(ahead)] = of_key | {(ahead["method"], ahead["level"]): ahead}
                ahead = next(backtests, None)
            key = key_of(numbers.metrics)
            seen = Observation(*key, measured=measured_of(numbers), zones=zones.get(key, {}))
            yield Moment(as_of, seen)


def _with_ages(
    measured: Iterator[Moment],
    book: RuleBook,
    landings: Mapping[Key, Sequence[Landed]],
    until: datetime,
) -> Iterator[Moment]:
    """The same, each with the newest snapshot of its time, and the moments when ages tell.

    A snapshot is the newest from its `as_of` on: that history was landed later makes it no older.
    """
    alone = (
        Moment(at, Observation(*key, landed=landed))
        for key, of_key in landings.items()
        for at, landed in _telling(book, key, of_key, until=until)
    )
    newest_measured: dict[Key, Observation] = {}
    newest_landed: dict[Key, Landed] = {}
    # At one time the landing comes first: what was measured is of the newest.
    by_time = heapq.merge(sorted(alone, key=_at), measured, key=_at)
    for moment in by_time:
        key = (moment.seen.world_id, moment.seen.stage)
        if moment.seen.landed is not None:
            newest_landed[key] = moment.seen.landed
        else:
            newest_measured[key] = moment.seen
        seen = newest_measured.get(key, Observation(*key))
        yield Moment(moment.at, replace(seen, landed=newest_landed.get(key)))


def _landings(
    store: Store,
    first: date,
    last: date,
    worlds: Collection[str] | None,
    timeless_stages: Collection[str],
) -> dict[Key, list[Landed]]:
    found: dict[Key, list[Landed]] = {}
    for row in store.landed_between(first, last, worlds=worlds):
        if row["stage"] not in timeless_stages:
            found.setdefault(key_of(row), []).append(landed_of(row))
    return found


def _telling(
    book: RuleBook, key: Key, landings: Sequence[Landed], *, until: datetime
) -> Iterator[tuple[datetime, Landed]]:
    """Each snapshot when it came, and when it had grown as old as some rule minds."""
    ages = [rule for rule in book.rules if isinstance(rule, StaleRule | ExpiredRule)]
    applying = [rule for rule in ages if rule.applies_to(*key)]
    ends = [*(landed.as_of for landed in landings[1:]), until]
    for landed, replaced_at in zip(landings, ends, strict=True):
        yield landed.as_of, landed
        for rule in applying:
            enter = rule.thresholds[0]
            if isinstance(rule, StaleRule):
                at = landed.as_of + timedelta(seconds=enter)
            else:
                at = landed.received_at + enter * (landed.expires_at - landed.received_at)
            if landed.as_of <= at < min(replaced_at, until):
                yield at, landed


def _at(moment: Moment) -> datetime:
    return moment.at


def _close_of(day: date) -> datetime:
    return datetime.combine(day, CLOSE_UTC, tzinfo=midnight(day).tzinfo)


def by_year(episodes: Iterable[Episode]) -> list[dict[str, Any]]:
    """Of each year and rule: in how many worlds, how many episodes opened, for how many days.

    An episode that is still open counts up to the newest number that it saw.
    """
    found: dict[tuple[int, str], list[Episode]] = {}
    for episode in episodes:
        found.setdefault((episode.opened_at.year, episode.rule), []).append(episode)
    return [
        {
            "year": year,
            "rule": rule,
            "worlds": len({(each.world_id, each.stage) for each in of_it}),
            "episodes": len(of_it),
            "days": sum(days_of(each) for each in of_it),
        }
        for (year, rule), of_it in sorted(found.items())
    ]


def days_of(episode: Episode) -> int:
    """For how many whole days it was open, up to its end or the newest number that it saw."""
    # What opened for its age saw no number since it did.
    return max(0, ((episode.closed_at or episode.newest_of) - episode.opened_at).days)
