"""The database as a file and back: `pg_dump` for Postgres, a copy for SQLite.

A dump is of one instant, and so are the references to blobs that are read beside it.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext

from riskhub.errors import RiskHubError
from riskhub.store.engine import one_state, reading, writing
from riskhub.store.tables import events, snapshot_blobs, snapshots

_PAGE = 10_000


class DumpFailed(RiskHubError):
    """The database was not dumped, or not loaded; the text says why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a database holds, to be held against what was restored."""

    revision: str | None
    snapshots: int
    newest_position: int
    newest_event: int


class Instant:
    """A database as of one instant, whatever is written meanwhile; see `instant`."""

    def __init__(self, connection: sa.Connection, snapshot: str | None) -> None:
        self._connection = connection
        self._snapshot = snapshot

    def figures(self) -> Figures:
        """What it holds."""
        return _figures(self._connection)

    def dump(self, file: Path) -> None:
        """Write it to a file. Raises `DumpFailed`."""
        if self._snapshot is None:
            held: Any = self._connection.connection.driver_connection
            with closing(sqlite3.connect(file)) as copy:
                held.backup(copy)  # what our transaction sees
            return
        # Rights are not part of it: `grants` has them.
        _run(
            self._connection.engine.url,
            *("pg_dump", "--format=custom", "--no-owner", "--no-privileges"),
            *(f"--snapshot={self._snapshot}", "--lock-wait-timeout=60s", f"--file={file}"),
        )

    def refs(self) -> Iterator[str]:
        """Each reference to a blob that its snapshots have, once, sorted."""
        after = ""
        while True:
            query = (
                sa.select(snapshot_blobs.c.ref)
                .distinct()
                .where(snapshot_blobs.c.ref > after)
                .order_by(snapshot_blobs.c.ref)
                .limit(_PAGE)
            )
            page = list(self._connection.execute(query).scalars())
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]


@contextmanager
def instant(engine: sa.Engine) -> Iterator[Instant]:
    """The database as it is now, held until the block is left. Raises `StoreUnavailable`."""
    with one_state(engine) as connection:
        if engine.dialect.name != "postgresql":
            connection.execute(sa.select(sa.func.max(snapshots.c.position)))  # it begins now
            yield Instant(connection, None)
            return
        # We hold it, and are idle meanwhile, for as long as the dump takes.
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        snapshot = connection.execute(sa.select(sa.func.pg_export_snapshot())).scalar_one()
        yield Instant(connection, snapshot)


def is_empty(engine: sa.Engine) -> bool:
    """Whether the database has no tables at all. Raises `StoreUnavailable`."""
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        return True
    with reading(engine) as connection:
        return not sa.inspect(connection).get_table_names()


def load(engine: sa.Engine, file: Path) -> Figures:
    """Fill an empty database from a dump of the same kind, wholly or not at all.

    Raises:
        DumpFailed: it is not empty, or what reads the dump refuses it.
    """
    if not is_empty(engine):
        raise DumpFailed("the database is not empty: a backup is restored into one that is")
    if engine.dialect.name == "sqlite":
        with (
            closing(sqlite3.connect(file)) as source,
            closing(sqlite3.connect(str(engine.url.database))) as target,
        ):
            source.backup(target)
    else:
        _run(
            engine.url,
            *("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner"),
            *("--no-privileges", str(file)),
        )
        with writing(engine) as connection:
            connection.execute(sa.text("ANALYZE"))  # a dump has no statistics
    return figures(engine)


def figures(engine: sa.Engine) -> Figures:
    """What the database holds now. Raises `StoreUnavailable`, `StoreNotMigrated`."""
    with one_state(engine) as connection:
        return _figures(connection)


def _figures(connection: sa.Connection) -> Figures:
    def one(what: sa.ColumnElement[int]) -> int:
        return connection.execute(sa.select(what)).scalar() or 0

    return Figures(
        MigrationContext.configure(connection).get_current_revision(),
        one(sa.func.count(snapshots.c.position)),
        one(sa.func.max(snapshots.c.position)),
        one(sa.func.max(events.c.sequence)),
    )


def _run(url: sa.URL, program: str, *words: str) -> None:
    """Run a client of Postgres on a database; the password goes where no list of processes is."""
    path = shutil.which(program)
    if path is None:
        raise DumpFailed(f"{program} is not installed: it comes with Postgres' client")
    environment = {**os.environ, "PGOPTIONS": "-c timezone=UTC"}
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    address = url._replace(drivername="postgresql", password=None)
    ran = subprocess.run(
        [path, *words, f"--dbname={address.render_as_string(hide_password=False)}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()]
        raise DumpFailed(f"{said[0] if said else f'{program} ended with {ran.returncode}'}")
