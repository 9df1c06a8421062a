"""A long history in a database: snapshots, and what is made from each, in a few minutes.

A hundred worlds post every fifteen minutes, 9,600 snapshots a day, each judged, weighed, measured
and stressed, and told of in the outbox; all have expired but the last ten of each world. A day is
as large in a history of 100 thousand as in one of 10 million.
"""
# ruff: noqa: S608 - statements are made of our own names

import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import psycopg

from riskhub.controlbus.events import SNAPSHOT_UPDATED

WORLDS = 100
EVERY = timedelta(minutes=15)
PER_DAY = WORLDS * (timedelta(days=1) // EVERY)
START = datetime(2020, 1, 1, tzinfo=UTC)
ALIVE = 10  # of each world
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS = {
    "snapshots": "position, world_id, version, as_of, received_at, expires_at, stage, actor, "
    "digest, body",
    "events": "type, key, position",
    "validated_snapshots": "position, day, world_id, version, as_of, stage, digest, accepted, "
    "reasons, flags, evidence, schema_version",
    "snapshot_weights": "position, symbol, day, world_id, weight",
    "risk_metrics": 'position, day, world_id, version, as_of, stage, horizon_days, "window", n, '
    "gross, net, largest, herfindahl, effective_names, snapshot_digest, passed_over, absent, "
    "code_version",
    "snapshot_stress": "position, day, world_id, version, as_of, stage, book_digest, "
    "snapshot_digest, prices_digest, loss_limit, code_version",
}
_SNAPSHOTS = """
    SELECT number + 1, 'w' || number %% {worlds}, 'v' || number / {worlds}, as_of,
           as_of + interval '1 second',
           CASE WHEN number >= {rows} - {alive} THEN now() + interval '1 day'
                ELSE as_of + interval '15 minutes' END,
           CASE number %% 10 WHEN 0 THEN 'live' ELSE 'paper' END, 'bench',
           'sha256:' || repeat(md5(number::text), 2),
           '{{"version":"v' || number || '","weights":{{"' || repeat('S', 150) || '":1}}}}'
    FROM generate_series(0::bigint, {rows} - 1) number,
         LATERAL (
             SELECT %(start)s::timestamptz + number / {worlds} * interval '15 minutes' AS as_of
         ) instant
"""
_OF_EACH = "position, (as_of AT TIME ZONE 'UTC')::date, world_id, version, as_of, stage"
_MADE = {
    "events": f"SELECT '{SNAPSHOT_UPDATED}', world_id, position FROM snapshots ORDER BY position",
    "validated_snapshots": f"SELECT {_OF_EACH}, digest, true, '[]', '[]', null, '1' FROM snapshots",
    "snapshot_weights": "SELECT position, 'S', (as_of AT TIME ZONE 'UTC')::date, world_id, 1 "
    "FROM snapshots",
    "risk_metrics": f"SELECT {_OF_EACH}, 1, 500, 500, 1, 1, 1, 1, 1, digest, '{{}}', '{{}}', '1' "
    "FROM snapshots",
    "snapshot_stress": f"SELECT {_OF_EACH}, 'sha256:0', digest, 'sha256:0', 0.1, '1' "
    "FROM snapshots",
}
_WORLD_STAGES = (
    "INSERT INTO world_stages (world_id, stage, newest_as_of, alive_until, stamp) "
    "SELECT world_id, stage, max(as_of), max(expires_at), 1 FROM snapshots GROUP BY world_id, stage"
)


def fill(database: str, rows: int) -> float:
    """Make so many snapshots, and what belongs to them, in an empty database; seconds it took."""
    began = time.perf_counter()
    if database.startswith("sqlite"):
        _fill_sqlite(database.removeprefix("sqlite:///"), rows)
    else:
        _fill_postgres(database.replace("+psycopg", ""), rows)
    return time.perf_counter() - began


def days_of(rows: int) -> Sequence[date]:
    """The whole days of a history of so many."""
    return [START.date() + timedelta(days=number) for number in range(rows // PER_DAY)]


# -- Postgres: the rows first and their keys and indices after, a fraction of the time ------------


def _fill_postgres(url: str, rows: int) -> None:
    values = {"worlds": WORLDS, "rows": rows, "alive": ALIVE * WORLDS}
    with psycopg.connect(url, autocommit=True) as connection:
        again = _dropped(connection)
        insert = f"INSERT INTO snapshots ({_COLUMNS['snapshots']}) {_SNAPSHOTS.format(**values)}"
        connection.execute(insert, {"start": START})
    with ThreadPoolExecutor(2) as two:
        made = [f"INSERT INTO {name} ({_COLUMNS[name]}) {how}" for name, how in _MADE.items()]
        list(two.map(lambda statement: _run(url, statement), [*made, _WORLD_STAGES]))
        list(two.map(lambda statements: _run(url, *statements), again))
        list(two.map(lambda table: _run(url, f"VACUUM ANALYZE {table}"), _COLUMNS))
    next_position = "SELECT setval(pg_get_serial_sequence('snapshots', 'position'), %s)"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(next_position, (rows,))
        connection.execute("CHECKPOINT")


def _dropped(connection: psycopg.Connection) -> list[list[str]]:
    """Drop keys and indices; for each table how to make them again."""
    again = []
    for table in _COLUMNS:
        keys = connection.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
            (table,),
        ).fetchall()
        indices = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (table,)
        ).fetchall()
        constraints = {name for name, _ in keys}
        made = [f"ALTER TABLE {table} ADD CONSTRAINT {name} {how}" for name, how in keys]
        for name, _ in keys:
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        for name, how in indices:
            if name not in constraints:
                connection.execute(f"DROP INDEX {name}")
                made.append(how)
        again += [[statement] for statement in made]
    return again


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        for statement in statements:
            connection.execute(statement)


# -- SQLite ---------------------------------------------------------------------------------------


def _fill_sqlite(path: str, rows: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        indices = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
            f"AND tbl_name IN ({', '.join(repr(table) for table in _COLUMNS)})"
        ).fetchall()
        for name, _ in indices:
            connection.execute(f"DROP INDEX {name}")
        each = _rows(rows)
        while some := list(islice(each, 50_000)):
            for table, columns in _COLUMNS.items():
                marks = ", ".join("?" * (columns.count(",") + 1))
                connection.executemany(
                    f"INSERT INTO {table} ({columns}) VALUES ({marks})",
                    [row[table] for row in some],
                )
        connection.execute(_WORLD_STAGES)
        for _, how in indices:
            connection.execute(how)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")


def _rows(count: int) -> Iterator[dict[str, tuple[Any, ...]]]:
    alive_until = _microseconds(datetime.now(UTC) + timedelta(days=1))
    minute = timedelta(minutes=1)
    for number in range(count):
        as_of = START + number // WORLDS * EVERY
        at, day = _microseconds(as_of), as_of.date().isoformat()
        world, version = f"w{number % WORLDS}", f"v{number // WORLDS}"
        stage = "live" if number % 10 == 0 else "paper"
        expires = _microseconds(as_of + 15 * minute)
        if number >= count - ALIVE * WORLDS:
            expires = alive_until
        position, digest = number + 1, f"sha256:{number:064d}"
        body = f'{{"version":"{version}","weights":{{"{"S" * 150}":1}}}}'
        of_it = (position, day, world, version, at, stage)
        yield {
            "snapshots": (position, world, version, at, at + 1_000_000, expires, stage, "bench",
                          digest, body),
            "events": (SNAPSHOT_UPDATED, world, position),
            "validated_snapshots": (*of_it, digest, True, "[]", "[]", None, "1"),
            "snapshot_weights": (position, "S", day, world, 1.0),
            "risk_metrics": (*of_it, 1, 500, 500, 1, 1, 1, 1, 1, digest, "{}", "{}", "1"),
            "snapshot_stress": (*of_it, "sha256:0", digest, "sha256:0", 0.1, "1"),
        }  # fmt: skip


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
