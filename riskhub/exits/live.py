"""The exit engine as a process: it follows the outbox, looks at ages, and tells what follows.

Level-triggered: events say *where* to look, and each look is at what is known by then. It looks
everywhere when it takes over, and every `look_sec`. So an event that nobody wrote costs seconds,
and a backlog is no queue of old news: what came and went meanwhile is for `replay` to tell, and so
are stages that are history (`timeless_stages`).
"""

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

import redis

from riskhub.controlbus.events import EXIT_SIGNAL, METRICS_UPDATED, SNAPSHOT_QUARANTINED, NewEvent
from riskhub.errors import RiskHubError
from riskhub.exits.book import RuleBook
from riskhub.exits.engine import Decision, Episode, Signal, State, decide, dismiss
from riskhub.exits.observe import evidence_of, observe
from riskhub.exits.records import Key, episode_row, signal_row, state_row, states_of
from riskhub.exits.stream import bring
from riskhub.governor.loop import Tell
from riskhub.store import Store
from riskhub.store.exits import READER, EngineStep

STAND_BY_SEC = 1.0
"""How soon who does not write looks again whether it may."""

_TYPES = (METRICS_UPDATED, SNAPSHOT_QUARANTINED)
_EVENTS_AT_ONCE = 1_000

_logger = logging.getLogger(__name__)


class ExitEngine:
    """What one process decides and tells while it is the one that does. For one thread."""

    def __init__(
        self,
        store: Store,
        book: RuleBook,
        client: redis.Redis,
        *,
        writer: str,
        look_sec: float,
        timeless_stages: Collection[str],
        clock: Callable[[], datetime],
        tell: Tell,
    ) -> None:
        """Read nothing yet.

        Args:
            book: the rules.
            client: of the Redis that has the stream.
            writer: who this is, for people to read.
            look_sec: from one look everywhere to the next.
            timeless_stages: are left out.
            clock: UTC.
            tell: is told signals, and what goes wrong.
        """
        self._store = store
        self._book = book
        self._client = client
        self._writer = writer
        self._look_sec = look_sec
        self._timeless = frozenset(timeless_stages)
        self._clock = clock
        self._tell = tell
        self._turn = 0
        self._cursor = 0
        self._states: dict[Key, dict[str, State]] = {}
        self._looked_at: datetime | None = None
        self._redis_away = False

    def take_over(self) -> None:
        """Go on from what is stored, whoever stored it; the next beat looks everywhere."""
        self._cursor = self._store.cursor(READER)
        memory = self._store.exit_memory()
        self._turn = memory.turn
        self._states = states_of(memory.states, memory.open_episodes)
        self._looked_at = None
        self._tell(
            "takes over",
            rules=len(self._book.rules),
            open=len(memory.open_episodes),
            rules_digest=self._book.digest,
        )

    def beat(self) -> None:
        """Read on, look where it says, or everywhere when it is time; tell what follows.

        Raises:
            StoreUnavailable: nothing was written; safe to try again after `take_over`.
            EngineOvertaken: another engine is at work.
        """
        now = self._clock()
        if self._is_time(now):
            # The head first: what is told of later is not in the look, or is looked at twice.
            self._step(None, max(self._store.events_head(), self._cursor), now)
            self._looked_at = now
        elif events := self._store.events_after(self._cursor, limit=_EVENTS_AT_ONCE, types=_TYPES):
            self._step({event.key for event in events}, events[-1].sequence, now)
        self._bring(now)

    def _is_time(self, now: datetime) -> bool:
        if self._looked_at is None:
            return True
        since = (now - self._looked_at).total_seconds()
        return not 0 <= since < self._look_sec  # also when the clock was set back

    def _step(self, worlds: Collection[str] | None, cursor: int, now: datetime) -> None:
        """Look at worlds (None: at all), and write what follows in one transaction."""
        decided = self._decide(worlds, now)
        signals = [signal for decision in decided.values() for signal in decision.signals]
        step = EngineStep(
            states=[
                state_row(rule, key, state)
                for key, decision in decided.items()
                for rule, state in decision.states.items()
            ],
            episodes=[
                episode_row(episode)
                for decision in decided.values()
                for episode in decision.episodes
            ],
            signals=[signal_row(signal) for signal in signals],
            events=[event_of(signal) for signal in signals],
            cursor=cursor,
        )
        self._turn = self._store.write_exit_step(
            step, turn=self._turn, writer=self._writer, rules_digest=self._book.digest, now=now
        )
        self._cursor = cursor
        for key, decision in decided.items():
            self._states.setdefault(key, {}).update(decision.states)
        for signal in signals:
            self._tell(signal.signal, **_told(signal))

    def _decide(self, worlds: Collection[str] | None, now: datetime) -> dict[Key, Decision]:
        evidence = evidence_of(episode_row(episode) for episode in self._open_episodes())
        seen = observe(
            self._store,
            self._book,
            worlds=worlds,
            without_stages=self._timeless,
            evidence=evidence,
        )
        decided = {
            key: decide(self._book, observation, self._states.get(key, {}), now)
            for key, observation in seen.items()
        }
        if worlds is None:
            for key in self._states.keys() - seen.keys():
                decided[key] = _dismissed(self._states[key], now)
        return decided

    def _open_episodes(self) -> list[Episode]:
        of_keys = (state for states in self._states.values() for state in states.values())
        return [state.episode for state in of_keys if state.episode is not None]

    def _bring(self, now: datetime) -> None:
        try:
            bring(self._store, self._client, now)
        except (redis.RedisError, OSError) as error:
            if not self._redis_away:
                self._redis_away = True
                self._tell("stream away", error=type(error).__name__, why=error)
            return
        if self._redis_away:
            self._redis_away = False
            self._tell("stream back")


