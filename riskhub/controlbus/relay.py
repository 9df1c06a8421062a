"""From the outbox to a topic: at least once, in order, from where it stopped.

One process relays at a time, others stand by. It reads a page of events, sends each partition its
part as batches, one at a time, and when the brokers have all of them it notes how far it is. So a
partition never has an event before one that was committed earlier, however often a send fails: what
comes twice is what is not yet noted, in the same order and with the same ids. A producer that hears
nothing from its brokers is given up and another one begins at what is noted.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner

from riskhub.controlbus import kafka
from riskhub.controlbus.events import CONTENT_TYPE, OutboxEvent
from riskhub.errors import RiskHubError, StoreUnavailable
from riskhub.logs import about
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.events import RELAY
from riskhub.traces import of_events, traces

HANDLER = "relay"
"""Whose dead letters are events that the topic does not take."""

PAGE_EVENTS = 2_000
# What brokers take by default, as a whole batch; an event that is larger goes by itself.
BATCH_BYTES = 900_000
POLL_SEC = 0.025
# With nothing new for a while, it looks less often: a look is a query.
QUIET_SEC, QUIET_POLL_SEC = 2.0, 0.1
NOTE_SEC = 0.2
LOOK_SEC = 1.0
LONGEST_BACKOFF_SEC = 5.0
_FIRST_BACKOFF_SEC = 0.2
_HEADERS = [("content-type", CONTENT_TYPE.encode())]

Batch = list[tuple[OutboxEvent, bytes]]
"""Events, each with its CloudEvent."""


class ProducerStuck(RiskHubError):
    """The brokers have not acknowledged a batch in time."""


class Tell(Protocol):
    """Takes a line for the log: what happened, and its figures."""

    def __call__(self, event: str, **fields: object) -> None:
        """Tell it."""


class Relay:
    """One process's part in relaying the outbox to a topic."""

    def __init__(
        self, store: Store, settings: Settings, *, clock: Callable[[], datetime], tell: Tell
    ) -> None:
        """Connect to nothing yet; the topic and the brokers are those of the settings."""
        self._store = store
        self._settings = settings
        self._clock = clock
        self._tell = tell
        self._topic = settings.controlbus_topic
        self._reader = reader_of(settings)
        self._partition_of = DefaultPartitioner()
        self._told: object = None
        self._failures = 0
        self._noted_at = 0.0
        # After a refusal for size: events go one by one, but for those that were it.
        self._together = True
        self._buried: set[int] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until told to stop; what can be expected to fail is told, and tried again."""
        while not stop.is_set():
            try:
                await self._turn(stop)
                self._failures = 0
            except (StoreUnavailable, ProducerStuck, KafkaError, OSError) as error:
                await self._failed(error, stop)

    async def _turn(self, stop: asyncio.Event) -> None:
        """Be the one that relays, for as long as it goes well; or look whether another is."""
        alone: AbstractContextManager[Callable[[], None] | None]
        alone = self._store.reading_alone(self._reader)
        still_alone = await asyncio.to_thread(alone.__enter__)
        try:
            if still_alone is None:
                self._say("stands by")
                await _wait(stop, LOOK_SEC)
                return
            if await kafka.ensure_topic(self._settings, self._topic):
                self._tell("made the topic", topic=self._topic)
            producer = await kafka.start_producer(self._settings)
            try:
                await self._relay(producer, still_alone, stop)
            finally:
                await kafka.close_producer(producer)
        finally:
            with suppress(StoreUnavailable):  # then the database has let go of it by itself
                await asyncio.to_thread(alone.__exit__, None, None, None)

    async def _relay(
        self, producer: AIOKafkaProducer, still_alone: Callable[[], None], stop: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        partitions = sorted(await producer.partitions_for(self._topic))
        done = await asyncio.to_thread(self._store.cursor, self._reader)
        noted, looked_at, news_at = done, loop.time(), loop.time()
        page = await self._page_after(done)
        try:
            while not stop.is_set():
                if page:
                    following = asyncio.create_task(self._page_after(page[-1].sequence))
                    try:
                        await self._send(producer, partitions, page)
                    except BaseException:
                        following.cancel()
                        raise
                    done, news_at = page[-1].sequence, loop.time()
                    self._say("relays", partitions=len(partitions))
                    self._failures = 0
                    page = await following
                if noted < done and loop.time() - self._noted_at > NOTE_SEC:
                    noted = await self._note(done)
                if loop.time() - looked_at > LOOK_SEC:
                    await asyncio.to_thread(still_alone)
                    looked_at = loop.time()
                if not page:
                    quiet = loop.time() - news_at > QUIET_SEC
                    await _wait(stop, QUIET_POLL_SEC if quiet else POLL_SEC)
                    page = await self._page_after(done)
        finally:
            if noted < done:
                await self._note(done)

    async def _note(self, done: int) -> int:
        await asyncio.to_thread(self._store.move_cursor, self._reader, done, self._clock())
        self._noted_at = asyncio.get_running_loop().time()
        return done

    async def _page_after(self, sequence: int) -> list[OutboxEvent]:
        return await asyncio.to_thread(self._store.events_after, sequence, limit=PAGE_EVENTS)

    async def _send(
        self, producer: AIOKafkaProducer, partitions: list[int], page: Sequence[OutboxEvent]
    ) -> None:
        """Have the brokers take a page: each partition its batches one after the other."""
        parts: dict[int, list[OutboxEvent]] = {}
        for event in page:
            partition = self._partition_of(event.key.encode(), partitions, partitions)
            parts.setdefault(partition, []).append(event)
        results = await asyncio.gather(
            *(self._send_part(producer, *part) for part in parts.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._together = True
        self._buried.clear()

    async def _send_part(
        self, producer: AIOKafkaProducer, partition: int, part: list[OutboxEvent]
    ) -> None:
        for batch in _batches(part, BATCH_BYTES if self._together else 1):
            try:
                if batch[0][0].sequence not in self._buried:
                    with of_events("relay", [event for event, _ in batch]):
                        await self._send_batch(producer, partition, batch)
            except MessageSizeTooLargeError as error:
                # Which of them is it? It is raised all the same: what the brokers refused leaves a
                # gap in this producer's numbers, and they take nothing more of it.
                if len(batch) == 1:
                    await self._bury(*batch[0], str(error))
                self._together = False
                raise

    async def _send_batch(self, producer: AIOKafkaProducer, partition: int, batch: Batch) -> None:
        builder = producer.create_batch()
        for event, raw in batch:
            taken = builder.append(
                key=event.key.encode(), value=raw, timestamp=None, headers=_headers_of(event)
            )
            if taken is None:
                raise MessageSizeTooLargeError("it is larger than controlbus.max_event_bytes")
        timeout = self._settings.controlbus.ack_timeout_sec
        try:
            async with asyncio.timeout(timeout):
                sent = await producer.send_batch(builder, self._topic, partition=partition)
                sent.add_done_callback(_heard)  # perhaps after we have given it up
                await asyncio.shield(sent)
        except TimeoutError as error:
            raise ProducerStuck(f"no broker has acknowledged a batch in {timeout:g} s") from error

    async def _bury(self, event: OutboxEvent, raw: bytes, reason: str) -> None:
        """An event that the topic never takes must not hold up all that come after it."""
        letter = {
            "handler": HANDLER,
            "event_id": event.id,
            "type": event.type,
            "key": event.key,
            "origin": f"outbox {event.sequence}",
            "reason": f"{self._topic} does not take it: {reason}",
            "attempts": 1,
            "raw": raw,
            "died_at": self._clock(),
        }
        await asyncio.to_thread(self._store.add_dead_letters, [letter])
        self._buried.add(event.sequence)
        with about(event_id=event.id, world=event.key, correlation_id=event.correlation_id):
            self._tell("dead letter", subject=event.subject, bytes=len(raw), reason=reason)

    async def _failed(self, error: Exception, stop: asyncio.Event) -> None:
        backoff = min(_FIRST_BACKOFF_SEC * 2**self._failures, LONGEST_BACKOFF_SEC)
        self._failures += 1
        name = type(error).__name__
        if ("failed", name) != self._told:
            self._told = ("failed", name)
            self._tell("failed", error=name, why=str(error))
        await _wait(stop, backoff)

    def _say(self, event: str, **fields: object) -> None:
        if self._told != event:
            self._told = event
            self._tell(event, topic=self._topic, **fields)


def reader_of(settings: Settings) -> str:
    """The name that the relay to the topic of the settings reads the outbox as."""
    return f"{RELAY}{settings.controlbus_topic}"


def _batches(part: Sequence[OutboxEvent], batch_bytes: int) -> list[Batch]:
    """Events in batches of so many bytes; one that is larger is a batch by itself."""
    batches: list[Batch] = []
    size = batch_bytes
    for event in part:
        raw = event.cloud_event()
        if size + len(raw) > batch_bytes:
            batches.append([])
            size = 0
        batches[-1].append((event, raw))
        size += len(raw) + 200  # its key, header and lengths
    return batches


def _headers_of(event: OutboxEvent) -> list[tuple[str, bytes]]:
    """With that of CloudEvents' distributed tracing where spans are collected."""
    otel = traces()
    return _HEADERS if otel is None else [*_HEADERS, ("traceparent", otel.traceparent(event))]


def _heard(sent: "asyncio.Future[Any]") -> None:
    if not sent.cancelled():
        sent.exception()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
