"""What Dagster's event log may forget, and forgetting it: Dagster itself has no purge.

Of a run that ended long ago its log lines go: what started, was loaded, took how long, was printed.
What it materialized, observed and checked stays, and when it began and how it ended: partitions,
checks, charts and run records are made of these. Deleting the run would make its partitions look
as if they had never been computed.

Runs are found by when they ended, from where the last pass has been up to, so that a night looks at
a day's runs however many there have been. SQLite keeps a file for each run, Postgres one table.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

KEPT = sorted(
    kind.value for kind in {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}
)
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
# Where passes note how far they are; Dagster keeps its daemons' cursors in the same place.
CURSOR = "riskhub/event_retention"
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class Pruned:
    """Of the runs that were looked at: rows and bytes of their logs, before and after.

    Bytes are those of files in SQLite; in Postgres those of the rows, whose room it uses again.
    """

    runs: int = 0
    rows_before: int = 0
    rows_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, more: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + more.runs,
            self.rows_before + more.rows_before,
            self.rows_after + more.rows_after,
            self.bytes_before + more.bytes_before,
            self.bytes_after + more.bytes_after,
        )


def prune(instance: dg.DagsterInstance, before: datetime) -> Pruned:
    """Forget the log lines of runs that ended before an instant, and what their steps printed.

    A pass that dies is gone on with by the next one; two at a time do no harm.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"no event log to prune in {type(storage).__name__}")
    noted = instance.daemon_cursor_storage.get_cursor_values({CURSOR}).get(CURSOR)
    done = Pruned()
    for run_ids in _ended(instance, datetime.fromisoformat(noted) if noted else None, before):
        if isinstance(storage, SqliteEventLogStorage):
            done += _prune_files(storage, run_ids)
        else:
            done += _prune_table(storage, run_ids)
        for run_id in run_ids:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.daemon_cursor_storage.set_cursor_values({CURSOR: before.isoformat()})
    return done


def stored_bytes(instance: dg.DagsterInstance) -> int | None:
    """How much room the event log takes; None where that can't be told."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        directory = Path(storage.path_for_shard("any")).parent
        return sum(map(_size, directory.iterdir()))
    if isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            if connection.dialect.name == "postgresql":
                size = sa.func.pg_total_relation_size(SqlEventLogStorageTable.name)
                return int(connection.execute(sa.select(size)).scalar_one())
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a write-ahead log whose last reader has left
        return 0


def _ended(
    instance: dg.DagsterInstance, since: datetime | None, before: datetime
) -> Iterator[Sequence[str]]:
    """Ids of finished runs whose records changed last in that time, some at a time."""
    ended = dg.RunsFilter(statuses=FINISHED, updated_after=since, updated_before=before)
    cursor: str | None = None
    while records := instance.get_run_records(filters=ended, limit=_CHUNK, cursor=cursor):
        yield [record.dagster_run.run_id for record in records]
        cursor = records[-1].dagster_run.run_id


def _prune_files(storage: SqliteEventLogStorage, run_ids: Sequence[str]) -> Pruned:
    done = Pruned(runs=len(run_ids))
    for run_id in run_ids:
        path = Path(storage.path_for_shard(run_id))
        if path.is_file():  # else asking for it would make one
            done += _prune_file(path)
    return done


def _prune_file(path: Path) -> Pruned:
    size = path.stat().st_size
    marks = ", ".join("?" * len(KEPT))
    count = "SELECT count(*) FROM event_logs"
    # A connection of our own: Dagster's begins a transaction, and inside of one nothing shrinks.
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        (rows,) = connection.execute(count).fetchone()
        forgotten = f"dagster_event_type IS NULL OR dagster_event_type NOT IN ({marks})"
        connection.execute(f"DELETE FROM event_logs WHERE {forgotten}", KEPT)  # noqa: S608
        (left,) = connection.execute(count).fetchone()
        if left < rows:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Pruned(0, rows, left, size, path.stat().st_size)


def _prune_table(storage: SqlEventLogStorage, run_ids: Sequence[str]) -> Pruned:
    table = SqlEventLogStorageTable
    of_these = table.c.run_id.in_(run_ids)
    kind = table.c.dagster_event_type
    size = sa.func.coalesce(sa.func.sum(sa.func.length(table.c.event)), 0)
    figures = sa.select(sa.func.count(), size).where(of_these)
    with storage.index_transaction() as connection:
        rows, before = connection.execute(figures).one()
        connection.execute(
            sa.delete(table).where(of_these, sa.or_(kind.is_(None), kind.not_in(KEPT)))
        )
        left, after = connection.execute(figures).one()
    return Pruned(len(run_ids), rows, left, before, after)
