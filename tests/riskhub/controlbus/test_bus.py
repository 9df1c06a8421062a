"""What holds of a bus, be it the outbox on either database or a Kafka topic."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiokafka.errors import KafkaError
from builders import NOW, accept
from databases import migrate
from on_topic import all_on
from service_resolution import KafkaBroker

from riskhub.controlbus import kafka
from riskhub.controlbus.bus import Bus, OutboxBus, open_bus
from riskhub.controlbus.events import parse
from riskhub.controlbus.kafka_bus import KafkaBus
from riskhub.controlbus.records import Letter, Record
from riskhub.errors import StoreUnavailable
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store, create_engine

PATIENCE_SEC = 60.0
SOON = 0.2


class Place:
    """Where events are put and taken from."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.told: list[str] = []
        self.hurried = 0

    async def put(self, count: int, *, since: int = 0, worlds: int = 3) -> list[str]:
        """Land so many snapshots and have them on the bus; their subjects."""
        before = self.store.events_head()
        numbers = range(since, since + count)
        self.store.land([accept(world_id=f"w{n % worlds}", version=f"v{n}") for n in numbers])
        events = self.store.events_after(before, limit=count)
        if self.settings.controlbus_brokers:
            await kafka.ensure_topic(self.settings, self.settings.controlbus_topic)
            producer = kafka.producer(self.settings)
            await producer.start()
            try:
                for event in events:
                    await producer.send_and_wait(
                        self.settings.controlbus_topic, event.cloud_event(), key=event.key.encode()
                    )
            finally:
                await producer.stop()
        return [event.subject for event in events]

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """One worker's end, closed with the block."""
        bus = open_bus(
            self.settings,
            self.store,
            clock=utc_now,
            hurry=self._hurry,
            tell=lambda event, **_: self.told.append(event),
        )
        try:
            yield bus
        finally:
            await bus.close()

    def _hurry(self) -> None:
        self.hurried += 1


