"""The Redis of the dev profile: one stand-in server that every process of ``riskhub up`` shares.

Commands are executed by fakeredis, in memory; what is ours is the wire (RESP2 and RESP3 over TCP),
so that the API, the webserver and the run processes reach it by a ``redis://`` URL exactly as they
would reach Redis. fakeredis ships a TCP server too, but that one passes a request on line by line
and writes to a non-blocking socket as if it blocked: a value of 5 MB takes it seconds to a minute
to store, and can break the connection on the way back.

Like Redis it is one thread and one event loop. Nothing is persisted: what it holds ends with its
process. There is no authentication and no Lua, so it listens on loopback only.
"""

import asyncio
import ipaddress
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from fakeredis import FakeServer
from fakeredis._helpers import NoResponse, SimpleError, SimpleString
from fakeredis._socket import AsyncFakeSocket

_REDIS_VERSION = (7,)
_TICK_SEC = 0.1  # how late a stop is noticed, and how long an expired key keeps its memory
_FLUSH_BYTES = 1 << 16
# The limits of Redis itself; they keep a stray client from asking for all the memory there is.
_MAX_ARGUMENTS = 1 << 20
_MAX_ARGUMENT_BYTES = 512 << 20


def serve(
    host: str,
    port: int,
    *,
    ready: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Answer Redis clients on ``host:port`` until told to stop; nothing outlives the call.

    Args:
        host: a loopback address, or ``localhost``.
        port: the TCP port.
        ready: called once, when connections are accepted.
        stop: ends the call when set. In the main thread SIGTERM and SIGINT end it as well (and set
            it); the handlers that were there before are put back.

    Raises:
        ValueError: the host is not a loopback address.
        OSError: the address cannot be bound; ``errno.EADDRINUSE`` when the port is taken.
    """
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the stand-in has no authentication: it listens on loopback, not {host}")
    stop = stop or threading.Event()
    with _stopped_by_signals(stop):
        asyncio.run(_serve(host, port, ready or (lambda: None), stop))


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _serve(host: str, port: int, ready: Callable[[], None], stop: threading.Event) -> None:
    store = FakeServer(version=_REDIS_VERSION)
    conversations: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(store, reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(connected, host, port)
    try:
        ready()
        while not stop.is_set():
            await asyncio.sleep(_TICK_SEC)
            _sweep(store)
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


def _sweep(store: FakeServer) -> None:
    """Free what has expired; fakeredis does so only when a key is asked for again."""
    for database in store.dbs.values():
        database.time = time.time()
        len(database)  # counting drops what has expired


async def _converse(
    store: FakeServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    session = _Session(store, writer)
    try:
        while True:
            await session.execute(await _read_command(reader))
            await writer.drain()
    except _ProtocolError as error:
        writer.write(_encode(SimpleError(f"ERR Protocol error: {error}"), resp3=False))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has hung up, which is how every conversation ends
    finally:
        await session.end()
        writer.close()


class _Session(AsyncFakeSocket):
    """One client: its commands run by fakeredis, its replies encoded and sent in batches."""

    def __init__(self, store: FakeServer, writer: asyncio.StreamWriter) -> None:
        super().__init__(store, 0, client_class=redis.Redis)
        self._writer = writer
        self._outgoing = bytearray()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._blocked_in: asyncio.Task[None] | None = None

    async def execute(self, command: list[bytes]) -> None:
        await self._unblocked.wait()  # pipelined behind a BLPOP or an XREAD BLOCK
        self._process_command(command)

    async def end(self) -> None:
        await asyncio.sleep(0)  # a command that blocked just now begins to wait, and can be stopped
        if self._blocked_in is not None:
            self._blocked_in.cancel()
            await asyncio.wait([self._blocked_in])
        self._flush()
        self.close()

    # What follows is called by fakeredis.

    def put_response(self, msg: Any) -> None:
        """Queue a reply; what `_decode_result` did not encode is a message of a subscription."""
        if not self._outgoing:
            # Runs when the loop is next idle, so a pipeline that arrived together leaves together.
            asyncio.get_running_loop().call_soon(self._flush)
        if isinstance(msg, _Encoded):
            self._outgoing += msg
        elif isinstance(msg, list) and self._resp3:
            self._outgoing += _encode_many(b">", msg, resp3=True)
        else:
            self._outgoing += _encode(msg, resp3=self._resp3)
        if len(self._outgoing) > _FLUSH_BYTES:
            self._flush()

    def _decode_result(self, result: Any) -> Any:
        # There to turn replies into redis-py's objects; ours go on the wire, types and all.
        if isinstance(result, NoResponse):
            return result
        return _Encoded(_encode(result, resp3=self._resp3))

    def pause(self) -> None:
        self._unblocked.clear()

    def resume(self) -> None:
        self._unblocked.set()

    async def _async_blocking(self, *args: Any, **kwargs: Any) -> None:
        self._blocked_in = asyncio.current_task()
        await super()._async_blocking(*args, **kwargs)
        self._blocked_in = None

    @property
    def _resp3(self) -> bool:
        return bool(self._client_info.protocol_version == 3)

    def _flush(self) -> None:
        if self._outgoing and not self._writer.is_closing():
            self._writer.write(bytes(self._outgoing))
        self._outgoing.clear()


class _ProtocolError(Exception):
    """The client does not speak RESP; the connection is told so and closed."""


async def _read_command(reader: asyncio.StreamReader) -> list[bytes]:
    return [await _read_bulk(reader) for _ in range(await _read_size(reader, b"*", _MAX_ARGUMENTS))]


async def _read_bulk(reader: asyncio.StreamReader) -> bytes:
    size = await _read_size(reader, b"$", _MAX_ARGUMENT_BYTES)
    return (await reader.readexactly(size + 2))[:-2]


async def _read_size(reader: asyncio.StreamReader, mark: bytes, limit: int) -> int:
    try:
        line = await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError as error:
        raise _ProtocolError("too big a header") from error
    digits = line[1:-2]
    if line[:1] != mark or not digits.isdigit():
        raise _ProtocolError(f"expected '{mark.decode()}' and a length")
    if (size := int(digits)) > limit:
        raise _ProtocolError("invalid length")
    return size


class _Encoded(bytes):
    """A reply as it goes on the wire."""


def _encode(value: Any, *, resp3: bool) -> bytes:  # noqa: PLR0911 - one return per RESP type
    """One reply as fakeredis shapes it, in the protocol the client has negotiated."""
    match value:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case str():
            return _encode(value.encode(), resp3=resp3)
        case None:
            return b"_\r\n" if resp3 else b"$-1\r\n"
        case bool():
            return b"#%b\r\n" % (b"t" if value else b"f") if resp3 else b":%d\r\n" % value
        case int():
            return b":%d\r\n" % value
        case float():
            return b",%b\r\n" % repr(value).encode() if resp3 else _encode(repr(value), resp3=False)
        case SimpleString():
            return b"+%b\r\n" % value.value
        case SimpleError():
            return b"-%b\r\n" % value.value.encode()
        case list() | tuple():
            return _encode_many(b"*", value, resp3=resp3)
        case set() | frozenset():
            return _encode_many(b"~" if resp3 else b"*", value, resp3=resp3)
        case dict():
            pairs = [part for pair in value.items() for part in pair]
            if not resp3:
                return _encode_many(b"*", pairs, resp3=False)
            return b"%%%d\r\n" % len(value) + _encode_items(pairs, resp3=True)
    raise TypeError(f"no RESP type for {type(value).__name__}")


def _encode_many(mark: bytes, items: Iterable[Any], *, resp3: bool) -> bytes:
    items = list(items)
    return b"%b%d\r\n" % (mark, len(items)) + _encode_items(items, resp3=resp3)


def _encode_items(items: Iterable[Any], *, resp3: bool) -> bytes:
    return b"".join([_encode(item, resp3=resp3) for item in items])
