"""What a Kafka topic has, up to its end of now: noted, and held against its order."""

import math
from uuid import UUID

from aiokafka.partitioner import DefaultPartitioner

from riskhub.audit.findings import Finding, Ledger
from riskhub.audit.look import Progress, ShouldHave, digest_of
from riskhub.controlbus import kafka
from riskhub.controlbus.events import Event, EventMalformed, OutboxEvent, parse
from riskhub.settings import Settings
from riskhub.store.scratch import SeenEvents


class TopicReader:
    """Notes every event that the topic of the settings has."""

    def __init__(self, seen: SeenEvents, ledger: Ledger, progress: Progress) -> None:
        """Read nothing yet."""
        self._seen = seen
        self._ledger = ledger
        self._progress = progress
        self._first: dict[int, int] = {}
        self._newest: dict[int, int] = {}
        self._foreign = 0

    async def read(self, settings: Settings) -> ShouldHave:
        """Read it all.

        Returns:
            Whether the topic should have an event: what is older than all that its partition has
            left may have been forgotten.

        Raises:
            NoBrokers, TimeoutError, aiokafka.errors.KafkaError, OSError: it could not be read.
        """
        begins = await kafka.read_all(settings, self._take)
        if self._foreign:
            self._ledger.notes.append(f"{self._foreign:,} records on the topic are not the hub's")
        floors = {
            part: self._first.get(part, math.inf) if offset else 0
            for part, offset in begins.items()
        }
        partitions, partition_of = sorted(floors), DefaultPartitioner()

        def should_have(event: OutboxEvent) -> bool:
            partition = partition_of(event.key.encode(), partitions, partitions)
            return event.sequence >= floors[partition]

        return should_have

    def _take(self, partition: int, is_whole: bool, raws: list[bytes]) -> None:
        noted: dict[str, bytes] = {}
        for raw in raws:
            if (event := _event(raw)) is None:
                self._foreign += 1
                continue
            self._first.setdefault(partition, event.sequence)
            if event.sequence > self._newest.get(partition, 0):
                self._newest[partition] = event.sequence
            elif is_whole and event.id not in noted and not self._seen.digests([event.id]):
                # What comes behind a later event was told before; or else it is out of order.
                example = f"{event.type} {event.subject} ({event.sequence}): out of order"
                self._ledger.add([Finding("events on the topic", "altered", example)])
            if event.id in noted:
                self._seen.add(noted.items())
                noted = {}
            noted[event.id] = digest_of(raw, event.sequence)
        self._seen.add(noted.items())
        self._progress("topic", len(raws), None)


def _event(raw: bytes) -> Event | None:
    try:
        event = parse(raw)
        UUID(event.id)
    except (EventMalformed, ValueError):
        return None
    return event
