"""A database at this code's schema, without the whole history of the schema each time.

Each migration costs a new database some hundredths of a second, and most tests want one. So the
first of a process is migrated; later ones of SQLite are its copy, and those of Postgres get, in one
message, the statements that it got. What is about migrations calls `riskhub.store.migrate`.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from riskhub import store
from riskhub.store import create_engine


def migrate(engine: sa.Engine) -> None:
    """As `riskhub.store.migrate`, and sooner where there is nothing yet."""
    if engine.dialect.name == "sqlite":
        assert engine.url.database
        path = Path(engine.url.database)
        if path.exists():
            store.migrate(engine)
        else:
            shutil.copyfile(_sqlite(), path)
    elif sa.inspect(engine).get_table_names():
        store.migrate(engine)
    elif _postgres:
        with engine.begin() as connection:
            connection.exec_driver_sql(";".join(_postgres))
    else:
        _migrate_listening(engine)


@cache
def _sqlite() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="riskhub-test-sqlite-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    engine = create_engine(f"sqlite:///{directory / 'hub.db'}")
    store.migrate(engine)
    engine.dispose()  # its log is written into the file by that
    return directory / "hub.db"


_postgres: list[str] = []


def _migrate_listening(engine: sa.Engine) -> None:
    said: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        # With parameters it asks, or moves what a new database doesn't have.
        if not parameters:
            said.append(statement)

    sa.event.listen(engine, "before_cursor_execute", listen)
    store.migrate(engine)
    sa.event.remove(engine, "before_cursor_execute", listen)
    _postgres.extend(said)
