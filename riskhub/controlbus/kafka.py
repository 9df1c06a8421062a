"""How Kafka is reached: the one place that makes its clients."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, for_code

from riskhub.errors import RiskHubError
from riskhub.settings import Settings

DEAD_LETTERS = ".dlq"
"""What the name of a topic's dead letters ends in."""

_CLOSE_WITHIN_SEC = 3.0
_SILENT_SEC = 30


class NoBrokers(RiskHubError):
    """No brokers are configured."""


def producer(settings: Settings) -> AIOKafkaProducer:
    """One that the brokers take each batch of once, and have on all replicas; not started.

    Raises:
        NoBrokers: there is no setting that names any.
    """
    return AIOKafkaProducer(
        **_reached(settings),
        enable_idempotence=True,
        acks="all",
        max_batch_size=settings.controlbus.max_event_bytes,
        max_request_size=settings.controlbus.max_event_bytes,
    )


def consumer(settings: Settings, *topics: str, group: str, **options: Any) -> AIOKafkaConsumer:
    """One of a group, from the beginning where the group has no place yet; it commits nothing.

    Raises:
        NoBrokers: there is no setting that names any.
    """
    defaults = {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": settings.controlbus.max_event_bytes,
    }
    return AIOKafkaConsumer(*topics, **_reached(settings), **{**defaults, **options})


async def ensure_topic(settings: Settings, topic: str) -> bool:
    """Make a topic where there is none; whether it was made.

    Raises:
        NoBrokers: there is no setting that names any.
        aiokafka.errors.KafkaError: the brokers can't be reached, or refuse.
    """
    admin = AIOKafkaAdminClient(**_reached(settings))
    await admin.start()
    try:
        if topic in await admin.list_topics():
            return False
        bus = settings.controlbus
        brokers = len((await admin.describe_cluster())["brokers"])
        new = NewTopic(
            topic,
            bus.partitions,
            bus.replication or min(3, brokers),
            topic_configs={"max.message.bytes": str(bus.max_event_bytes)},
        )
        answer = await admin.create_topics([new])
        for _, code, *_ in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"{topic} can't be made")
        return True
    finally:
        await admin.close()


async def topics(settings: Settings, *, timeout_sec: float) -> list[str]:
    """The names of the topics that there are, as whoever the settings say we are.

    Raises:
        aiokafka.errors.KafkaError: the brokers can't be reached, or refuse.
        OSError: the file of their authority can't be read.
    """
    admin = AIOKafkaAdminClient(**_reached(settings), request_timeout_ms=int(timeout_sec * 1000))
    try:
        await admin.start()
        named: list[str] = await admin.list_topics()
        return named
    finally:
        await admin.close()


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """One that has found its brokers; to be closed by `close_producer`.

    Raises:
        NoBrokers: there is no setting that names any.
        TimeoutError: they do not answer in time.
        aiokafka.errors.KafkaError: they can't be reached, or refuse.
    """
    started = producer(settings)
    try:
        async with asyncio.timeout(settings.controlbus.ack_timeout_sec):
            await started.start()
    except BaseException:
        await close_producer(started)
        raise
    return started


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close it, also when its brokers are away: then it would wait for them to take the rest."""
    closing = asyncio.create_task(producer.stop())
    await asyncio.wait({closing}, timeout=_CLOSE_WITHIN_SEC)
    if not closing.done():
        # Its successor sends what it waits for. There is no public way to say so.
        sender: Any = producer._sender.sender_task
        sender.cancel()
        producer._message_accumulator.fail_all(KafkaTimeoutError("given up"))
    with suppress(KafkaError, asyncio.CancelledError):
        await closing
    await producer.client.close()


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Have it leave its group and close it, also when the group or the brokers keep it waiting."""
    closing = asyncio.create_task(consumer.stop())
    await asyncio.wait({closing}, timeout=_CLOSE_WITHIN_SEC)
    if not closing.done():
        client: Any = consumer._client
        await client.close()  # what `stop` waits for then fails
    with suppress(KafkaError, asyncio.CancelledError):
        await closing


async def group_progress(
    settings: Settings, group: str, *, within_sec: float
) -> tuple[int, int] | None:
    """How many events of the topic a group is done with, and how many lie before it.

    None: it has committed nothing yet.

    Raises:
        NoBrokers: there is no setting that names any.
        TimeoutError: they do not answer in time.
        aiokafka.errors.KafkaError: the brokers can't be reached, or refuse.
    """
    # Of no group: it only asks where partitions begin and end.
    reader = AIOKafkaConsumer(settings.controlbus_topic, **_reached(settings))
    admin = AIOKafkaAdminClient(**_reached(settings))
    try:
        async with asyncio.timeout(within_sec):
            await reader.start()
            await admin.start()
            parts = list(reader.assignment())
            committed = await admin.list_consumer_group_offsets(group, partitions=parts)
            begins, ends = await reader.beginning_offsets(parts), await reader.end_offsets(parts)
        # Below 0: nothing of it is committed yet.
        done = {part: place.offset for part, place in committed.items() if place.offset >= 0}
        if not done:
            return None
        behind = sum(max(0, ends[part] - done.get(part, begins[part])) for part in parts)
        return sum(done.values()), behind
    finally:
        await close_consumer(reader)
        await admin.close()


async def read_all(
    settings: Settings, take: Callable[[int, bool, list[bytes]], None]
) -> dict[int, int]:
    """Read the topic from its beginning to where it ends now, as no group.

    Args:
        take: gets the next records of a partition, and whether that has all it was ever given.

    Returns:
        Of each partition the offset that it begins at.

    Raises:
        NoBrokers: there is no setting that names any.
        TimeoutError: the brokers give nothing for a while.
        aiokafka.errors.KafkaError: they can't be reached, or refuse.
    """
    reader = AIOKafkaConsumer(
        settings.controlbus_topic,
        **_reached(settings),
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.controlbus.max_event_bytes,
    )
    try:
        await reader.start()
        parts = list(reader.assignment())
        begins, ends = await reader.beginning_offsets(parts), await reader.end_offsets(parts)
        await reader.seek_to_beginning(*parts)
        while unread := [part for part in parts if await reader.position(part) < ends[part]]:
            found = await reader.getmany(*unread, timeout_ms=_SILENT_SEC * 1000)
            if not found:
                raise TimeoutError(f"the brokers give nothing for {_SILENT_SEC} s")
            for part, records in found.items():
                take(part.partition, begins[part] == 0, [record.value for record in records])
        return {part.partition: offset for part, offset in begins.items()}
    finally:
        await close_consumer(reader)


def _reached(settings: Settings) -> dict[str, Any]:
    if not settings.controlbus_brokers:
        raise NoBrokers("no brokers are configured: set RISKHUB_CONTROLBUS_BROKERS")
    bus = settings.controlbus
    reached: dict[str, Any] = {
        "bootstrap_servers": settings.controlbus_brokers,
        "client_id": "riskhub",
        "security_protocol": bus.security_protocol,
    }
    if bus.security_protocol in {"SSL", "SASL_SSL"}:
        reached["ssl_context"] = ssl.create_default_context(cafile=bus.ssl_cafile)
    if bus.security_protocol.startswith("SASL") and bus.sasl_password is not None:
        reached |= {
            "sasl_mechanism": bus.sasl_mechanism,
            "sasl_plain_username": bus.sasl_username,
            "sasl_plain_password": bus.sasl_password.get_secret_value(),
        }
    return reached
