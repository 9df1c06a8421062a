"""What riskhub asks of Redis, asked of whatever the tests run against and of the stand-in.

The second half is about the stand-in alone: how it starts, how it ends, and that a client which
misbehaves harms nobody else.
"""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import redis
import redis.asyncio
import service_resolution

from riskhub.embedded_redis import serve

_FIVE_MB = 5_000_000
_SERVE = (
    "import sys; from riskhub.embedded_redis import serve;"
    "serve('127.0.0.1', int(sys.argv[1]), ready=lambda: print('ready', flush=True))"
)


@pytest.fixture(scope="module")
def standin_server() -> Iterator[str]:
    with service_resolution.resolve_redis({service_resolution.STAND_INS: "1"}).serve() as url:
        yield url


@pytest.fixture
def standin_url(standin_server: str) -> Iterator[str]:
    with service_resolution.flushed(standin_server) as url:
        yield url


@pytest.fixture(params=["redis_url", "standin_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, protocol=request.param) as connected:
        yield connected


def _until(condition: Callable[[], Any], within_sec: float = 10.0) -> Any:
    deadline = time.monotonic() + within_sec
    while time.monotonic() < deadline:
        if found := condition():
            return found
    raise AssertionError("it did not come about")


# --- every Redis -----------------------------------------------------------------------------


def test_a_transaction_of_a_thousand_commands(client: redis.Redis) -> None:
    transaction = client.pipeline(transaction=True)
    for number in range(500):
        transaction.hset(f"budget:{number}", mapping={"symbol": f"S{number}", "usd": 1000.25})
        transaction.expire(f"budget:{number}", 300)
    replies = transaction.execute()

    assert replies == [2, True] * 500
    assert client.hgetall("budget:499") == {b"symbol": b"S499", b"usd": b"1000.25"}
    assert 0 < client.ttl("budget:499") <= 300


def test_a_discarded_transaction_changes_nothing(client: redis.Redis) -> None:
    transaction = client.pipeline(transaction=True)
    transaction.set("a", "1")
    transaction.execute_command("HSET", "too few arguments")

    with pytest.raises(redis.ResponseError):
        transaction.execute()
    assert client.get("a") is None


def test_a_watched_key_that_changes_aborts_the_transaction(client: redis.Redis) -> None:
    with client.pipeline() as transaction:
        transaction.watch("a")
        client.set("a", "of another")
        transaction.multi()
        transaction.set("a", "mine")
        with pytest.raises(redis.WatchError):
            transaction.execute()
    assert client.get("a") == b"of another"


def test_a_failed_command_fails_alone_in_a_plain_pipeline(client: redis.Redis) -> None:
    client.set("text", "x")
    pipeline = client.pipeline(transaction=False)
    pipeline.hmget("text", "field")
    pipeline.get("text")

    failed, got = pipeline.execute(raise_on_error=False)

    assert isinstance(failed, redis.ResponseError)
    assert str(failed).startswith("WRONGTYPE")
    assert got == b"x"


def test_scan_finds_each_matching_key_and_no_other(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(1500):
        pipeline.set(f"position:{number}", "")
        pipeline.set(f"market:{number}", "")
    pipeline.execute()

    found = set(client.scan_iter(match="position:*", count=100))

    assert found == {f"position:{number}".encode() for number in range(1500)}


def test_a_stream_is_capped_and_read_onwards(client: redis.Redis) -> None:
    ids = [
        client.xadd("violations", {"json": f'{{"n": {number}}}'}, maxlen=10, approximate=False)
        for number in range(25)
    ]

    assert client.xlen("violations") == 10
    assert [entry for entry, _ in client.xrange("violations")] == ids[15:]
    read = client.xread({"violations": ids[23]})
    entries = read[b"violations"][0] if isinstance(read, dict) else read[0][1]
    assert entries == [(ids[24], {b"json": b'{"n": 24}'})]


def test_a_blocked_read_wakes_up_for_an_entry(client: redis.Redis) -> None:
    reader = client.connection_pool.get_connection()
    # Sent together, they run together: once PING is answered, the read is waiting.
    together = [("PING",), ("XREAD", "BLOCK", "0", "STREAMS", "violations", "$")]
    reader.send_packed_command(reader.pack_commands(together))
    assert reader.read_response() == b"PONG"

    client.xadd("violations", {"json": "{}"}, id="7-1")

    read = reader.read_response()
    entries = read[b"violations"] if isinstance(read, dict) else read[0][1]
    assert entries == [[b"7-1", [b"json", b"{}"]]]
    reader.disconnect()


def test_what_is_sent_behind_a_blocked_command_waits_for_it(client: redis.Redis) -> None:
    waiting = client.connection_pool.get_connection()
    together = [("PING",), ("BLPOP", "queue", "0"), ("SET", "behind", "1")]
    waiting.send_packed_command(waiting.pack_commands(together))
    assert waiting.read_response() == b"PONG"

    assert client.get("behind") is None
    client.rpush("queue", "item")

    assert [waiting.read_response() for _ in together[1:]] == [[b"queue", b"item"], b"OK"]
    waiting.disconnect()


def test_a_blocked_read_gives_up_in_time(client: redis.Redis) -> None:
    assert not client.xread({"violations": "$"}, block=20)
    assert client.ping()


def test_a_key_expires(client: redis.Redis) -> None:
    client.set("soon", "x", px=20)
    client.hset("gone", "field", "x")
    client.pexpire("gone", 20)

    _until(lambda: client.get("soon") is None and client.hgetall("gone") == {})
    assert list(client.scan_iter()) == []


def test_a_lock_is_taken_once_until_it_expires(client: redis.Redis) -> None:
    assert client.set("lock", "mine", nx=True, px=50) is True
    assert client.set("lock", "theirs", nx=True, px=50) is None
    assert client.get("lock") == b"mine"

    assert _until(lambda: client.set("lock", "theirs", nx=True, px=60_000))
    assert client.get("lock") == b"theirs"


def test_a_message_reaches_each_subscriber(client: redis.Redis, url: str) -> None:
    with client.pubsub() as exact, redis.Redis.from_url(url) as other, other.pubsub() as by_pattern:
        exact.subscribe("landed")
        by_pattern.psubscribe("land*")
        for subscriber in (exact, by_pattern):
            assert (
                _until(lambda subscriber=subscriber: subscriber.get_message(timeout=1))["data"] == 1
            )

        assert client.publish("landed", "world-1") == 2

        for subscriber in (exact, by_pattern):
            message = _until(lambda subscriber=subscriber: subscriber.get_message(timeout=1))
            assert (message["channel"], message["data"]) == (b"landed", b"world-1")


@pytest.mark.parametrize(
    "value",
    [b"", b"\r\n", b"\xff\x00+OK\r\n", b"\r\n" * (_FIVE_MB // 2), os.urandom(_FIVE_MB)],
    ids=["empty", "line end", "not text", "5 MB of line ends", "5 MB of anything"],
)
def test_a_value_comes_back_as_it_was(client: redis.Redis, value: bytes) -> None:
    client.set("value", value)
    client.hset("hash", "value", value)

    assert client.get("value") == value
    assert client.hmget("hash", "value", "none") == [value, None]


def test_asyncio_clients_share_it(url: str) -> None:
    async def count_together() -> None:
        async with redis.asyncio.Redis.from_url(url) as shared:

            async def count() -> None:
                async with shared.pipeline(transaction=True) as transaction:
                    for _ in range(100):
                        transaction.incr("count")
                    await transaction.execute()

            await asyncio.gather(*(count() for _ in range(20)))
            assert await shared.get("count") == b"2000"

    asyncio.run(count_together())


def test_an_asyncio_client_subscribes(url: str) -> None:
    async def subscribe() -> None:
        async with redis.asyncio.Redis.from_url(url) as shared, shared.pubsub() as subscriber:
            await subscriber.subscribe("landed")
            assert (await subscriber.get_message(timeout=10))["data"] == 1
            await shared.publish("landed", "world-1")
            assert (await subscriber.get_message(timeout=10))["data"] == b"world-1"

    asyncio.run(subscribe())


def test_processes_share_it(url: str) -> None:
    count = (
        "import sys, redis\n"
        "with redis.Redis.from_url(sys.argv[1]) as client:\n"
        "    for _ in range(20):\n"
        "        transaction = client.pipeline()\n"
        "        for number in range(50):\n"
        "            transaction.hincrby('counts', number, 1)\n"
        "        transaction.execute()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", count, url]) for _ in range(6)]

    assert [process.wait(60) for process in processes] == [0] * 6
    with redis.Redis.from_url(url) as client:
        assert client.hgetall("counts") == {str(n).encode(): b"120" for n in range(50)}


def test_many_connections_at_once(url: str) -> None:
    pool = redis.ConnectionPool.from_url(url)
    connections = [pool.get_connection() for _ in range(100)]
    for number, connection in enumerate(connections):
        connection.send_command("SET", f"key:{number}", number)
    assert [connection.read_response() for connection in connections] == [b"OK"] * 100
    for connection in connections:
        connection.disconnect()


# --- the stand-in ----------------------------------------------------------------------------


@contextmanager
def _standin_process(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _SERVE, str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_clients_connected(
    number: signal.Signals, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with _standin_process(port) as process, redis.Redis(port=port) as client:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        subscriber = client.pubsub()
        subscriber.subscribe("landed")
        blocked = client.connection_pool.get_connection()
        blocked.send_command("BLPOP", "queue", 0)

        process.send_signal(number)

        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        subscriber.close()
        blocked.disconnect()


def test_a_taken_port_is_told_as_such(standin_url: str) -> None:
    port = redis.Redis.from_url(standin_url).connection_pool.connection_kwargs["port"]

    with pytest.raises(OSError, match=str(port)) as refused:
        serve("127.0.0.1", port)

    assert refused.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_it_listens_on_loopback_only(host: str, free_port: Callable[[], int]) -> None:
    with pytest.raises(ValueError, match="loopback"):
        serve(host, free_port())


def test_an_event_ends_it_and_nothing_outlives_it(free_port: Callable[[], int]) -> None:
    port = free_port()
    for _ in range(2):
        ready, stop = threading.Event(), threading.Event()
        server = threading.Thread(
            target=serve, args=("127.0.0.1", port), kwargs={"ready": ready.set, "stop": stop}
        )
        server.start()
        try:
            assert ready.wait(10)
            with redis.Redis(port=port) as client:
                assert client.get("key") is None
                client.set("key", "value")
        finally:
            stop.set()
            server.join(10)
        assert not server.is_alive()


def test_the_signal_handlers_are_put_back(free_port: Callable[[], int]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = threading.Event()

    serve("127.0.0.1", free_port(), ready=stop.set, stop=stop)

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_expired_frees_its_memory_unasked(free_port: Callable[[], int]) -> None:
    port, keys, size = free_port(), ["a", "b", "c", "d"], 40 << 20  # that much, malloc gives back
    with _standin_process(port) as process, redis.Redis(port=port) as client:
        assert process.stdout is not None
        process.stdout.readline()
        resident = psutil.Process(process.pid).memory_info
        for key in keys:
            client.set(key, b"x" * size)
        full = resident().rss
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.pexpire(key, 1)
        pipeline.execute()

        assert _until(lambda: resident().rss < full - 3 * size)


@pytest.mark.parametrize("last", [b"", b"no RESP\r\n"], ids=["hangs up", "is hung up on"])
def test_a_client_that_leaves_while_blocked_takes_nothing_along(
    last: bytes, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with _standin_process(port) as process, redis.Redis(port=port) as client:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as leaving:
                leaving.sendall(b"*3\r\n$5\r\nBLPOP\r\n$5\r\nqueue\r\n$1\r\n0\r\n" + last)
        _until(lambda: len(client.client_list()) == 1)

        client.rpush("queue", "item")

        assert client.lrange("queue", 0, -1) == [b"item"]
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*99999999999\r\n",
        b"*" + b"1" * 300_000,
    ],
    ids=["http", "negative length", "huge argument", "huge command", "endless header"],
)
def test_who_does_not_speak_resp_is_told_so_and_hung_up_on(standin_url: str, sent: bytes) -> None:
    with redis.Redis.from_url(standin_url) as client:
        port = client.connection_pool.connection_kwargs["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(sent)
            assert stranger.recv(1000).startswith(b"-ERR Protocol error")
        assert client.ping()


def test_a_subscription_is_pushed_in_resp3(standin_url: str) -> None:
    with redis.Redis.from_url(standin_url) as client:
        port = client.connection_pool.connection_kwargs["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as subscriber:
            subscriber.sendall(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n")
            assert subscriber.recv(1000).startswith(b"%")
            subscriber.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n")
            assert subscriber.recv(1000) == b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
            client.publish("c", "m")
            assert subscriber.recv(1000) == b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
