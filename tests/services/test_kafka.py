"""What riskhub asks of Kafka, asked of whatever the tests run against and of the stand-in.

The second half is about a broker that goes down, which only a real one does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil
import pytest
import service_resolution
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError, TopicAlreadyExistsError, for_code

_WITHIN_SEC = 60.0


@pytest.fixture(scope="module")
def standin_server() -> Iterator[str]:
    with service_resolution.resolve_kafka({service_resolution.STAND_INS: "1"}).serve() as servers:
        yield servers


@pytest.fixture(params=["kafka_server", "standin_server"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def topic(bootstrap: str) -> Iterator[str]:
    with service_resolution.fresh_topic(bootstrap, partitions=6) as name:
        yield name


@asynccontextmanager
async def _producer(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    safe = {"acks": "all", "enable_idempotence": True}
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **{**safe, **options}) as producer:
        yield producer


def _consumer(bootstrap: str, *topics: str, **options: Any) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **{"heartbeat_interval_ms": 200, **options},
    )


async def _send(bootstrap: str, topic: str, *values: bytes, key: bytes = b"world-1") -> None:
    async with _producer(bootstrap) as producer:
        await asyncio.gather(*[await producer.send(topic, value, key=key) for value in values])


async def _read(consumer: AIOKafkaConsumer, number: int) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    while len(found) < number:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            found += records
    return found


async def _read_all(bootstrap: str, topic: str, number: int) -> list[bytes]:
    async with _consumer(bootstrap, topic) as consumer:
        return [record.value for record in await _read(consumer, number)]


async def _until(condition: Callable[[], bool], *meanwhile: AIOKafkaConsumer) -> None:
    """Wait for it; meanwhile the consumers are read, which is when they say what is wrong."""
    while not condition():
        await asyncio.gather(*[consumer.getmany(timeout_ms=20) for consumer in meanwhile])


def _run(work: Awaitable[Any]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(_WITHIN_SEC):
            return await work

    return asyncio.run(in_time())


# --- every Kafka -----------------------------------------------------------------------------


def test_a_topic_has_the_partitions_it_was_made_with(bootstrap: str, topic: str) -> None:
    assert service_resolution.topics(bootstrap)[topic] == 6


def test_a_topic_is_made_once_and_by_nobody_who_only_asks(bootstrap: str, topic: str) -> None:
    async def make() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            (told,) = (await admin.create_topics([NewTopic(topic, 3, 1)])).topic_errors
            await admin.describe_topics([f"{topic}-other"])
            return told
        finally:
            await admin.close()

    assert for_code(_run(make())[1]) is TopicAlreadyExistsError
    assert service_resolution.topics(bootstrap)[topic] == 6
    assert f"{topic}-other" not in service_resolution.topics(bootstrap)


def test_a_record_comes_back_as_it_was(bootstrap: str, topic: str) -> None:
    async def there_and_back() -> ConsumerRecord:
        async with _producer(bootstrap) as producer, _consumer(bootstrap, topic) as consumer:
            headers = [("ce_id", b"\xff\x00"), ("ce_type", b"snapshot_landed")]
            sent = await producer.send_and_wait(
                topic, b"{}", key=b"world-1", partition=4, headers=headers, timestamp_ms=1_700_000
            )
            assert (sent.partition, sent.offset) == (4, 0)
            return (await _read(consumer, 1))[0]

    record = _run(there_and_back())

    assert (record.partition, record.offset, record.key, record.value) == (4, 0, b"world-1", b"{}")
    assert record.headers == (("ce_id", b"\xff\x00"), ("ce_type", b"snapshot_landed"))
    assert record.timestamp == 1_700_000


def test_what_has_one_key_stays_in_order(bootstrap: str, topic: str) -> None:
    sent = [str(number).encode() for number in range(2000)]

    _run(_send(bootstrap, topic, *sent))

    assert _run(_read_all(bootstrap, topic, len(sent))) == sent


def test_a_batch_is_acknowledged_as_one(bootstrap: str, topic: str) -> None:
    async def send_batch() -> Any:
        async with _producer(bootstrap) as producer:
            batch = producer.create_batch()
            for number in range(100):
                assert batch.append(key=b"world-1", value=b"%d" % number, timestamp=None)
            batch.close()
            first = await (await producer.send_batch(batch, topic, partition=5))
            after = await producer.send_and_wait(topic, b"after", partition=5)
            return first.offset, after.offset

    assert _run(send_batch()) == (0, 100)


def test_a_megabyte_goes_through(bootstrap: str, topic: str) -> None:
    value = bytes(range(256)) * 3900

    _run(_send(bootstrap, topic, value))

    assert _run(_read_all(bootstrap, topic, 1)) == [value]


def test_a_group_shares_the_partitions_and_each_takes_over(bootstrap: str, topic: str) -> None:
    async def come_and_go() -> tuple[set[int], set[int], set[int]]:
        first = _consumer(bootstrap, topic, group_id=topic)
        async with _consumer(bootstrap, topic, group_id=topic) as second:
            async with first:
                await _until(
                    lambda: len(first.assignment()) == len(second.assignment()) == 3, first, second
                )
                shared = _partitions(first), _partitions(second)
            await _until(lambda: len(second.assignment()) == 6, second)
            return *shared, _partitions(second)

    first, second, after = _run(come_and_go())

    assert first | second == after == set(range(6))


def test_each_record_goes_to_one_of_the_group(bootstrap: str, topic: str) -> None:
    async def share() -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        async with AsyncExitStack() as stack:
            group = [_consumer(bootstrap, topic, group_id=topic) for _ in range(3)]
            await asyncio.gather(*[stack.enter_async_context(each) for each in group])
            await _until(lambda: all(len(each.assignment()) == 2 for each in group), *group)
            producer = await stack.enter_async_context(_producer(bootstrap))
            for number in range(60):
                await producer.send(topic, b"%d" % number, partition=number % 6)
            for values in await asyncio.gather(*[_read(each, 20) for each in group]):
                found.update(record.value for record in values)
        return found

    assert _run(share()) == {b"%d" % number: 1 for number in range(60)}


def test_a_group_goes_on_where_it_committed(bootstrap: str, topic: str) -> None:
    async def read_twice() -> tuple[list[bytes], list[bytes], int]:
        await _send(bootstrap, topic, b"a", b"b", b"c")
        async with _consumer(bootstrap, topic, group_id=topic) as consumer:
            records = await _read(consumer, 3)
            partition = TopicPartition(topic, records[0].partition)
            await consumer.commit({partition: records[1].offset + 1})
        async with _consumer(bootstrap, topic, group_id=topic) as consumer:
            again = await _read(consumer, 1)
            committed = await consumer.committed(partition)
        return [each.value for each in records], [each.value for each in again], committed

    assert _run(read_twice()) == ([b"a", b"b", b"c"], [b"c"], 2)


def test_who_is_no_longer_of_the_group_commits_nothing(bootstrap: str, topic: str) -> None:
    async def commit_late() -> int | None:
        await _send(bootstrap, topic, b"a")
        # It beats too seldom to hear of the other before it has been left behind.
        late = {"heartbeat_interval_ms": 60_000, "session_timeout_ms": 6_000}
        late |= {"max_poll_interval_ms": 1_000, "rebalance_timeout_ms": 1_000}
        async with _consumer(bootstrap, topic, group_id=topic, **late) as consumer:
            (record,) = await _read(consumer, 1)
            partition = TopicPartition(topic, record.partition)
            async with _consumer(bootstrap, topic, group_id=topic) as other:
                await _until(lambda: len(other.assignment()) == 6, other)
                with pytest.raises(CommitFailedError):
                    await consumer.commit({partition: 1})
                return await other.committed(partition)

    assert _run(commit_late()) is None


def test_offsets_tell_how_far_behind_one_is(bootstrap: str, topic: str) -> None:
    async def ends() -> tuple[int, int, int]:
        await _send(bootstrap, topic, b"a", b"b", b"c")
        async with _consumer(bootstrap, topic) as consumer:
            (record, *_) = await _read(consumer, 3)
            partition = TopicPartition(topic, record.partition)
            last = (await consumer.end_offsets([partition]))[partition]
            first = (await consumer.beginning_offsets([partition]))[partition]
            return first, await consumer.position(partition), last

    assert _run(ends()) == (0, 3, 3)


# --- a broker that goes down -----------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_acknowledged_outlives_it(
    kafka_broker: service_resolution.KafkaBroker, end: str
) -> None:
    bootstrap = kafka_broker.bootstrap
    with service_resolution.fresh_topic(bootstrap, partitions=3) as topic:
        _run(_send(bootstrap, topic, b"before"))

        getattr(kafka_broker, end)()
        kafka_broker.start()

        assert service_resolution.topics(bootstrap)[topic] == 3
        _run(_send(bootstrap, topic, b"after"))
        assert _run(_read_all(bootstrap, topic, 2)) == [b"before", b"after"]


def test_clients_wait_for_it(kafka_broker: service_resolution.KafkaBroker) -> None:
    bootstrap = kafka_broker.bootstrap

    async def through_an_outage(topic: str) -> list[bytes]:
        async with (
            _producer(bootstrap, retry_backoff_ms=20) as producer,
            _consumer(bootstrap, topic, group_id=topic) as consumer,
        ):
            await producer.send_and_wait(topic, b"before", key=b"world-1")
            before = await _read(consumer, 1)
            await asyncio.to_thread(kafka_broker.kill)
            sent = await producer.send(topic, b"meanwhile", key=b"world-1")
            await asyncio.to_thread(kafka_broker.start)
            await sent
            return [record.value for record in before + await _read(consumer, 1)]

    with service_resolution.fresh_topic(bootstrap) as topic:
        assert _run(through_an_outage(topic)) == [b"before", b"meanwhile"]


def test_nothing_of_it_is_left(kafka_broker: service_resolution.KafkaBroker) -> None:
    (java,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if _listens_at(child, kafka_broker.bootstrap)
    ]

    kafka_broker.close()

    assert not java.is_running()


def _partitions(consumer: AIOKafkaConsumer) -> set[int]:
    return {each.partition for each in consumer.assignment()}


def _listens_at(process: psutil.Process, bootstrap: str) -> bool:
    try:
        connections = process.net_connections("inet")
    except psutil.Error:  # it has just ended
        return False
    listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return int(bootstrap.rpartition(":")[2]) in listening
