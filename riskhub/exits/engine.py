"""The decision: an observation, the rules, what was decided before and the time give what follows.

Pure. An *episode* of a rule, a world and a stage opens when its number has breached `enter` as
often as the rule wants it confirmed, and closes when it is back at `leave`; of one rule, world and
stage there is one open episode at most. Between the two thresholds nothing changes. Missing data
opens and closes nothing: it is noted in the evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from riskhub.digests import canonical_json, digest
from riskhub.exits.book import RuleBook
from riskhub.exits.observation import Observation, Reading, read
from riskhub.exits.rules import Rule
from riskhub.snapshot import format_instant

SignalKind = Literal["opened", "updated", "closed"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Episode:
    """A time in which a rule asks for its action in a world and a stage.

    Attributes:
        id: the same for the same rule, world, stage and opening snapshot.
        kind, action, severity, mode: of the rule.
        value: the newest that is known; `worst` the worst.
        told: the value of the last signal.
        target_fraction: of an action `reduce`: the share of each position that may stay.
        opened_of, newest_of: what the opening and the newest number are of.
        held: what the value is the worst of, as far as it was beyond `leave`; see `Reading.parts`.
        signals: how many there were.
        evidence: `rule`, `opened`, `worst`, `newest` and, while there is no number, `missing`.
    """

    id: str
    rule: str
    kind: str
    world_id: str
    stage: str
    action: str
    severity: str
    mode: str
    opened_at: datetime
    opened_of: datetime
    newest_of: datetime
    value: float
    worst: float
    told: float
    target_fraction: float | None
    held: tuple[str, ...]
    signals: int
    evidence: Mapping[str, Any]
    closed_at: datetime | None = None
    closed_because: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of a rule in a world and a stage.

    Attributes:
        episode: the open one.
        streak: how often the threshold has been breached without a break, as far as it counts.
        counted: what the last number of the streak is of.
        last_closed_at: when the last episode ended.
        last_opening: what that one was opened by, and `reopened` how often again.
    """

    episode: Episode | None = None
    streak: int = 0
    counted: datetime | None = None
    last_closed_at: datetime | None = None
    last_opening: str | None = None
    reopened: int = 0


NOTHING = State()


