"""How the database is reached: one engine per process, the same promises from both databases.

A transaction that writes says so before it begins. In SQLite it then takes the write lock at once
(``BEGIN IMMEDIATE``), so two writers wait for each other instead of failing half way.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from riskhub.errors import DatabaseUrlInvalid, StoreNotMigrated, StoreUnavailable

SQLITE_BUSY_TIMEOUT_SEC = 30
LOCK_TIMEOUT_SEC = 30
# A client whose machine was cut off says no goodbye, and its session may hold the claim on a day:
# by default the server would ask after two hours. Asked so, it ends the session after 10 + 3 * 5 s
# of silence, or when something it sent has not been taken for 20 s. (These are the server's side of
# the connection; `keepalives_*` below are ours.)
CUT_OFF_SESSION_ENDS_SEC = 25
_SERVER_ASKS = (
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=20s"
)
MOST_CONNECTIONS = 8
_WRITES = "riskhub_writes"
_PAUSE_SEC = 0.5


def create_engine(url: str, *, most_connections: int = MOST_CONNECTIONS) -> sa.Engine:
    """An engine for ``sqlite:///path`` or ``postgresql+psycopg://...``; opens no connection.

    A plain ``postgresql://`` is taken as psycopg 3.

    Args:
        most_connections: to a Postgres; who wants one more waits. Each is opened when it is
            needed first, and stays.

    Raises:
        DatabaseUrlInvalid: it is no URL, or names another database; it isn't repeated, for it may
            hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise DatabaseUrlInvalid("the database URL can't be read as one") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise DatabaseUrlInvalid(
            f"the database URL begins with {parsed.drivername}://; riskhub uses sqlite:// or "
            "postgresql+psycopg://"
        )
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            parsed, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SEC}, hide_parameters=True
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # hide_parameters: an error's text is logged, and they are payloads.
    # A transaction that its client forgot would hold the landing lock: the server ends it. And
    # whoever waits for the lock, or for a server that the network lost, is told after a while.
    engine = sa.create_engine(
        parsed,
        hide_parameters=True,
        pool_size=most_connections,
        # One that is closed when it comes back doesn't wake who waits for it: he would wait on,
        # up to the timeout, with room for him.
        max_overflow=0,
        pool_timeout=10,
        connect_args={
            # For whoever counts them in pg_stat_activity; PGAPPNAME says it more exactly.
            "fallback_application_name": "riskhub",
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=30s"
            f" -c lock_timeout={LOCK_TIMEOUT_SEC}s{_SERVER_ASKS}",
        },
    )
    event.listen(engine, "checkin", _note_time)
    event.listen(engine, "checkout", _ping_after_a_pause)
    return engine


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """To read from: each statement sees what was committed before it."""
    with (
        named_failures(),
        # In Postgres a transaction would say the same, in three round trips instead of one.
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        yield connection


@contextmanager
def one_state(engine: sa.Engine) -> Iterator[sa.Connection]:
    """To read from: every statement sees what was committed before the first."""
    # In SQLite any transaction does.
    level = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with (
        named_failures(),
        engine.connect().execution_options(**level) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes: commits at the end, leaves nothing behind on an error."""
    with (
        named_failures(),
        engine.connect().execution_options(**{_WRITES: True}) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def named_failures() -> Iterator[None]:
    """What the database does not do now, as one of our own failures."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("every database connection is busy") from error
    # Internal: Postgres ended an idle transaction, or is a read-only stand-by after a failover.
    except (OperationalError, InterfaceError, InternalError) as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        if "no such table" in reason:
            raise StoreNotMigrated(f"{reason}: run `riskhub migrate`") from error
        raise StoreUnavailable(f"the database can't be used now: {reason}") from error
    except DBAPIError as error:
        if type(error.orig).__name__ == "UndefinedTable":
            raise StoreNotMigrated("the tables are missing: run `riskhub migrate`") from error
        raise


def clock_of(engine: sa.Engine) -> datetime:
    """The time of a Postgres, as an aware instant; SQLite's is this machine's."""
    with reading(engine) as connection:
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now


def _note_time(_dbapi_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_after_a_pause(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
    """A Postgres that was restarted costs a retry inside the pool, not an error to a producer.

    Under load the connections are in use when it goes, and the pool hears of it anyway: a ping
    each time would double the round trips.
    """
    if time.monotonic() - record.info.get("used", time.monotonic()) < _PAUSE_SEC:
        return
    try:
        dbapi_connection.execute("")
        dbapi_connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


def _configure_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # Transactions are begun by us (`_begin_sqlite`), not by the driver at the first write.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    _switch_to_wal(cursor)  # readers never wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # a 2xx is on the disk
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Wait for others that open the same new database: SQLite refuses this one switch at once."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_SEC
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
