"""A topic as a bus: the workers of a group share its partitions."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)

from riskhub.controlbus import kafka
from riskhub.controlbus.records import Letter, Record, storable
from riskhub.settings import Settings

# What waits for a batch in hand, and for a worker that does not come back from one.
REBALANCE_SEC = 60
STUCK_SEC = 30 * 60
ANSWER_SEC = 5.0
# What of a topic is in memory before it is taken, unless one event alone is larger.
FETCH_BYTES = 16 * 2**20
_LONGEST_HEADER = 4_000


class KafkaBus(ConsumerRebalanceListener):  # type: ignore[misc]
    """See `riskhub.controlbus.bus.Bus`.

    When partitions are to go to another worker, the batch in hand is finished and committed before
    they go; what can't be committed any more has been given to another, and is done twice.
    """

    def __init__(
        self, settings: Settings, *, hurry: Callable[[], None], tell: Callable[..., None]
    ) -> None:
        """Connect to nothing yet.

        Args:
            hurry: is called when another worker waits for the batch in hand.
        """
        self._settings = settings
        self._topic = settings.controlbus_topic
        self._hurry = hurry
        self._tell = tell
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        # Of the batch in hand, by partition: its first offset, and the one behind its last.
        self._firsts: dict[TopicPartition, int] = {}
        self._behind: dict[TopicPartition, int] = {}
        self._hand_is_empty = asyncio.Event()
        self._hand_is_empty.set()

    @property
    def stands_by(self) -> bool:
        """See `Bus`: with more workers than partitions, some have none."""
        return self._consumer is None or not self._consumer.assignment()

    async def take(self, limit: int, wait_sec: float) -> Sequence[Record]:
        """See `Bus`."""
        try:
            consumer = self._consumer or await self._open()
            found = await consumer.getmany(timeout_ms=int(wait_sec * 1000), max_records=limit)
        except KafkaError:
            await self._drop_consumer()  # it may never recover by itself; another one does
            raise
        for part, records in found.items():
            self._hand_is_empty.clear()
            self._firsts[part] = records[0].offset
            self._behind[part] = records[-1].offset + 1
        return [_record(each) for records in found.values() for each in records]

    async def commit(self) -> None:
        """See `Bus`."""
        if not self._behind or self._consumer is None:
            return
        try:
            async with asyncio.timeout(ANSWER_SEC):
                await self._consumer.commit(self._behind)
        except (CommitFailedError, IllegalStateError) as error:
            # Another worker has the partitions by now, and does it again.
            self._tell("commit came too late", why=str(error))
        except TimeoutError as error:
            raise KafkaTimeoutError(f"no broker took a commit in {ANSWER_SEC:g} s") from error
        self._empty_hand()

    async def give_back(self) -> None:
        """See `Bus`."""
        for part, offset in self._firsts.items():
            if self._consumer is not None and part in self._consumer.assignment():
                self._consumer.seek(part, offset)
        self._empty_hand()

    async def bury(self, letters: Sequence[Letter]) -> None:
        """See `Bus`: they go to the topic's dead letters, in the bytes that they came in."""
        for letter in letters:
            try:
                producer = self._producer or await self._open_producer()
                async with asyncio.timeout(self._settings.controlbus.ack_timeout_sec):
                    await producer.send_and_wait(
                        self._topic + kafka.DEAD_LETTERS,
                        letter.record.raw,
                        key=letter.record.key.encode() or None,
                        headers=_headers(letter),
                    )
            except MessageSizeTooLargeError as error:
                self._tell("dead letter is only in the table", why=str(error))
                await self._drop_producer()  # it takes nothing more after such a gap
            except TimeoutError as error:
                await self._drop_producer()
                raise KafkaTimeoutError("no broker took a dead letter in time") from error
            except KafkaError:
                await self._drop_producer()
                raise

    async def lag(self) -> Mapping[str, int]:
        """See `Bus`; by partition."""
        if self._consumer is None or not (parts := self._consumer.assignment()):
            return {}
        try:
            async with asyncio.timeout(ANSWER_SEC):
                ends = await self._consumer.end_offsets(list(parts))
                return {
                    f"{part.topic}/{part.partition}": end - await self._consumer.position(part)
                    for part, end in ends.items()
                }
        except IllegalStateError:  # partitions went to another in the middle of it
            return {}
        except TimeoutError as error:
            raise KafkaTimeoutError(f"no broker answered in {ANSWER_SEC:g} s") from error

    async def close(self) -> None:
        """See `Bus`."""
        await self._drop_consumer()
        await self._drop_producer()

    # -- what aiokafka calls ----------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002
        """Keep them until the batch in hand is done with; heartbeats go on meanwhile."""
        if self._hand_is_empty.is_set():
            return
        self._hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(REBALANCE_SEC - ANSWER_SEC):
                await self._hand_is_empty.wait()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Tell it."""
        numbers = sorted(part.partition for part in assigned)
        self._tell("partitions", count=len(numbers), numbers=" ".join(map(str, numbers)))

    # -- clients ----------------------------------------------------------------------------------

    async def _open(self) -> AIOKafkaConsumer:
        for topic in (self._topic, self._topic + kafka.DEAD_LETTERS):
            if await kafka.ensure_topic(self._settings, topic):
                self._tell("made the topic", topic=topic)
        consumer = kafka.consumer(
            self._settings,
            group=self._settings.worker.group,
            fetch_max_bytes=FETCH_BYTES,
            rebalance_timeout_ms=REBALANCE_SEC * 1000,
            max_poll_interval_ms=STUCK_SEC * 1000,
        )
        consumer.subscribe([self._topic], listener=self)
        try:
            await consumer.start()
        except BaseException:
            await kafka.close_consumer(consumer)
            raise
        self._consumer = consumer
        return consumer

    async def _open_producer(self) -> AIOKafkaProducer:
        producer = kafka.producer(self._settings)
        try:
            await producer.start()
        except BaseException:
            await kafka.close_producer(producer)
            raise
        self._producer = producer
        return producer

    async def _drop_consumer(self) -> None:
        self._empty_hand()  # a rebalance may wait for it, and `stop` for that
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await kafka.close_consumer(consumer)

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await kafka.close_producer(producer)

    def _empty_hand(self) -> None:
        self._firsts.clear()
        self._behind.clear()
        self._hand_is_empty.set()


def _record(found: ConsumerRecord) -> Record:
    return Record(
        raw=found.value or b"",
        key=storable((found.key or b"").decode(errors="replace")),
        origin=f"{found.topic} {found.partition}/{found.offset}",
        headers=tuple(found.headers),
    )


def _headers(letter: Letter) -> list[tuple[str, bytes]]:
    ours = {
        "reason": letter.reason[:_LONGEST_HEADER],
        "handler": letter.handler,
        "attempts": str(letter.attempts),
        "origin": letter.record.origin,
    }
    kept = [(name, value) for name, value in letter.record.headers if name not in ours]
    return kept + [(name, value.encode()) for name, value in ours.items()]
