"""The worker: takes events from a bus, has them handled, and says so when the effects are stored.

What is away (the database, the brokers, blobs) is told, and the batch comes again until it is
back. What goes wrong with an event ends in a dead letter. Nothing of either ends the loop.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from riskhub.controlbus.bus import Bus
from riskhub.controlbus.events import EventMalformed, parse
from riskhub.controlbus.handlers import Handler, Tell
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.records import Letter, Record
from riskhub.controlbus.settings import WorkerSettings
from riskhub.controlbus.settling import Delivered, GivenUp, Marks, Settler, is_outage, reason_of
from riskhub.errors import RiskHubError
from riskhub.traces import span

TAKE_SEC = 1.0
LOOK_SEC = 1.0
"""How soon what was away is tried again."""
# An event comes again within days, if it does: brokers keep a week.
HANDLED_KEPT = timedelta(days=30)
_FORGET_EVERY_SEC = 3600.0

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Records(Marks, Protocol):
    """What a worker has on record; see `riskhub.store.consumers`."""

    def add_dead_letters(self, letters: Sequence[dict[str, Any]]) -> None:
        """Keep dead letters; those that are there stay as they are."""
        ...

    def forget_handled(self, before: datetime) -> int:
        """Forget what was handled before an instant."""
        ...


class Hurry:
    """Whether others wait for the batch in hand: for it to be finished, or to be left."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._for_good = False

    def up(self) -> None:
        """They do."""
        self._event.set()

    def stop(self) -> None:
        """They do, and for good."""
        self._for_good = True
        self._event.set()

    def next_batch(self) -> None:
        """It was for another batch, if it was not for good."""
        if not self._for_good:
            self._event.clear()

    def wait(self, seconds: float) -> bool:
        """Wait so long for it to be so; whether it is."""
        return self._event.wait(seconds)


class Worker:
    """One worker of a group, within one event loop; handlers run in a thread of its own."""

    def __init__(
        self,
        bus: Bus,
        handlers: Sequence[Handler],
        records: Records,
        settings: WorkerSettings,
        *,
        hurry: Hurry,
        metrics: WorkerMetrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        tell: Tell,
        look_sec: float = LOOK_SEC,
    ) -> None:
        """Take nothing yet.

        Args:
            handlers: in the order in which they get an event.
            hurry: is raised by the bus, too.
            clock: UTC.
            monotonic: seconds that never go back.
            look_sec: how soon what was away is tried again.
        """
        self._bus = bus
        self._records = records
        self._types = frozenset().union(*(handler.types for handler in handlers))
        self._batch = settings.batch
        self._hurry = hurry
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._tell = tell
        self._look_sec = look_sec
        self._settler = Settler(
            handlers,
            records,
            attempts=settings.attempts,
            backoff_sec=settings.backoff_sec,
            metrics=metrics,
            clock=clock,
            monotonic=monotonic,
            wait=hurry.wait,
            tell=tell,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="handlers")
        self._stop = asyncio.Event()
        self._told: object = None
        self._failures = 0
        self._lag_at = self._forget_at = 0.0

    def stop(self) -> None:
        """Finish the batch in hand and end; a batch that waits for a retry is left to others."""
        self._stop.set()
        self._hurry.stop()

    async def run(self, *, once: bool = False) -> bool:
        """Work until told to stop.

        Args:
            once: or until there is nothing to take any more.

        Returns:
            False when it was to end with nothing to take, and another worker has all there is.

        Raises:
            Exception: with `once` nothing is waited for; whatever it is, the batch comes again.
        """
        try:
            while not self._stop.is_set():
                try:
                    took = await self._turn()
                    if once and not took and not sum((await self._bus.lag()).values()):
                        return not self._bus.stands_by
                except GivenUp:
                    await self._bus.give_back()
                except Exception as error:
                    await self._failed(error)
                    if once:
                        raise
            return True
        finally:
            await self._bus.close()
            self._thread.shutdown()

    async def _turn(self) -> bool:
        """Take a batch and bring it to its end; whether there was one."""
        batch = await self._unless_stopped(self._bus.take(self._batch, TAKE_SEC))
        if batch:
            self._hurry.next_batch()
            await self._work(batch)
        await self._look_around()  # a bus that is away may give nothing without a word
        self._recovered()
        if batch is not None:
            self._say("works" if batch or not self._bus.stands_by else "stands by")
        return bool(batch)

    async def _work(self, batch: Sequence[Record]) -> None:
        letters = await self._in_thread(lambda: self._settled(batch))
        if letters:
            await self._bus.bury(letters)
            self._metrics.died(len(letters))
        await self._bus.commit()

    def _settled(self, batch: Sequence[Record]) -> list[Letter]:
        with span("worker batch", records=len(batch)):
            return self._letters_of(batch)

    def _letters_of(self, batch: Sequence[Record]) -> list[Letter]:
        """Have a batch handled, and store what was given up on."""
        delivered, letters = self._parsed(batch)
        letters += self._settler.settle(delivered)
        self._records.add_dead_letters([letter.row() for letter in letters])
        return letters

    def _parsed(self, batch: Sequence[Record]) -> tuple[list[Delivered], list[Letter]]:
        """The events of a batch that somebody wants, and the records that are no events."""
        delivered, letters, passed_over = [], [], 0
        for record in batch:
            try:
                event = parse(record.raw)
            except EventMalformed as error:
                self._tell("dead letter", origin=record.origin, why=error)
                letters.append(Letter(record, "", "", "", reason_of(error), 1, self._clock()))
                continue
            if event.type in self._types:
                delivered.append(Delivered(event, record))
            else:
                passed_over += 1
        self._metrics.passed_over("type", passed_over)
        return delivered, letters

    async def _look_around(self) -> None:
        """What need not be done with each batch."""
        now = self._monotonic()
        if now >= self._lag_at:
            self._lag_at = now + self._look_sec
            self._metrics.lag(await self._bus.lag())
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_SEC
            before = self._clock() - HANDLED_KEPT
            await self._in_thread(lambda: self._records.forget_handled(before))

    async def _failed(self, error: Exception) -> None:
        """Give the batch back, tell why if that is news, and wait a little."""
        self._failures += 1
        self._metrics.waits()
        name = type(error).__name__
        if self._say(f"waits for {name}", event="waits", error=name, why=str(error)):
            expected = is_outage(error) or isinstance(error, RiskHubError | OSError)
            if not expected:
                _logger.error("a turn of the worker failed", exc_info=error)
        await self._bus.give_back()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_sec):
                await self._stop.wait()

    def _recovered(self) -> None:
        if self._failures:
            self._tell("recovered", failures=self._failures)
            self._failures = 0

    def _say(self, state: str, event: str | None = None, **fields: object) -> bool:
        """Tell a state when it is not the one that was told last; whether it was told."""
        if state == self._told:
            return False
        self._told = state
        self._tell(event or state, **fields)
        return True

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _unless_stopped(self, taking: Any) -> Any:
        """What it gives; None when we were told to stop first."""
        task = asyncio.ensure_future(taking)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, stopped):
                if not each.done():
                    each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