@dataclass(frozen=True, slots=True)
class Signal:
    """What consumers are told. `episode` is as it is afterwards."""

    signal: SignalKind
    why: str
    at: datetime
    episode: Episode

    @property
    def id(self) -> str:
        """The same however often it is told."""
        return f"{self.episode.id}:{self.episode.signals}"

    def data(self) -> dict[str, Any]:
        """As JSON values: of the event and of the stream."""
        episode = self.episode
        return {
            "signal_id": self.id,
            "signal": self.signal,
            "why": self.why,
            "at": format_instant(self.at),
            "episode_id": episode.id,
            "number": episode.signals,
            "rule": episode.rule,
            "kind": episode.kind,
            "world_id": episode.world_id,
            "stage": episode.stage,
            "action": episode.action,
            "target_fraction": episode.target_fraction,
            "severity": episode.severity,
            "mode": episode.mode,
            "opened_at": format_instant(episode.opened_at),
            "closed_at": episode.closed_at and format_instant(episode.closed_at),
            "value": episode.value,
            "worst": episode.worst,
            "evidence": dict(episode.evidence),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What changed: states by rule, every episode that is another than before, and the signals."""

    states: Mapping[str, State]
    episodes: Sequence[Episode]
    signals: Sequence[Signal]


def decide(
    book: RuleBook, seen: Observation, states: Mapping[str, State], now: datetime
) -> Decision:
    """What follows from an observation of a world and a stage.

    Args:
        states: by rule; one that is not there has nothing to remember.
        now: not before that of the observation before.
    """
    changed: dict[str, State] = {}
    signals: list[Signal] = []
    episodes: list[Episode] = []
    applying = [rule for rule in book.rules if rule.applies_to(seen.world_id, seen.stage)]
    for rule in applying:
        before = states.get(rule.id, NOTHING)
        after, signal = step(rule, seen, before, now, book_digest=book.digest)
        _note(rule.id, before, after, signal, changed, episodes, signals)
    for rule_id in sorted(states.keys() - {rule.id for rule in applying}):
        after, signal = dismiss(states[rule_id], now)
        _note(rule_id, states[rule_id], after, signal, changed, episodes, signals)
    return Decision(changed, episodes, signals)


def _note(
    rule_id: str,
    before: State,
    after: State,
    signal: Signal | None,
    changed: dict[str, State],
    episodes: list[Episode],
    signals: list[Signal],
) -> None:
    if after != before:
        changed[rule_id] = after
    if signal is not None:
        signals.append(signal)
        episodes.append(signal.episode)
    elif after.episode is not None and after.episode != before.episode:
        episodes.append(after.episode)


def dismiss(state: State, now: datetime) -> tuple[State, Signal | None]:
    """The end of an episode whose rule is gone, or does not apply to its world any more."""
    if state.episode is None:
        return state, None
    return _close(state, state.episode, "the rule does not apply any more", now)


def step(
    rule: Rule, seen: Observation, state: State, now: datetime, *, book_digest: str
) -> tuple[State, Signal | None]:
    """One rule's part in `decide`."""
    reading = read(rule, seen, now)
    if state.episode is None:
        return _closed_step(rule, seen, state, reading, now, book_digest)
    return _open_step(rule, seen, state, state.episode, reading, now)


# -- while no episode is open ---------------------------------------------------------------------


def _closed_step(
    rule: Rule,
    seen: Observation,
    state: State,
    reading: Reading | None,
    now: datetime,
    book_digest: str,
) -> tuple[State, Signal | None]:
    if reading is None or reading.value is None:
        return state, None
    if not rule.breaches(reading.value):
        return replace(state, streak=0, counted=None), None
    state = _counted(rule, state, reading.of)
    cools_until = (state.last_closed_at or _LONG_AGO) + timedelta(seconds=rule.cool_down)
    if state.streak < rule.confirm.count or now < cools_until:
        return state, None
    return _open(rule, seen, state, reading, reading.value, now, book_digest)


def _counted(rule: Rule, state: State, of: datetime) -> State:
    """The streak with one more breach: of a later snapshot or day, not of the same one again."""
    if state.counted is None or of < state.counted:  # what was counted is in the quarantine now
        return replace(state, streak=1, counted=of)
    before, this = state.counted, of
    more = this.date() > before.date() if rule.confirm.days else this > before
    streak = min(state.streak + more, rule.confirm.count)  # beyond that it says no more
    return replace(state, streak=streak, counted=of if streak < rule.confirm.count else before)


def _open(
    rule: Rule,
    seen: Observation,
    state: State,
    reading: Reading,
    value: float,
    now: datetime,
    book_digest: str,
) -> tuple[State, Signal]:
    opening = _id_of(
        {
            "rule": rule.id,
            "world_id": seen.world_id,
            "stage": seen.stage,
            "of": format_instant(reading.of),
            "version": reading.evidence["version"],
        }
    )
    # The same number of the same snapshot may come back after another was computed meanwhile.
    reopened = state.reopened + 1 if opening == state.last_opening else 0
    enter, leave = rule.thresholds
    confirm = {name: n for name, n in rule.confirm.model_dump().items() if n is not None}
    about = {
        "title": rule.title,
        "measured": rule.measure_text,
        **rule.convention,
        "enter": enter,
        "leave": leave,
        "confirm": confirm,
        "cool_down_sec": rule.cool_down,
        "rules_digest": book_digest,
    }
    found = _found(reading, value)
    episode = Episode(
        id=_id_of({"opening": opening, "again": reopened}) if reopened else opening,
        rule=rule.id,
        kind=rule.kind,
        world_id=seen.world_id,
        stage=seen.stage,
        action=rule.action,
        severity=rule.severity,
        mode=rule.mode,
        opened_at=now,
        opened_of=reading.of,
        newest_of=reading.of,
        value=value,
        worst=value,
        told=value,
        target_fraction=rule.target_fraction(value),
        held=_held(rule, (), reading),
        signals=1,
        evidence={"rule": about, "opened": found, "worst": found, "newest": found},
    )
    why = f"{rule.measure_text} is {rule.shown(value)}, the threshold is {rule.shown(enter)}"
    after = replace(
        state, episode=episode, streak=0, counted=None, last_opening=opening, reopened=reopened
    )
    return after, Signal("opened", why, now, episode)


# -- while one is ---------------------------------------------------------------------------------


def _open_step(
    rule: Rule,
    seen: Observation,
    state: State,
    episode: Episode,
    reading: Reading | None,
    now: datetime,
) -> tuple[State, Signal | None]:
    why = _why_no_news(seen, episode, reading)
    if reading is None or reading.value is None or why is not None:
        return _told(rule, state, _without_number(episode, reading, why or "", now), now)
    value = reading.value
    episode = _with_number(rule, episode, reading, value)
    unknown = [name for name in episode.held if name in reading.missing_parts]
    if rule.is_safe(value) and unknown:
        # What is left is safe; what made it unsafe can't be told.
        why = f"{unknown[0]}: {reading.missing_parts[unknown[0]]}"
        episode = _without_number(episode, reading, why, now)
    elif rule.is_safe(value):
        leave = rule.shown(rule.thresholds[1])
        why = f"{rule.measure_text} is {rule.shown(value)}, back at {leave}"
        return _close(state, episode, why, now)
    elif _is_withdrawn(seen, episode, reading) and not rule.breaches(value):
        return _close(state, episode, "the snapshot that opened it is in the quarantine", now)
    return _told(rule, state, episode, now)


def _with_number(rule: Rule, episode: Episode, reading: Reading, value: float) -> Episode:
    found = _found(reading, value)
    is_worst = rule.is_worse(value, episode.worst)
    evidence = {name: part for name, part in episode.evidence.items() if name != "missing"}
    evidence |= {"newest": found} | ({"worst": found} if is_worst else {})
    return replace(
        episode,
        value=value,
        worst=value if is_worst else episode.worst,
        newest_of=reading.of,
        held=_held(rule, episode.held, reading),
        evidence=evidence,
    )


def _why_no_news(seen: Observation, episode: Episode, reading: Reading | None) -> str | None:
    """Why a reading says nothing of an open episode; None when it does."""
    if reading is None:
        return "there is no snapshot any more"
    if reading.value is None:
        return reading.missing or "there is no number"
    newest = episode.evidence["newest"]["position"]
    if reading.of < episode.newest_of and newest not in seen.rejected:
        return f"its number of {format_instant(episode.newest_of)} is gone"
    return None


def _without_number(episode: Episode, reading: Reading | None, why: str, now: datetime) -> Episode:
    """The episode with a note of what is missing; the first time it is the time that counts."""
    known = episode.evidence.get("missing")
    if known is not None and known["why"] == why:
        return episode
    version = reading.evidence["version"] if reading is not None else None
    missing = {"why": why, "since": format_instant(now), "version": version}
    return replace(episode, evidence={**episode.evidence, "missing": missing})


def _is_withdrawn(seen: Observation, episode: Episode, reading: Reading) -> bool:
    opened_by = episode.evidence["opened"]["position"]
    return opened_by in seen.rejected and reading.of < episode.opened_of


def _told(rule: Rule, state: State, episode: Episode, now: datetime) -> tuple[State, Signal | None]:
    """The episode as it is; told again when it got worse, or the rule asks for another thing."""
    why = _why_again(rule, episode)
    if why is None:
        return replace(state, episode=episode), None
    episode = replace(
        episode,
        action=rule.action,
        severity=rule.severity,
        mode=rule.mode,
        told=episode.value,
        target_fraction=rule.target_fraction(episode.value),
        signals=episode.signals + 1,
    )
    return replace(state, episode=episode), Signal("updated", why, now, episode)


def _why_again(rule: Rule, episode: Episode) -> str | None:
    asked = (rule.action, rule.severity, rule.mode)
    if (episode.action, episode.severity, episode.mode) != asked:
        return f"the rule asks for {rule.action} in mode {rule.mode}, {rule.severity}, now"
    if rule.escalate is None:
        return None
    limit = episode.told * (1 + rule.escalate) ** rule.sign
    if not rule.is_worse(episode.value, limit):
        return None
    told, value = rule.shown(episode.told), rule.shown(episode.value)
    return f"{rule.measure_text} has gone from {told} to {value}"


def _close(state: State, episode: Episode, why: str, now: datetime) -> tuple[State, Signal]:
    ended = replace(episode, closed_at=now, closed_because=why, signals=episode.signals + 1)
    after = replace(state, episode=None, streak=0, counted=None, last_closed_at=now)
    return after, Signal("closed", why, now, ended)


# -- both -----------------------------------------------------------------------------------------


def _held(rule: Rule, before: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """The parts that must be known to be safe, for the whole to be."""
    beyond = {name for name, part in reading.parts.items() if not rule.is_safe(part)}
    return tuple(sorted(beyond.union(before)))


def _found(reading: Reading, value: float) -> dict[str, Any]:
    return {"value": value, "of": format_instant(reading.of), **reading.evidence}


def _id_of(content: Mapping[str, Any]) -> str:
    return digest(canonical_json(dict(content))).partition(":")[2][:20]
