"""What the benchmarks of the hub share: a served hub, and a load that costs little."""

import asyncio
import itertools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import uvloop

from riskhub.store import create_engine, migrate
from tests.service_resolution import free_port, fresh_database, resolve_postgres, resolve_redis

READY_WITHIN_SEC = 30
HEADERS = "Host: hub\r\nX-Actor: bench\r\nX-Stage: paper\r\n"


@dataclass(frozen=True)
class Measured:
    """What a load saw: answers a second, and how long one took."""

    rate: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float) -> "Measured":
        ms = np.array(latencies) * 1000
        return cls(len(ms) / seconds, float(np.percentile(ms, 50)), float(np.percentile(ms, 99)))

    def __str__(self) -> str:
        return f"{self.rate:6,.0f}/s p50 {self.p50_ms:.1f} p99 {self.p99_ms:.1f} ms"


@contextmanager
def databases() -> Iterator[list[tuple[str, str, str | None]]]:
    """Name, database URL and Redis URL: SQLite alone, and Postgres with Redis, both empty."""
    with (
        tempfile.TemporaryDirectory() as directory,
        resolve_postgres(durable=True).serve() as server,
        fresh_database(server) as postgres,
        resolve_redis().serve() as redis,
    ):
        sqlite = f"sqlite:///{directory}/hub.db"
        for url in (sqlite, postgres):
            migrate(create_engine(url))
        yield [("SQLite", sqlite, None), ("Postgres", postgres, redis)]


@contextmanager
def serving(database: str, redis: str | None, **settings: str) -> Iterator[int]:
    """A hub in processes of its own; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ) | {
            "RISKHUB_HOME": home,
            "RISKHUB_DATABASE_URL": database,
            "RISKHUB_API_PORT": str(port),
            **({"RISKHUB_REDIS_URL": redis} if redis else {}),
            **{f"RISKHUB_{name.upper()}": value for name, value in settings.items()},
        }
        with serving_command([sys.executable, "-m", "api.server"], port, environment):
            yield port


@contextmanager
def serving_command(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """Any server with a ``/readyz``; its port."""
    server = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + READY_WITHIN_SEC
        while not _answers(port):
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server doesn't answer"
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


def get(path: str) -> bytes:
    """A GET request as bytes on the wire."""
    return f"GET {path} HTTP/1.1\r\n{HEADERS}\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A POST request as bytes on the wire."""
    head = f"POST {path} HTTP/1.1\r\n{HEADERS}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def load(port: int, connections: int, requests: Sequence[bytes], seconds: float) -> Measured:
    """Send the requests, each once and in turn (again from the start for GETs), from a process.

    Each connection sends its next request when it has the answer to the one before. Any status
    but 200 and 201 ends the measurement.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        latencies, took = pool.submit(_load, port, connections, requests, seconds).result()
    return Measured.of(latencies, took)


def _load(
    port: int, connections: int, requests: Sequence[bytes], seconds: float
) -> tuple[list[float], float]:
    return uvloop.run(_drive(port, connections, requests, seconds))


async def _drive(
    port: int, connections: int, requests: Sequence[bytes], seconds: float
) -> tuple[list[float], float]:
    loop = asyncio.get_running_loop()
    pending = itertools.cycle(requests) if requests[0].startswith(b"GET") else iter(requests)
    began = time.perf_counter()
    clients = [_Client(pending, began + seconds) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.gather(*(client.done for client in clients))
    return [each for client in clients for each in client.latencies], time.perf_counter() - began


class _Client(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self._requests = requests
        self._until = until
        self._held = bytearray()
        self._wanted: int | None = None
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        self._began = time.perf_counter()
        request = next(self._requests, None) if self._began < self._until else None
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._wanted is None:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._held[:end]).lower()
            if head[9:12] not in (b"200", b"201"):
                self.done.set_exception(AssertionError(bytes(self._held).decode()))
                return
            at = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[at:].partition(b"\r")[0])
        if len(self._held) >= self._wanted:
            self.latencies.append(time.perf_counter() - self._began)
            self._held.clear()
            self._wanted = None
            self._next()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)