@pytest.fixture(params=["outbox on sqlite", "outbox on postgres", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    brokers: dict[str, Any] = {}
    if request.param == "outbox on postgres":
        url = request.getfixturevalue("postgres_url")
    elif request.param == "kafka":
        brokers = {
            "controlbus_brokers": request.getfixturevalue("kafka_server"),
            "controlbus_topic": request.getfixturevalue("kafka_topic"),
        }
    store = Store(create_engine(url))
    migrate(store.engine)
    yield Place(Settings(**brokers), store)
    store.close()


def run(story: Callable[[], Any]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(3 * PATIENCE_SEC):
            await story()

    asyncio.run(in_time())


async def take(bus: Bus, count: int, limit: int = 100) -> list[Record]:
    """So many records, in as many batches as they come in, each committed."""
    taken: list[Record] = []
    async with asyncio.timeout(PATIENCE_SEC):
        while len(taken) < count:
            taken += await bus.take(limit, SOON)
            await bus.commit()
    return taken


async def take_one_batch(bus: Bus, limit: int = 100) -> Sequence[Record]:
    async with asyncio.timeout(PATIENCE_SEC):
        while not (batch := await bus.take(limit, SOON)):
            pass
        return batch


def subjects(records: Sequence[Record]) -> list[str]:
    return [parse(record.raw).subject for record in records]


def by_key(found: Sequence[str]) -> dict[str, list[str]]:
    keys = {subject.split("/")[0] for subject in found}
    return {key: [each for each in found if each.startswith(f"{key}/")] for key in keys}


def test_each_record_comes_once_those_of_a_key_in_order(place: Place) -> None:
    async def story() -> None:
        put = await place.put(30)
        async with place.bus() as bus:
            taken = await take(bus, 30, limit=7)
            assert by_key(subjects(taken)) == by_key(put)
            assert await bus.take(100, SOON) == []
            assert len({record.origin for record in taken}) == 30
            assert all(record.key == parse(record.raw).key for record in taken)

    run(story)


def test_a_batch_is_no_larger_than_asked(place: Place) -> None:
    async def story() -> None:
        await place.put(10, worlds=1)
        async with place.bus() as bus:
            assert 0 < len(await take_one_batch(bus, limit=4)) <= 4

    run(story)


def test_the_next_worker_goes_on_where_the_last_commit_was(place: Place) -> None:
    async def story() -> None:
        put = await place.put(20, worlds=1)
        async with place.bus() as bus:
            first = await take(bus, 5, limit=5)
            lost = await take_one_batch(bus, limit=5)
        async with place.bus() as bus:
            rest = await take(bus, 15)
        assert subjects(first) == put[:5]
        assert subjects(lost) == subjects(rest)[: len(lost)]
        assert subjects(rest) == put[5:]

    run(story)


def test_what_is_given_back_comes_again(place: Place) -> None:
    async def story() -> None:
        put = await place.put(6, worlds=1)
        async with place.bus() as bus:
            once = await take_one_batch(bus, limit=6)
            await bus.give_back()
            again = await take(bus, 6)
            assert subjects(once) == subjects(again)[: len(once)]
            assert subjects(again) == put

    run(story)


def test_what_arrives_while_it_waits_is_taken_soon(place: Place) -> None:
    async def story() -> None:
        await place.put(1)
        async with place.bus() as bus:
            await take(bus, 1)
            waiting = asyncio.create_task(take(bus, 1))
            put = await place.put(1, since=1)
            assert subjects(await waiting) == put

    run(story)


def test_the_lag_is_what_lies_ahead(place: Place) -> None:
    async def story() -> None:
        await place.put(12)
        async with place.bus() as bus:
            taken = await take(bus, 4, limit=4)
            assert sum((await bus.lag()).values()) == 12 - len(taken)
            await take(bus, 12 - len(taken))
            assert sum((await bus.lag()).values()) == 0

    run(story)


def test_when_a_worker_leaves_another_takes_over(place: Place) -> None:
    async def story() -> None:
        put = await place.put(6)
        async with place.bus() as second:
            async with place.bus() as first:
                before = await take(first, 6)
                assert subjects(before)
            assert by_key(subjects(before)) == by_key(put)
            later = await place.put(6, since=6)
            assert by_key(subjects(await take(second, 6))) == by_key(later)

    run(story)


# -- the outbox -----------------------------------------------------------------------------------


def outbox(tmp_path: Path) -> Place:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(store.engine)
    return Place(Settings(), store)


def test_of_the_outbox_one_worker_has_all_and_the_others_stand_by(tmp_path: Path) -> None:
    place = outbox(tmp_path)

    async def story() -> None:
        await place.put(2)
        async with place.bus() as first, place.bus() as second:
            await take(first, 1)
            assert await second.take(10, 0.0) == []
            assert (first.stands_by, second.stands_by) == (False, True)
            assert await second.lag() == {}

    run(story)
    place.store.close()


def test_groups_read_the_outbox_each_for_itself(tmp_path: Path) -> None:
    place = outbox(tmp_path)

    async def story() -> None:
        put = await place.put(3)
        for group in ("live", "audit"):
            bus = OutboxBus(place.store, group, clock=utc_now)
            assert subjects(await take(bus, 3)) == put
            await bus.close()

    run(story)
    place.store.close()


def test_a_worker_whose_database_session_ended_commits_nothing_and_reads_anew(
    postgres_url: str,
) -> None:
    store = Store(create_engine(postgres_url))
    migrate(store.engine)
    place = Place(Settings(), store)

    async def story() -> None:
        put = await place.put(3)
        async with place.bus() as bus:
            await take_one_batch(bus)
            with store.engine.begin() as connection:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks"
                        " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                    )
                )
            with pytest.raises(StoreUnavailable):
                await bus.commit()
            await bus.give_back()
            assert subjects(await take(bus, 3)) == put

    run(story)
    store.close()


# -- Kafka ----------------------------------------------------------------------------------------


@pytest.fixture
def topic(kafka_server: str, kafka_topic: str, tmp_path: Path) -> Iterator[Place]:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(store.engine)
    yield Place(Settings(controlbus_brokers=kafka_server, controlbus_topic=kafka_topic), store)
    store.close()


def test_partitions_are_given_away_when_the_batch_in_hand_is_committed(topic: Place) -> None:
    async def story() -> None:
        await topic.put(12, worlds=6)
        async with topic.bus() as first, topic.bus() as second:
            in_hand = await take_one_batch(first)
            joining = asyncio.create_task(second.take(100, SOON))
            async with asyncio.timeout(PATIENCE_SEC):
                while not topic.hurried:
                    await asyncio.sleep(0)
            assert not joining.done()
            await first.commit()
            seen = subjects(in_hand) + subjects(await joining)
            await second.commit()
            async with asyncio.timeout(PATIENCE_SEC):
                while len(seen) < 12:
                    for bus in (first, second):
                        seen += subjects(await bus.take(100, SOON))
                        await bus.commit()
            assert len(seen) == len(set(seen)) == 12

    run(story)


def test_dead_letters_go_to_a_topic_of_their_own_as_they_came(topic: Place) -> None:
    async def story() -> None:
        await topic.put(1)
        async with topic.bus() as bus:
            (record,) = await take_one_batch(bus)
            letter = Letter(record, "stress", "id", "type", "no such 表", 3, NOW)
            await bus.bury([letter])
            await bus.commit()

    run(story)
    settings = topic.settings
    (dead,) = all_on(
        str(settings.controlbus_brokers), settings.controlbus_topic + kafka.DEAD_LETTERS
    )
    assert (dead.key, dead.event.subject) == ("w0", "w0/v0")
    assert {name: value.decode() for name, value in dead.headers.items()} == {
        "reason": "no such 表",
        "handler": "stress",
        "attempts": "3",
        "origin": f"{settings.controlbus_topic} {dead.headers['origin'].decode().split()[1]}",
    }


def test_a_worker_that_came_back_too_late_commits_nothing_and_goes_on(topic: Place) -> None:
    async def story() -> None:
        await topic.put(4, worlds=1)
        async with topic.bus() as bus:
            assert isinstance(bus, KafkaBus)
            await take_one_batch(bus, limit=2)
            consumer: Any = bus._consumer
            consumer._coordinator.generation -= 1  # as after a rebalance that it has missed
            await bus.commit()
            assert "commit came too late" in topic.told

    run(story)


def test_brokers_that_are_away_are_told_and_found_again(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(store.engine)
    place = Place(Settings(controlbus_brokers=kafka_broker.bootstrap), store)

    async def story() -> None:
        put = await place.put(4, worlds=1)
        async with place.bus() as bus:
            await take(bus, 2, limit=2)
            await asyncio.to_thread(kafka_broker.kill)
            with pytest.raises(KafkaError):
                await bus.lag()
            await asyncio.to_thread(kafka_broker.start)
            seen = subjects(await take(bus, 2))
            assert seen[-2:] == put[2:]

    run(story)
    store.close()