class Alone(Protocol):
    """Gives the right to be the only engine, or None: `Store.reading_alone`."""

    def __call__(self, reader: str) -> AbstractContextManager[Callable[[], None] | None]:
        """Ask for it."""


def run(
    engine: ExitEngine,
    alone: Alone,
    *,
    interval_sec: float,
    wait: Callable[[float], bool],
    tell: Tell,
) -> None:
    """Beat while no other engine does, until told to stop. What may fail is told and tried again.

    Args:
        interval_sec: > 0, from the end of a beat to the next.
        wait: waits so many seconds or until told to stop; gives whether it was told.
    """
    told = ""
    while True:
        try:
            with alone(READER) as still_alone:
                if still_alone is not None:
                    engine.take_over()
                    while True:
                        engine.beat()
                        told = ""
                        if wait(interval_sec):
                            return
                        still_alone()
                if told != "stands by":
                    told = "stands by"
                    tell("stands by")
        except Exception as error:
            name = type(error).__name__
            if told != name:
                told = name
                tell("failed", error=name, why=error, again_in_sec=STAND_BY_SEC)
                if not isinstance(error, RiskHubError):
                    _logger.exception("a beat of the exit engine failed")
        if wait(STAND_BY_SEC):
            return


def run_once(engine: ExitEngine, alone: Alone, *, tell: Tell) -> bool:
    """One look everywhere, unless another engine is at work; whether it came about.

    Raises:
        RiskHubError: it failed; nothing was written.
    """
    with alone(READER) as still_alone:
        if still_alone is None:
            tell("stands by")
            return False
        engine.take_over()
        engine.beat()
        return True


def event_of(signal: Signal) -> NewEvent:
    """The signal as an event of the ControlBus, ordered with all else of its world."""
    episode = signal.episode
    return NewEvent(
        type=EXIT_SIGNAL,
        key=episode.world_id,
        subject=f"{episode.world_id}/{episode.rule}",
        idempotency_key=f"{EXIT_SIGNAL}:{signal.id}",
        occurred_at=signal.at,
        data=signal.data(),
    )


def _dismissed(states: dict[str, State], now: datetime) -> Decision:
    """The end of what is open in a world and stage that is not looked at any more."""
    ended = {rule: dismiss(state, now) for rule, state in states.items()}
    signals = [signal for _, signal in ended.values() if signal is not None]
    changed = {rule: after for rule, (after, signal) in ended.items() if signal is not None}
    return Decision(changed, [signal.episode for signal in signals], signals)


def _told(signal: Signal) -> dict[str, Any]:
    episode = signal.episode
    reduced = {} if episode.target_fraction is None else {"to": episode.target_fraction}
    return {
        "rule": episode.rule,
        "world": episode.world_id,
        "stage": episode.stage,
        "action": episode.action,
        **reduced,
        "mode": episode.mode,
        "why": signal.why,
        "episode": episode.id,
    }
