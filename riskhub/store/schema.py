"""Bringing a database to the schema that this version of the code needs, with Alembic."""

from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from riskhub.errors import StoreNotMigrated
from riskhub.store.engine import reading, writing

_SCRIPTS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6D696772


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to the newest revision; nothing to do when it is there.

    Processes that start together wait for each other.
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # However long another one's migration takes, and its indices on millions of rows.
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_migrated(engine: sa.Engine) -> None:
    """Say so at once when the database is not at this code's revision.

    Raises:
        StoreNotMigrated: naming both revisions and what to do.
    """
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    wanted = _wanted_revision()
    if current != wanted:
        raise StoreNotMigrated(
            f"the database is at revision {current}, this code needs {wanted}: "
            "run `riskhub migrate`"
        )


@lru_cache
def _wanted_revision() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return config
