"""Reading over HTTP: the hot path against the framework itself, and history against its length.

`latest`, hot, is measured against FastAPI returning the same bytes from memory, in the same run, at
64 connections: at most 1.5 times as slow. `lookup`, `list` and the `latest` of a world whose
snapshots have all expired are measured on 100 thousand rows and on 10 million, at one connection,
so that it is the database that is measured: at most 2 times as slow.

RISKHUB_BENCH_ROWS sets another number than 10 million, which take some minutes to make.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import psycopg

from benchmarks._hub import databases, get, load, serving, serving_command
from benchmarks.ingest import bulk_lines
from tests.service_resolution import free_port

SECONDS = 4.0
CONNECTIONS = (1, 16, 64)
WORLDS = 100
LARGEST_HOT_RATIO = 1.5
LARGEST_GROWTH = 2.0
FEW, MANY = 100_000, int(os.environ.get("RISKHUB_BENCH_ROWS", "10000000"))
START = datetime(2020, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def run() -> bool:
    """Measure both; True when the claims hold."""
    with databases() as all_of_them:
        (_, database, redis) = next(each for each in all_of_them if each[0] == "Postgres")
        hot = _hot(database, redis)
        few = _history(database, redis, FEW)
        many = _history(database, redis, MANY)
    within = [hot]
    for what, before in few.items():
        ratio = many[what] / before
        print(
            f"reads: {what}: {before:.2f} ms on {FEW:,} rows, {many[what]:.2f} ms on {MANY:,}, "
            f"ratio {ratio:.2f} (at most {LARGEST_GROWTH})"
        )
        within.append(ratio <= LARGEST_GROWTH)
    return all(within)


def _hot(database: str, redis: str | None) -> bool:
    """`latest` of fifty worlds, and how it compares to the same bytes from memory."""
    with serving(database, redis) as port:
        headers = {"X-Actor": "bench", "X-Stage": "paper"}
        url = f"http://127.0.0.1:{port}/risk-hub/snapshots:batch"
        answer = httpx.post(url, content=bulk_lines(50, symbols=100), headers=headers)
        assert answer.text.count('"status": 201') == 50, answer.text
        requests = [get(f"/risk-hub/worlds/bulk{n}/snapshots/latest") for n in range(50)]
        load(port, 8, requests, 1.0)
        ours = {
            connections: load(port, connections, requests, SECONDS) for connections in (1, 16, 64)
        }
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks._memory:app", "--port", str(port)]
    quiet = ["--log-level", "warning", "--no-access-log"]
    with serving_command([*command, *quiet], port, dict(os.environ)):
        request = [get("/risk-hub/worlds/bulk1/snapshots/latest")]
        memory = {count: load(port, count, request, SECONDS) for count in ours}
    for connections, hub in ours.items():
        ratio = memory[connections].rate / hub.rate
        print(
            f"reads: latest, hot, {connections:2} connections: hub {hub}, the framework from "
            f"memory {memory[connections]}, ratio {ratio:.2f}"
            + (f" (at most {LARGEST_HOT_RATIO})" if connections == 64 else ""),
            flush=True,
        )
    return memory[64].rate / ours[64].rate <= LARGEST_HOT_RATIO


def _history(database: str, redis: str | None, rows: int) -> dict[str, float]:
    """Milliseconds (median) of each kind of read on a table of so many rows."""
    each = rows // WORLDS
    _fill(database, each)
    chosen = random.Random(7)  # noqa: S311 - which rows are read

    def requests(query: str) -> list[bytes]:
        made = []
        for _ in range(2_000):
            number = chosen.randrange(each)
            at = (START + number * MINUTE).strftime("%Y-%m-%dT%H:%M:30Z")
            path = f"/risk-hub/worlds/w{chosen.randrange(WORLDS)}/snapshots"
            made.append(get(path + query.format(number=number, at=at)))
        return made

    asked = {
        "lookup by version": "/lookup?version=v{number}&include_expired=true",
        "lookup by as_of": "/lookup?as_of={at}&include_expired=true",
        "lookup by as_of, one stage": "/lookup?as_of={at}&include_expired=true&stage=live",
        "lookup by as_of and known_at": "/lookup?as_of={at}&known_at={at}",
        "list of 50": "?limit=50&as_of_to={at}&include_expired=true",
        "list of what is alive": "?limit=50",
    }
    figures = {}
    with serving(database, redis) as port:
        for what, query in asked.items():
            load(port, 8, requests(query), 2.0)
            figures[what] = load(port, 1, requests(query), SECONDS).p50_ms
    return figures


def _fill(database: str, each: int) -> None:
    """A history of one snapshot a minute and world, all expired but the last ten of each."""
    began = time.perf_counter()
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        with _without_indices(connection):
            connection.execute("TRUNCATE snapshots, world_stages")
            connection.execute(
                """
                INSERT INTO snapshots (world_id, version, as_of, received_at, expires_at, stage,
                                       actor, digest, body)
                SELECT 'w' || world, 'v' || number, as_of, as_of + interval '1 second',
                       CASE WHEN number >= %(each)s - 10 THEN now() + interval '1 day'
                            ELSE as_of + interval '15 minutes' END,
                       CASE number %% 10 WHEN 0 THEN 'live' ELSE 'paper' END, 'bench',
                       'sha256:' || repeat(md5(number::text), 2),
                       '{"version":"v' || number || '","weights":{"' || repeat('S', 400) || '":1}}'
                FROM generate_series(0, %(each)s - 1) number,
                     generate_series(0, %(worlds)s - 1) world,
                     LATERAL (SELECT %(start)s + number * interval '1 minute' AS as_of) instant
                """,
                {"each": each, "worlds": WORLDS, "start": START},
            )
            connection.execute(
                """
                INSERT INTO world_stages (world_id, stage, newest_as_of, alive_until, stamp)
                SELECT world_id, stage, max(as_of), max(expires_at), 1 FROM snapshots
                GROUP BY world_id, stage
                """
            )
        connection.execute("VACUUM ANALYZE snapshots")
    print(f"reads: {each * WORLDS:,} rows made in {time.perf_counter() - began:.0f} s", flush=True)


@contextmanager
def _without_indices(connection: psycopg.Connection) -> Iterator[None]:
    """Make the rows first and the indices after, which takes a fraction of the time."""
    found = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'snapshots' "
        "AND indexname LIKE 'ix_%'"
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}")
    yield
    connection.execute("SET maintenance_work_mem = '1GB'")
    for _, definition in found:
        connection.execute(definition)


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
