"""Who computes which days of a table: one run at a time, and a run that is tried again goes on.

A claim is held while days are read, computed and written, so that two runs (of the UI, the sensor,
the command line) never work on one day of a table side by side. It ends with its process. In
Postgres it is a session's advisory lock per day; SQLite has one writer anyway, and there it is a
lock on a file per table.
"""

import fcntl
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import sqlalchemy as sa

from riskhub.store.engine import reading, writing
from riskhub.store.tables import run_progress


class ClaimStore:
    """The claims on one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    def claim(self, table: str, days: Sequence[date]) -> Iterator[None]:
        """Hold days of a table, waiting for whoever holds one of them now, however long."""
        if self.engine.dialect.name == "postgresql":
            with reading(self.engine) as connection:
                _lock(connection, table, days)
                try:
                    yield
                finally:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        else:
            directory = Path(f"{self.engine.url.database}.claims")
            directory.mkdir(exist_ok=True)
            with (directory / table).open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def written_by(self, run_id: str, table: str) -> set[date]:
        """The days of a table that a run has written and is not done with."""
        with reading(self.engine) as connection:
            mine = run_progress.c.run_id == run_id, run_progress.c.table_name == table
            return set(connection.execute(sa.select(run_progress.c.day).where(*mine)).scalars())

    def days_noted(self, run_id: str) -> int:
        """How many days a run has written of the tables that it is not done with."""
        with reading(self.engine) as connection:
            mine = sa.select(sa.func.count()).where(run_progress.c.run_id == run_id)
            return connection.execute(mine.select_from(run_progress)).scalar_one()

    def forget_progress(self, run_id: str, table: str) -> None:
        """A run is done with a table: asked to do it again, it would begin at the beginning."""
        with writing(self.engine) as connection:
            mine = run_progress.c.run_id == run_id, run_progress.c.table_name == table
            connection.execute(sa.delete(run_progress).where(*mine))


def note_progress(connection: sa.Connection, run_id: str, table: str, days: Sequence[date]) -> None:
    """Note, in the transaction that writes them, that a run has written days of a table."""
    mine = run_progress.c.run_id == run_id, run_progress.c.table_name == table
    connection.execute(sa.delete(run_progress).where(*mine, run_progress.c.day.in_(days)))
    connection.execute(
        sa.insert(run_progress),
        [{"run_id": run_id, "table_name": table, "day": day} for day in days],
    )


def _lock(connection: sa.Connection, table: str, days: Sequence[date]) -> None:
    # A backfill may hold a day for longer than anybody should wait for a landing.
    connection.execute(sa.text("SET lock_timeout = 0"))
    try:
        named = zlib.crc32(table.encode()) - 2**31  # as a Postgres integer
        for day in sorted(days):  # one order for everybody, so two can't wait for each other
            connection.execute(sa.select(sa.func.pg_advisory_lock(named, day.toordinal())))
    finally:
        connection.execute(sa.text("RESET lock_timeout"))
