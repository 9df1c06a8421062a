"""Bringing a batch of events to its end: each is handled, or given up on with the reason.

A handler gets the batch as one. When that fails, halves of it are tried, down to the events that
fail alone; these are tried again with pauses that double, and what comes after one of its world
waits for it, nothing else does. So a poisoned event costs its world its retries, and a batch of n
that it is in about log2(n) more calls.
"""

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from riskhub.controlbus.events import Event
from riskhub.controlbus.handlers import Handler, Outage, Tell
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.records import Letter, Record, storable
from riskhub.errors import BlobsUnavailable, RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.logs import about
from riskhub.traces import of_events

LONGEST_BACKOFF_SEC = 60.0

_logger = logging.getLogger(__name__)


class GivenUp(Exception):
    """There is no time to finish the batch; what is done is on record, the rest comes again."""


class Marks(Protocol):
    """What handlers are done with; see `riskhub.store.consumers`."""

    def handled(self, handler: str, event_ids: Collection[str]) -> set[str]:
        """Those that a handler is done with."""
        ...

    def note_handled(self, handler: str, event_ids: Collection[str], now: datetime) -> None:
        """Note that it is done with these."""
        ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """An event, and the record that it came as."""

    event: Event
    record: Record


@dataclass(slots=True)
class _Failed:
    """An event that has failed alone, so many times, and is due again; and what waits behind it."""

    one: Delivered
    behind: list[Delivered] = field(default_factory=list)
    attempts: int = 0
    due: float = 0.0


def is_outage(error: BaseException) -> bool:
    """Whether it says that something is away, and nothing about an event."""
    if isinstance(error, Outage | StoreUnavailable | StoreNotMigrated | BlobsUnavailable):
        return True
    # Who has not imported aiokafka can't have been let down by it, and it is slow to import.
    kafka = sys.modules.get("aiokafka.errors")
    return kafka is not None and isinstance(error, kafka.KafkaError)


