"""Landing over HTTP against the database's own limit.

The same rows at the same number of connections: posted to the hub as snapshots, and inserted by a
bare driver loop that commits each, which is what no hub can beat that doesn't share commits. Every
2xx is durable on both sides; server, database and load share the machine. The claim, at 64
connections: at least half the limit's rate, and a p99 under five times the limit's. With a
covariance of 1,275 numbers the rate misses it: to parse, check and digest one takes a millisecond
of a core, which the limit doesn't do.

And the bulk door: at least 10,000 small snapshots a second into Postgres.
"""

import itertools
import json
import multiprocessing
import sqlite3
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any

import httpx
import psycopg

from benchmarks._hub import Measured, databases, load, post, serving
from riskhub.hub import utc_now
from riskhub.snapshot import validate

CONNECTIONS = (1, 16, 64)
SECONDS = 4.0
WORLDS = 50
LEAST_SHARE = 0.5
LARGEST_P99_RATIO = 5.0
LEAST_BULK_RATE = 10_000
BULK_SNAPSHOTS = 40_000
_COLUMNS = "world_id, version, as_of, received_at, expires_at, stage, actor, digest, body"


def document(symbols: int, *, covariance: bool) -> dict[str, Any]:
    """A snapshot of equal weights, perhaps with every covariance."""
    names = [f"S{number:03d}" for number in range(symbols)]
    made: dict[str, Any] = {
        "as_of": "2026-01-02T21:00:00Z",
        "version": "v0",
        "weights": dict.fromkeys(names, 1.0 / symbols),
    }
    if covariance:
        made["covariance"] = {
            f"{a},{b}": (0.0004 if a == b else 0.0001) + row * 1e-7
            for row, a in enumerate(names)
            for b in names[row:]
        }
    return made


SMALL, LARGE = document(100, covariance=False), document(50, covariance=True)


def run() -> bool:
    """Measure both databases, both sizes, each number of connections."""
    within = []
    with databases() as all_of_them:
        for name, database, redis in all_of_them:
            # A second process pays where the database is another one, and takes turns where not.
            workers = "2" if redis else "1"
            with serving(database, redis, api_workers=workers) as port:
                for size, what in (("100 weights", SMALL), ("a 50x50 covariance", LARGE)):
                    for connections in CONNECTIONS:
                        run_id = f"{size[:2]}{connections}"
                        limit = bare(database, connections, run_id, what)
                        hub = landings(port, connections, run_id, what)
                        share, tail = hub.rate / limit.rate, hub.p99_ms / limit.p99_ms
                        print(
                            f"ingest: {name}, {size}, {connections:2} connections: hub {hub}, bare "
                            f"driver {limit}; share {share:.2f}, p99 ratio {tail:.2f}",
                            flush=True,
                        )
                        if connections == CONNECTIONS[-1]:
                            within.append(share >= LEAST_SHARE and tail < LARGEST_P99_RATIO)
                if redis:
                    rate = bulk(port)
                    print(
                        f"ingest: {name}, bulk door: {rate:,.0f} snapshots/s "
                        f"(at least {LEAST_BULK_RATE:,})"
                    )
                    within.append(rate >= LEAST_BULK_RATE)
    return all(within)


def landings(port: int, connections: int, run_id: str, what: dict[str, Any]) -> Measured:
    """Unique snapshots, posted one by one."""
    template = json.dumps(what)
    requests = [
        post(
            f"/risk-hub/worlds/bench{number % WORLDS}/snapshots",
            template.replace('"v0"', f'"{run_id}-{number}"').encode(),
        )
        for number in range(6_000 if "covariance" in what else 24_000)
    ]
    return load(port, connections, requests, SECONDS)


def bulk_lines(count: int, symbols: int = 2) -> bytes:
    """So many small snapshots as NDJSON, over fifty worlds."""
    small = document(symbols, covariance=False)
    return "".join(
        json.dumps(small | {"world_id": f"bulk{number % WORLDS}", "version": str(number)}) + "\n"
        for number in range(count)
    ).encode()


def bulk(port: int) -> float:
    """Small snapshots a second through the bulk door, from one client."""
    lines = bulk_lines(BULK_SNAPSHOTS)
    headers = {"X-Actor": "bench", "X-Stage": "backtest"}
    url = f"http://127.0.0.1:{port}/risk-hub/snapshots:batch"
    began = time.perf_counter()
    answer = httpx.post(url, content=lines, headers=headers, timeout=120)
    took = time.perf_counter() - began
    assert answer.text.count('"status": 201') == BULK_SNAPSHOTS, answer.text[:500]
    return BULK_SNAPSHOTS / took


def bare(database: str, connections: int, run_id: str, what: dict[str, Any]) -> Measured:
    """The rows of such snapshots, inserted by a thread a connection in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_bare, database, connections, run_id, what).result()


def _bare(database: str, connections: int, run_id: str, what: dict[str, Any]) -> Measured:
    snapshot = validate(what, world_id="bare", actor="bench", stage="paper", received_at=utc_now())
    instants = (snapshot.as_of, snapshot.received_at, snapshot.expires_at)
    numbers = itertools.count()
    until = time.perf_counter() + SECONDS
    latencies: list[float] = []

    def work() -> None:
        open_, insert = (
            (_sqlite, _insert_sqlite) if database.startswith("sqlite") else (_postgres, _insert_pg)
        )
        with closing(open_(database)) as connection:
            at = instants if insert is _insert_pg else tuple(map(_microseconds, instants))
            mine = []
            while (began := time.perf_counter()) < until:
                number = next(numbers)
                key = (f"bare{number % WORLDS}", f"{run_id}-{number}")
                insert(connection, (*key, *at, "paper", "bench", snapshot.digest, snapshot.body))
                mine.append(time.perf_counter() - began)
        latencies.extend(mine)

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured.of(latencies, time.perf_counter() - began)


def _microseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1e6)


def _sqlite(database: str) -> sqlite3.Connection:
    path = database.removeprefix("sqlite:///")
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _insert_sqlite(connection: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"INSERT INTO snapshots ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", row)  # noqa: S608
    connection.execute("COMMIT")


def _postgres(database: str) -> psycopg.Connection:
    return psycopg.connect(database.replace("+psycopg", ""), autocommit=True)


def _insert_pg(connection: psycopg.Connection, row: tuple[Any, ...]) -> None:
    statement = f"INSERT INTO snapshots ({_COLUMNS}) VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s)"  # noqa: S608
    connection.execute(statement, row)


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
