"""What is read often: answers to "the latest of this world", in memory and in Redis.

**An answer is never older than the database.** Each landing gives its world and stage another
random stamp, in the landing's transaction. An answer is kept together with the stamps that it was
made under, and is given only while the database still has these. So a stale write-back, a Redis
that was restored from yesterday or that answers for another world, an expired body: all of them
lose against one small read that all requests of a moment share, and cost a look at the table.
"""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import blake3
import redis

from riskhub.snapshot import format_instant, parse_instant
from riskhub.store import Filter, Stored
from riskhub.telemetry import CacheOutcome

_KEY_PREFIX = "risk-hub:latest:"
_CHECK_BYTES = 16
_PAUSE_SEC = 1.0
# ValueError: of the client's parser, when what answers does not speak Redis's protocol.
_FAILURES = (redis.RedisError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Question:
    """The latest of a world, perhaps of one stage or actor."""

    world_id: str
    stage: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The latest body (None: nothing alive), the stamp it was made under, when it expires.

    `as_of` is that of the body: read from the table once, not from the body each time.
    """

    stamp: int
    body: str | None
    expires_at: datetime | None = None
    as_of: datetime | None = None

    def holds(self, stamp: int, now: datetime) -> bool:
        """Whether this is still the answer."""
        return self.stamp == stamp and (self.expires_at is None or now < self.expires_at)


class Source(Protocol):
    """The database, as the cache needs it."""

    def stamps(self, world_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Of each world that has snapshots: its stages, and their stamps."""

    def latest(self, world_id: str, which: Filter, *, now: datetime) -> Stored | None:
        """The greatest `as_of` that is alive."""


class Observer(Protocol):
    """Who counts what the cache did."""

    def cache(self, level: str, outcome: CacheOutcome) -> None:
        """`level`: memory or redis; `outcome`: hit, miss or failure."""


class Memory:
    """The answers of one process: the least recently used go when they take too many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[Question, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: Question) -> Answer | None:
        """What is remembered, right or not."""
        with self._lock:
            answer = self._answers.get(question)
            if answer is not None:
                self._answers.move_to_end(question)
            return answer

    def put(self, question: Question, answer: Answer) -> None:
        """Remember it, and forget what was not asked for in the longest time."""
        with self._lock:
            self._forget(question)
            self._answers[question] = answer
            self._bytes += _size(answer)
            while self._bytes > self._max_bytes:
                self._forget(next(iter(self._answers)))

    def _forget(self, question: Question) -> None:
        answer = self._answers.pop(question, None)
        if answer is not None:
            self._bytes -= _size(answer)


class Shared:
    """The answers that all processes share, on Redis. Whatever Redis does, it costs only speed.

    After a failure Redis is left alone for a second, so that one that is slow or gone delays a
    request a second, not each.
    """

    def __init__(
        self,
        client: redis.Redis,
        observer: Observer,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._observer = observer
        self._monotonic = monotonic
        self._paused_until = 0.0

    def get(self, questions: Sequence[Question]) -> dict[Question, Answer]:
        """What Redis has and is whole."""
        if not questions or self._monotonic() < self._paused_until:
            return {}
        try:
            values: Any = self._client.mget(list(map(_key, questions)))
        except _FAILURES:
            return self._pause()
        if not isinstance(values, list) or len(values) != len(questions):
            return self._pause()  # whoever answers there, it isn't Redis
        found = {}
        for question, value in zip(questions, values, strict=True):
            answer = _unpack(question, value) if value is not None else None
            if answer is not None:
                found[question] = answer
            elif value is not None:
                self._observer.cache("redis", "failure")
        return found

    def put(self, answers: Mapping[Question, Answer], now: datetime) -> None:
        """Keep the answers until they expire."""
        if self._monotonic() < self._paused_until:
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for question, answer in answers.items():
                    if answer.body is not None and answer.expires_at is not None:
                        lives = (answer.expires_at - now) // timedelta(milliseconds=1)
                        pipeline.set(_key(question), _pack(question, answer), px=max(1, lives))
                pipeline.execute()
        except _FAILURES:
            self._pause()

    def answers(self) -> bool:
        """Whether Redis is there now."""
        try:
            return bool(self._client.ping())
        except _FAILURES:
            return False

    def _pause(self) -> dict[Question, Answer]:
        self._paused_until = self._monotonic() + _PAUSE_SEC
        self._observer.cache("redis", "failure")
        return {}


class LatestCache:
    """Answers many questions at once, from memory, Redis or the database."""

    def __init__(
        self, source: Source, memory: Memory, shared: Shared | None, observer: Observer
    ) -> None:
        self._source = source
        self._memory = memory
        self._shared = shared
        self._observer = observer

    def answer(self, questions: Sequence[Question], now: datetime) -> list[Answer | None]:
        """The latest for each; None where nothing has ever landed that could be it.

        Raises:
            StoreUnavailable: without the database nobody can say what is the latest.
        """
        stamps = self._stamps(questions)
        answers: dict[Question, Answer] = {}
        unknown = []
        for question, stamp in stamps.items():
            remembered = self._memory.get(question)
            if remembered is not None and remembered.holds(stamp, now):
                answers[question] = remembered
                self._observer.cache("memory", "hit")
            else:
                unknown.append(question)
                self._observer.cache("memory", "miss")
        if unknown:
            answers |= self._fetch(unknown, stamps, now)
        return [answers.get(question) for question in questions]

    def _stamps(self, questions: Sequence[Question]) -> dict[Question, int]:
        worlds = self._source.stamps(list({question.world_id for question in questions}))
        stamps = {}
        for question in questions:
            stages = worlds.get(question.world_id, {})
            if question.stage is None and stages:
                # Random and independent: no two sets of landings have the same sum.
                stamps[question] = sum(stages.values())
            elif question.stage in stages:
                stamps[question] = stages[question.stage]
        return stamps

    def _fetch(
        self, unknown: Sequence[Question], stamps: Mapping[Question, int], now: datetime
    ) -> dict[Question, Answer]:
        answers = {}
        if self._shared is not None:
            for question, answer in self._shared.get(unknown).items():
                if answer.holds(stamps[question], now):
                    answers[question] = answer
                    self._observer.cache("redis", "hit")
        missed = {}
        for question in unknown:
            if question not in answers:
                if self._shared is not None:
                    self._observer.cache("redis", "miss")
                # The stamp was read before the table: a landing in between makes this answer one
                # that is asked for anew, never one that is too old.
                stored = self._source.latest(
                    question.world_id, Filter(question.stage, question.actor), now=now
                )
                missed[question] = Answer(
                    stamps[question],
                    stored.body if stored else None,
                    stored.expires_at if stored else None,
                    stored.as_of if stored else None,
                )
        if missed and self._shared is not None:
            self._shared.put(missed, now)
        answers |= missed
        for question, answer in answers.items():
            self._memory.put(question, answer)
        return answers


def _size(answer: Answer) -> int:
    return len(answer.body or "") + 256  # about what the entry itself takes


def _key(question: Question) -> str:
    named = [question.world_id, question.stage, question.actor]
    return _KEY_PREFIX + json.dumps(named, separators=(",", ":"))


def _pack(question: Question, answer: Answer) -> bytes:
    assert answer.expires_at is not None  # noqa: S101 - only bodies are shared
    assert answer.as_of is not None  # noqa: S101
    head = f"{answer.stamp} {format_instant(answer.expires_at)} {format_instant(answer.as_of)}"
    rest = f"{head}\n{answer.body}".encode()
    return _check(question, rest) + rest


def _unpack(question: Question, value: Any) -> Answer | None:
    """The answer, unless the value is not what was put there for this question."""
    if not isinstance(value, bytes):
        return None
    check, rest = value[:_CHECK_BYTES], value[_CHECK_BYTES:]
    if check != _check(question, rest):
        return None
    try:
        head, _, body = rest.decode().partition("\n")
        stamp, expires_at, as_of = head.split(" ")
        return Answer(int(stamp), body, parse_instant(expires_at), parse_instant(as_of))
    except ValueError:  # what another version of this code put there
        return None


def _check(question: Question, rest: bytes) -> bytes:
    checked: bytes = blake3.blake3(_key(question).encode() + b"\n" + rest).digest(_CHECK_BYTES)
    return checked