class Settler:
    """Brings batches to their end. For one thread."""

    def __init__(
        self,
        handlers: Sequence[Handler],
        marks: Marks,
        *,
        attempts: int,
        backoff_sec: float,
        metrics: WorkerMetrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        wait: Callable[[float], bool],
        tell: Tell,
    ) -> None:
        """Do nothing yet.

        Args:
            handlers: in the order in which they get an event.
            marks: what they are done with.
            attempts: to handle an event alone.
            backoff_sec: before the second; it doubles from there, up to `LONGEST_BACKOFF_SEC`.
            clock: UTC.
            monotonic: seconds that never go back.
            wait: waits so many seconds, or until others wait for the batch; gives whether they do.
        """
        self._handlers = handlers
        self._marks = marks
        self._attempts = attempts
        self._backoff_sec = backoff_sec
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._wait = wait
        self._tell = tell

    def settle(self, batch: Sequence[Delivered]) -> list[Letter]:
        """Have each event handled; gives those that were given up on, to be stored.

        A handler does not get what those that it comes after have given up on.

        Raises:
            GivenUp: others wait for the batch, and it needs more time.
            Outage: or another of those that `is_outage` knows.
        """
        letters: list[Letter] = []
        handled: dict[str, Event] = {}
        lacking: dict[str, set[str]] = {}
        try:
            for handler in self._handlers:
                kept_from = set[str]().union(*(lacking[name] for name in handler.after))
                wanted = [
                    each
                    for each in batch
                    if each.event.type in handler.types and each.event.id not in kept_from
                ]
                fresh = self._fresh(handler, wanted)
                died = self._handle(handler, fresh)
                dead = {letter.event_id for letter in died}
                lacking[handler.name] = kept_from | dead
                letters += died
                handled |= {
                    each.event.id: each.event for each in fresh if each.event.id not in dead
                }
        finally:  # what is done is done, also when the rest has to wait
            self._metrics.processed(handled.values(), self._clock())
        return letters

    def _fresh(self, handler: Handler, wanted: Sequence[Delivered]) -> list[Delivered]:
        """Those that the handler is not done with, each once."""
        first: dict[str, Delivered] = {}
        for each in wanted:
            first.setdefault(each.event.id, each)
        done = self._marks.handled(handler.name, first.keys()) if first else set[str]()
        fresh = [each for event_id, each in first.items() if event_id not in done]
        self._metrics.passed_over("duplicate", len(wanted) - len(fresh))
        return fresh

    def _handle(self, handler: Handler, fresh: list[Delivered]) -> list[Letter]:
        """Bring a handler's events to their end; gives those that it was given up on with."""
        letters: list[Letter] = []
        groups = deque([fresh])
        waiting: dict[str, _Failed] = {}
        while groups or waiting:
            if groups:
                group = _not_behind(groups.popleft(), waiting)
                error = self._try(handler, group) if group else None
                if error is None:
                    continue
                self._pause(0)
                if len(group) > 1:
                    middle = len(group) // 2
                    groups.extendleft([group[middle:], group[:middle]])
                    continue
                failed = _Failed(group[0])
            else:
                failed = waiting.pop(min(waiting, key=lambda key: waiting[key].due))
                self._pause(failed.due - self._monotonic())
                self._metrics.retried()
                error = self._try(handler, [failed.one])
                if error is None:
                    groups.append(failed.behind)
                    continue
            failed.attempts += 1
            self._metrics.failed()
            if failed.attempts < self._attempts:
                backoff = min(self._backoff_sec * 2 ** (failed.attempts - 1), LONGEST_BACKOFF_SEC)
                failed.due = self._monotonic() + backoff
                waiting[failed.one.event.key] = failed
                self._tell_failure("failed", handler, failed, error, again_in_sec=backoff)
            else:
                letters.append(self._letter(handler, failed, error))
                groups.append(failed.behind)
                self._tell_failure("dead letter", handler, failed, error)
                with about(**failed.one.event.named()):
                    _logger.error("%s gave up on an event", handler.name, exc_info=error)
        return letters

    def _try(self, handler: Handler, group: Sequence[Delivered]) -> Exception | None:
        """Have a group handled; what went wrong, if it may be the fault of an event."""
        try:
            events = [each.event for each in group]
            with of_events(handler.name, events):
                handler.handle(events)
        except Exception as error:
            if is_outage(error):
                raise
            return error
        self._marks.note_handled(handler.name, [each.event.id for each in group], self._clock())
        return None

    def _pause(self, seconds: float) -> None:
        if self._wait(max(0.0, seconds)):
            raise GivenUp

    def _letter(self, handler: Handler, failed: _Failed, error: Exception) -> Letter:
        return Letter(
            record=failed.one.record,
            handler=handler.name,
            event_id=failed.one.event.id,
            type=failed.one.event.type,
            reason=reason_of(error),
            attempts=failed.attempts,
            died_at=self._clock(),
        )

    def _tell_failure(
        self, what: str, handler: Handler, failed: _Failed, error: Exception, **more: object
    ) -> None:
        with about(**failed.one.event.named()):
            self._tell(
                what,
                handler=handler.name,
                subject=failed.one.event.subject,
                attempt=failed.attempts,
                why=reason_of(error),
                **more,
            )


def reason_of(error: Exception) -> str:
    """What went wrong, as a sentence; and where, when it is none that was expected."""
    if isinstance(error, RiskHubError):
        return storable(str(error))
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return storable(said)
    frame, line = frames[-1]
    return (
        storable(said) + f" ({frame.f_globals.get('__name__')}:{line}, in {frame.f_code.co_name})"
    )


def _not_behind(group: Sequence[Delivered], waiting: Mapping[str, _Failed]) -> list[Delivered]:
    """Those of a group that need not wait; the others are put behind what they wait for."""
    free = []
    for each in group:
        if first := waiting.get(each.event.key):
            first.behind.append(each)
        else:
            free.append(each)
    return free
