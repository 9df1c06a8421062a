"""Landings a second with one, two and four API processes on one Postgres.

Unique snapshots are posted one by one over 64 connections; every 2xx is durable. Database and load
share the machine with the API, so next to each rate stand the CPU seconds of the three: what a
landing costs each of them says where a machine with more cores would be, and which part of it is
full first. The claim: two processes land at least 1.6 times what one does, where the API is what is
full: snapshots whose covariance of 80 symbols goes to the blob store. Of small snapshots, and of
those with a covariance in the database, the machine's cores bound the sum, which is shown.
"""

import json
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
from typing import Any, overload

import psutil
import psycopg

from benchmarks._hub import Measured, _answers, _load, databases, post
from benchmarks.ingest import WORLDS, document
from tests.service_resolution import free_port

PROCESSES = (1, 2, 4)
CONNECTIONS = 64
SECONDS = 5.0
WARM_SECONDS = 4.0  # until each process has started
LEAST_SPEEDUP = 1.6
READY_WITHIN_SEC = 180


@dataclass(frozen=True)
class Kind:
    """A kind of snapshot, and the settings of the hub that it lands in."""

    name: str
    document: dict[str, Any]
    settings: dict[str, str]
    claims: bool = False


@dataclass(frozen=True)
class Posts(Sequence[bytes]):
    """So many posts that differ in world and version, each made when it is sent."""

    template: str
    run_id: str
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self.size))]
        if number >= self.size:
            raise IndexError(number)
        body = self.template.replace('"v0"', f'"{self.run_id}-{number}"', 1)
        return post(f"/risk-hub/worlds/bench{number % WORLDS}/snapshots", body.encode())


@dataclass(frozen=True)
class Costs:
    """CPU seconds that each part has used."""

    api: float
    database: float
    load: float = 0.0


def ingest() -> bool:
    """Measure each kind with each number of processes."""
    kinds = [
        Kind("100 weights", document(100, covariance=False), {}),
        Kind("50x50 covariance in the database", document(50, covariance=True), {}),
        Kind(
            "80x80 covariance in the blob store",
            document(80, covariance=True),
            {"RISKHUB_BLOBS__KIND": "file", "RISKHUB_INLINE_COV_THRESHOLD": "100"},
            claims=True,
        ),
    ]
    within = True
    with databases() as all_of_them:
        (_, database, redis) = next(each for each in all_of_them if each[0] == "Postgres")
        assert redis is not None
        for kind in kinds:
            rates = {count: measure(kind, count, database, redis) for count in PROCESSES}
            speedup = rates[2] / rates[1]
            limit = f" (at least {LEAST_SPEEDUP})" if kind.claims else ""
            print(f"scale: {kind.name}: two processes {speedup:.2f} times one{limit}")
            within &= speedup >= LEAST_SPEEDUP or not kind.claims
    return within


def measure(kind: Kind, processes: int, database: str, redis: str) -> float:
    """Landings a second; tells them with what they cost."""
    template = json.dumps(kind.document)
    with serving(database, redis, processes, kind.settings) as (port, api):
        _loaded(port, Posts(template, f"warm-{kind.name[:2]}{processes}", 10**6), WARM_SECONDS)
        before = Costs(_cpu(api), _cpu(_postmaster(database)))
        posts = Posts(template, f"{kind.name[:2]}{processes}", 10**6)
        seen, generator = _loaded(port, posts, SECONDS)
        after = Costs(_cpu(api), _cpu(_postmaster(database)))
    spent = Costs(after.api - before.api, after.database - before.database, generator)
    landings = seen.rate * SECONDS
    costs = vars(spent)
    used, there = sum(costs.values()), SECONDS * (os.cpu_count() or 1)
    print(
        f"scale: {kind.name}: {processes} API processes: {seen}; of {there:.0f} CPU seconds "
        f"{used:.1f} are used: "
        + ", ".join(
            f"{name} {seconds:.1f} ({1000 * seconds / landings:.2f} ms a landing)"
            for name, seconds in costs.items()
        ),
        flush=True,
    )
    return seen.rate


@contextmanager
def serving(
    database: str, redis: str, processes: int, settings: dict[str, str]
) -> Iterator[tuple[int, psutil.Process]]:
    """A hub in so many processes that share a port; the port, and the first of the processes."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = (
            dict(os.environ)
            | settings
            | {
                "RISKHUB_HOME": home,
                "RISKHUB_DATABASE_URL": database,
                "RISKHUB_REDIS_URL": redis,
                "RISKHUB_API_PORT": str(port),
                "RISKHUB_API_WORKERS": str(processes),
            }
        )
        server = subprocess.Popen([sys.executable, "-m", "api.server"], env=environment)
        try:
            deadline = time.monotonic() + READY_WITHIN_SEC
            while not _answers(port):
                assert server.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server doesn't answer"
                time.sleep(0.05)
            yield port, psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait()


def _loaded(port: int, posts: Posts, seconds: float) -> tuple[Measured, float]:
    """What a load saw, from a process of its own, and the CPU seconds that it took itself."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        latencies, took, cpu = pool.submit(_load_and_cost, port, posts, seconds).result()
    return Measured.of(latencies, took), cpu


def _load_and_cost(port: int, posts: Posts, seconds: float) -> tuple[list[float], float, float]:
    before = time.process_time()
    latencies, took = _load(port, CONNECTIONS, posts, seconds)
    return latencies, took, time.process_time() - before


def _postmaster(database: str) -> psutil.Process:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        postmaster = backend.parent()
        assert postmaster is not None
        return postmaster


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process, its children, and those of them that have ended."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if each == process:
            total += times.children_user + times.children_system
    return total
