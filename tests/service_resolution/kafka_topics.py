"""Topics for the tests, and what a client is told of them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import for_code

DONE_WITHIN = 60.0


@contextmanager
def fresh_topic(bootstrap: str, partitions: int = 6) -> Iterator[str]:
    """The name of a new, empty topic, removed afterwards."""
    name = f"riskhub-test-{secrets.token_hex(6)}"
    asyncio.run(_create_topic(bootstrap, name, partitions))
    try:
        yield name
    finally:
        asyncio.run(_delete_topic(bootstrap, name))


def topics(bootstrap: str) -> dict[str, int]:
    """Each topic there is, with its number of partitions."""
    told = asyncio.run(metadata(bootstrap))
    return {name: len(told.partitions_for_topic(name) or ()) for name in told.topics()}


def led(told: ClusterMetadata, topic: str) -> set[int]:
    """The partitions of the topic, if each of them has a leader."""
    found = told.partitions_for_topic(topic) or set()
    return found if found == told.available_partitions_for_topic(topic) else set()


async def metadata(bootstrap: str) -> ClusterMetadata:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    try:
        await client.bootstrap()
        return await client.fetch_all_metadata()
    finally:
        await client.close()


async def _create_topic(bootstrap: str, name: str, partitions: int) -> None:
    async with asyncio.timeout(DONE_WITHIN), _admin(bootstrap) as admin:
        answer = await admin.create_topics([NewTopic(name, partitions, 1)])
        (told,) = answer.topic_errors
        if told[1]:
            raise for_code(told[1])(f"no topic {name}: {told[2:]}")
    async with asyncio.timeout(DONE_WITHIN):
        while len(led(await metadata(bootstrap), name)) != partitions:  # what is made is not yet
            await asyncio.sleep(0.02)  # known to whom a client asks


async def _delete_topic(bootstrap: str, name: str) -> None:
    async with asyncio.timeout(DONE_WITHIN), _admin(bootstrap) as admin:
        await admin.delete_topics([name])  # that it is gone already is in the answer, and no matter


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
