"""What a Kafka topic has, as a consumer without a group reads it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from riskhub.controlbus.events import Event, parse

READ_WITHIN_SEC = 60.0


@dataclass(frozen=True)
class OnTopic:
    """A record and the event in it."""

    partition: int
    offset: int
    key: str
    event: Event
    headers: dict[str, bytes]
    timestamp_ms: int


def all_on(bootstrap: str, topic: str) -> list[OnTopic]:
    """Every record that the topic has now; of each partition in order."""
    return asyncio.run(_all_on(bootstrap, topic))


async def _all_on(bootstrap: str, topic: str) -> list[OnTopic]:
    found: list[OnTopic] = []
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2**25,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(READ_WITHIN_SEC):
            parts = list(consumer.assignment())  # without a group, every partition
            ends = await consumer.end_offsets(parts)
            while [part for part in parts if await consumer.position(part) < ends[part]]:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [
                        OnTopic(
                            record.partition,
                            record.offset,
                            record.key.decode(),
                            parse(record.value),
                            dict(record.headers),
                            record.timestamp,
                        )
                        for record in records
                    ]
    finally:
        await consumer.stop()
    return found


def count_on(bootstrap: str, topic: str) -> int:
    """How many records the topic has been given."""
    return asyncio.run(_count_on(bootstrap, topic))


async def _count_on(bootstrap: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return sum(ends.values())
    finally:
        await consumer.stop()


def first_told(records: list[OnTopic]) -> dict[str, list[Event]]:
    """By key, the events in the order in which each was first on the topic."""
    told: dict[str, list[Event]] = defaultdict(list)
    seen: set[str] = set()
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        if record.event.id not in seen:
            seen.add(record.event.id)
            told[record.key].append(record.event)
    return told
