"""Stands before the mock cluster: answers for topics and groups, and passes on the rest."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress

from tests.kafka_stand_in.groups import Group, Told
from tests.kafka_stand_in.mock_cluster import MockCluster
from tests.kafka_stand_in.wire import Reader, array, blob, numbers, text

METADATA, COMMIT, JOIN, BEAT, LEAVE, SYNC, VERSIONS, CREATE, DELETE = (
    3,
    8,
    11,
    12,
    13,
    14,
    18,
    19,
    20,
)
UNSUPPORTED_VERSION = 35

# One version each of what is read here, so that there is one layout to know.
_VERSIONS = {
    METADATA: (4, 5),
    COMMIT: (2, 2),
    JOIN: (1, 1),
    BEAT: (0, 0),
    LEAVE: (0, 0),
    SYNC: (0, 0),
    VERSIONS: (0, 2),
    CREATE: (1, 1),
    DELETE: (1, 1),
}
_EXPIRE_EVERY_SEC = 0.2

Request = Callable[[Reader], Awaitable[bytes]]


class Upstream:
    """One connection to the mock cluster."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        """What it answers; for one request after the other."""
        self._writer.write(blob(request))
        return await read_message(self._reader)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """The next request or answer, without its length."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


class Proxy:
    """All connections of all clients."""

    def __init__(self, cluster: MockCluster) -> None:
        self._cluster = cluster
        self._groups: defaultdict[str, Group] = defaultdict(Group)
        self._versions: dict[int, tuple[int, int]] = {}
        self._answers: dict[int, Request] = {
            JOIN: self._join,
            SYNC: self._sync,
            BEAT: self._beat,
            LEAVE: self._leave,
            CREATE: self._create,
            DELETE: self._delete,
        }

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled."""
        await self._learn_versions()
        async with await asyncio.start_server(self._client, host, port, limit=1 << 20):
            while True:
                await asyncio.sleep(_EXPIRE_EVERY_SEC)
                for group in self._groups.values():
                    group.expire()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._cluster.address())
        upstream = Upstream(up_reader, up_writer)
        with closing(writer), closing(up_writer), suppress(ConnectionError, EOFError):
            while True:  # in order, as Kafka has it: one request of a connection at a time
                request = await read_message(reader)
                writer.write(blob(await self._answer(request, upstream)))
                await writer.drain()

    async def _answer(self, request: bytes, upstream: Upstream) -> bytes:
        header = Reader(request)
        api, version, correlation = header.number("h"), header.number("h"), header.number("i")
        head = numbers("i", correlation)
        if api == VERSIONS:
            return head + self._offered(version)
        if api == METADATA:  # its last byte: whether to make a topic that is asked about
            return await upstream.ask(request[:-1] + b"\0")
        header.text()  # who asks
        if api == COMMIT:
            return await self._commit(request, header, upstream)
        if api in self._answers:
            return head + await self._answers[api](header)
        return await upstream.ask(request)

    # --- versions ----------------------------------------------------------------------------

    async def _learn_versions(self) -> None:
        reader, writer = await asyncio.open_connection(*self._cluster.address())
        with closing(writer):
            request = numbers("hhi", VERSIONS, 0, 0) + text("stand-in")
            told = Reader(await Upstream(reader, writer).ask(request))
        told.number("i"), told.number("h")
        known = told.array(lambda each: (each.number("h"), each.number("h"), each.number("h")))
        self._versions = {api: (least, most) for api, least, most in known} | _VERSIONS

    def _offered(self, version: int) -> bytes:
        known = version <= _VERSIONS[VERSIONS][1]
        versions = array(numbers("hhh", api, *each) for api, each in self._versions.items())
        answer = numbers("h", 0 if known else UNSUPPORTED_VERSION) + versions
        return answer + (numbers("i", 0) if known and version else b"")

    # --- topics ------------------------------------------------------------------------------

    async def _create(self, asked: Reader) -> bytes:
        def create(each: Reader) -> bytes:
            name, partitions, _ = each.text(), each.number("i"), each.number("h")
            each.array(lambda replica: (replica.number("i"), replica.array(_integer)))
            each.array(lambda setting: (setting.text(), setting.text()))
            told = self._cluster.create_topic(name, partitions)
            return text(name) + numbers("hh", told, -1)

        return array(asked.array(create))

    async def _delete(self, asked: Reader) -> bytes:
        names = asked.array(Reader.text)
        told = [text(name) + numbers("h", self._cluster.delete_topic(name)) for name in names]
        return numbers("i", 0) + array(told)

    # --- groups ------------------------------------------------------------------------------

    async def _join(self, asked: Reader) -> bytes:
        group, session, rebalance = asked.text(), asked.number("i"), asked.number("i")
        member, _ = asked.text(), asked.text()
        protocols = dict(asked.array(lambda each: (each.text(), each.blob())))
        joined = await self._groups[group].join(member, session / 1e3, rebalance / 1e3, protocols)
        return (
            numbers("hi", joined.told, joined.generation)
            + text(joined.protocol)
            + text(joined.leader)
            + text(joined.member)
            + array(text(name) + blob(about) for name, about in joined.members.items())
        )

    async def _sync(self, asked: Reader) -> bytes:
        group, generation, member = asked.text(), asked.number("i"), asked.text()
        assignments = dict(asked.array(lambda each: (each.text(), each.blob())))
        told, assignment = await self._groups[group].sync(member, generation, assignments)
        return numbers("h", told) + blob(assignment)

    async def _beat(self, asked: Reader) -> bytes:
        group, generation, member = asked.text(), asked.number("i"), asked.text()
        return numbers("h", self._groups[group].beat(member, generation))

    async def _leave(self, asked: Reader) -> bytes:
        return numbers("h", self._groups[asked.text()].leave(asked.text()))

    async def _commit(self, request: bytes, asked: Reader, upstream: Upstream) -> bytes:
        """Passed on as of nobody's: the mock cluster does not know who the members are."""
        head = request[: len(request) - len(asked.rest())]
        name, generation, member = asked.text(), asked.number("i"), asked.text()
        group = self._groups[name]
        outsider = generation < 0 and group.is_empty()
        told = Told.NOTHING if outsider else group.check(member, generation)
        if told is Told.NOTHING:
            nobody = text(name) + numbers("i", -1) + text("")
            return await upstream.ask(head + nobody + asked.rest())
        asked.number("q")
        correlation = request[4:8]
        return correlation + array(asked.array(lambda topic: _refused(topic, told)))


def _refused(topic: Reader, told: Told) -> bytes:
    def partition(each: Reader) -> bytes:
        number, _, _ = each.number("i"), each.number("q"), each.text()
        return numbers("ih", number, told)

    return text(topic.text()) + array(topic.array(partition))


def _integer(each: Reader) -> int:
    return each.number("i")
