"""Bringing a database to the schema that this version of the code needs, with Alembic."""

import time
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable

from riskhub.errors import RevisionUnknown, StoreNotMigrated, StoreUnavailable
from riskhub.store.engine import named_failures, reading, writing
from riskhub.store.tables import schema_floor

_SCRIPTS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6D696772
# A statement that waits for a table keeps everybody who comes after it waiting, too: so it gives up
# soon, lets them pass, and tries again.
_LOCK_TIMEOUT_SEC = 2
_ATTEMPTS = 30
_PAUSE_SEC = 1.0
NEWEST = "head"
OLDEST_SCHEMA = "0010"
"""The oldest revision of a database that this code works with. What came since it can do without:
a table or column that it can't is added by a release before the one that asks for it."""


def migrate(engine: sa.Engine, to: str = NEWEST) -> None:
    """Bring the schema to a revision, forward or back; nothing to do when it is there.

    Processes that start together wait for each other. In Postgres each revision is a transaction
    of its own, and those who read and write go on meanwhile; in SQLite all of them are one.

    Raises:
        RevisionUnknown: this code has no such revision, or does not know that of the database.
        StoreUnavailable: somebody holds a table for longer than we try; safe to try again.
    """
    if engine.dialect.name == "sqlite":
        with writing(engine) as connection:
            _go(connection, to)
        return
    with reading(engine) as holder:
        # However long another one's migration takes, and its indices on millions of rows.
        holder.execute(sa.text("SET lock_timeout = 0"))
        holder.execute(sa.select(sa.func.pg_advisory_lock(_MIGRATION_LOCK)))
        try:
            _go_when_let(engine, to)
        finally:
            holder.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION_LOCK)))
            holder.execute(sa.text("RESET lock_timeout"))


def _go_when_let(engine: sa.Engine, to: str) -> None:
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            with named_failures(), engine.connect() as connection:
                connection.execute(sa.text(f"SET lock_timeout = '{_LOCK_TIMEOUT_SEC}s'"))
                connection.commit()
                try:
                    _go(connection, to)
                finally:
                    connection.rollback()
                    connection.execute(sa.text("RESET lock_timeout"))
                    connection.commit()
            return
        except StoreUnavailable as error:
            if not (_is_lock_timeout(error) and attempts_left):
                raise
        time.sleep(_PAUSE_SEC)


def _is_lock_timeout(error: StoreUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, sa.exc.DBAPIError) and isinstance(cause.orig, LockNotAvailable)


def _go(connection: sa.Connection, to: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    if connection.dialect.name == "postgresql":
        connection.rollback()  # Alembic begins and ends transactions only where none has begun
    known = _known_revisions()
    wanted = known[0] if to == NEWEST else to
    for revision, whose in ((current, "the database's"), (wanted, "the wanted")):
        if revision is not None and revision not in known:
            raise RevisionUnknown(
                f"this version of riskhub doesn't know {whose} revision {revision}: its newest is "
                f"{known[0]}"
            )
    if current is not None and known.index(wanted) > known.index(current):
        command.downgrade(config, wanted)
    else:
        command.upgrade(config, wanted)


def check_migrated(engine: sa.Engine) -> None:
    """Say so at once when this code does not work with the database as it is.

    It does with its own revision, with older ones back to `OLDEST_SCHEMA`, and with newer ones as
    long as they say so: so processes go on while the schema moves, and are replaced one by one.

    Raises:
        StoreNotMigrated: naming both revisions and what to do.
    """
    newest, known = _known_revisions()[0], _known_revisions()
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current in known[: known.index(OLDEST_SCHEMA) + 1]:
            return
        if current is None or current in known:
            raise StoreNotMigrated(
                f"the database is at revision {current}, this code needs {newest}: "
                "run `riskhub migrate`"
            )
        works_with = connection.execute(sa.select(schema_floor.c.code_revision)).scalar()
        if works_with not in known:
            raise StoreNotMigrated(
                f"the database is at revision {current}, which works with code of revision "
                f"{works_with} and later; this is {newest}: run a later version of riskhub"
            )


@lru_cache
def _known_revisions() -> tuple[str, ...]:
    """Those of this code, the newest first."""
    scripts = ScriptDirectory.from_config(_config())
    return tuple(script.revision for script in scripts.walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return config
