"""What tests of the exit engine are made of: rules, what is observed, stored numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from builders import WORLD, accept
from stored import metrics, stress_result, stressed, tail, verdict

from riskhub.controlbus.events import metrics_updated
from riskhub.exits.book import RuleBook, load_rules
from riskhub.exits.engine import Episode, State, decide
from riskhub.exits.observation import Landed, Measured, Observation
from riskhub.exits.records import episode_row, signal_row, state_row
from riskhub.store import Store

STAGE = "paper"
START = datetime(2026, 1, 5, 21, tzinfo=UTC)
ES: dict[str, Any] = {
    "id": "es-limit",
    "title": "Expected shortfall over its limit",
    "kind": "es",
    "method": "historical",
    "level": 0.99,
    "enter": 0.08,
    "leave": 0.05,
    "action": "reduce",
    "severity": "critical",
}


def rule(**fields: Any) -> dict[str, Any]:
    """A rule as its file has it; of `kind` es unless it says otherwise."""
    if fields.get("kind", "es") != "es":
        kept = {name: ES[name] for name in ("id", "title", "severity")} | {"action": "freeze"}
        return kept | fields
    return ES | fields


def write_rules(path: Path, *rules: Mapping[str, Any], **file: Any) -> Path:
    path.write_text(yaml.safe_dump({**file, "rules": [dict(each) for each in rules]}))
    return path


def load(path: Path) -> RuleBook:
    return load_rules(path, stale_after_sec=600, critical_after_sec=1800)


def measured(
    number: int = 0,
    es: float | None = 0.03,
    *,
    as_of: datetime | None = None,
    pnl: Mapping[str, float | None] | None = None,
    **row: Any,
) -> Measured:
    """The numbers of the snapshot of a day; without an `es` there are no tails.

    `pnl`: by scenario, None where there is none; None is that nothing was stressed yet.
    """
    numbers = metrics(
        number + 1,
        version=f"v{number}",
        as_of=as_of or START + timedelta(days=number),
        unavailable="too few returns" if es is None else None,
        **row,
    )
    tails = {} if es is None else {("historical", "0.99"): tail(number + 1, var=es / 2, es=es)}
    found = pnl or {}
    return Measured(
        numbers,
        tails,
        {name: -value for name, value in found.items() if value is not None},
        {name: "no prices" for name, value in found.items() if value is None},
        pnl is not None,
    )


def seen(number: int = 0, es: float | None = 0.03, **of: Any) -> Observation:
    return Observation(WORLD, STAGE, measured(number, es, **of))


def landed(number: int = 0, *, as_of: datetime | None = None, ttl_sec: int = 900) -> Landed:
    at = as_of or START + timedelta(days=number)
    return Landed(number + 1, f"v{number}", at, "sha256:0", at, at + timedelta(seconds=ttl_sec))


class Engine:
    """`decide`, one observation after the other."""

    def __init__(self, book: RuleBook) -> None:
        self.book = book
        self.states: dict[str, State] = {}
        self.signals: list[tuple[str, str]] = []
        self.episodes: dict[str, Episode] = {}

    def see(self, observation: Observation, at: datetime | None = None) -> list[str]:
        """What is told of it; `at` is that of the snapshot unless another is given."""
        found = observation.measured
        now = at or (found.metrics["as_of"] if found else START)
        decision = decide(self.book, observation, self.states, now)
        self.states.update(decision.states)
        self.episodes |= {episode.id: episode for episode in decision.episodes}
        told = [signal.signal for signal in decision.signals]
        self.signals += [(signal.signal, signal.why) for signal in decision.signals]
        return list(map(str, told))

    def see_days(self, *es: float | None, first: int = 0) -> list[str]:
        """What is told of a value a day; each in its own words, or a dash."""
        return [
            "+".join(self.see(seen(first + number, value))) or "-"
            for number, value in enumerate(es)
        ]

    @property
    def open(self) -> Episode | None:
        """The open episode of the only rule."""
        (state,) = self.states.values() or [State()]
        return state.episode

    @property
    def last(self) -> Episode:
        return list(self.episodes.values())[-1]


def opened_episode(book: RuleBook, **changes: Any) -> Iterator[dict[str, Any]]:
    """The rows of an episode that has just opened: its state, itself, its signal."""
    decision = decide(book, seen(0, 0.1), {}, START)
    (signal,) = decision.signals
    episode = replace(signal.episode, **changes)
    signal = replace(signal, episode=episode)
    (before,) = decision.states.values()
    state = replace(before, episode=episode if episode.closed_at is None else None)
    yield state_row(episode.rule, (episode.world_id, episode.stage), state)
    yield episode_row(episode)
    yield signal_row(signal)


def compute_world(
    store: Store,
    es: float | None,
    *,
    as_of: datetime,
    version: str,
    world_id: str = WORLD,
    stage: str = STAGE,
    pnl: Mapping[str, float] | None = None,
    accepted: bool = True,
    **row: Any,
) -> int:
    """Land a snapshot, and write what the pipeline makes of it; gives its position."""
    named = {"version": version, "as_of": as_of.isoformat()}
    store.land([accept(**named, world_id=world_id, stage=stage, received_at=as_of)])
    position, day = store.head(), as_of.date()
    of_it = {"version": version, "world_id": world_id, "stage": stage, "as_of": as_of}
    write_verdict(store, position, now=as_of, accepted=accepted, **of_it)
    if not accepted:
        return position
    rows = {
        "risk_metrics": [
            metrics(
                position, day=day, unavailable=None if es else "too few returns", **of_it, **row
            )
        ],
        "risk_tails": [tail(position, day=day, es=es, var=es / 2)] if es else [],
    }
    if pnl is not None:
        rows["snapshot_stress"] = [stressed(position, day=day, **of_it)]
        rows["stress_results"] = [
            stress_result(position, scenario, pnl=value) | {"day": day}
            for scenario, value in pnl.items()
        ]
    (numbers,) = rows["risk_metrics"]
    told = [metrics_updated(numbers, rows["risk_tails"], as_of)]
    store.write_days(rows, [day], replace=False, told=told)
    return position


def write_verdict(
    store: Store, position: int, *, now: datetime, accepted: bool, **of_it: Any
) -> None:
    """Accept a snapshot, or put it into the quarantine."""
    day: date = of_it["as_of"].date()
    row = verdict(position, day=day, accepted=accepted, **of_it)
    store.write_verdicts([row], [day], now=now, replace=False)
