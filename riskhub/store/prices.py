"""Prices in a table that is not ours to write: of the hub's own database, or of another one.

What the rows have to be like is decided in `riskhub.prices`; here they are only read.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from riskhub.errors import DatabaseUrlInvalid, RiskHubError
from riskhub.store.engine import reading

_CONNECT_TIMEOUT_SEC = 5


class TableUnreadable(RiskHubError):
    """The database answers, but not with these columns of this table; the text says why."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """How a table of prices is called, with its schema if it needs one, and its columns."""

    name: str
    day: str
    symbol: str
    price: str

    def _columns(self) -> tuple[sa.ColumnClause[Any], ...]:
        schema, _, name = self.name.rpartition(".")
        names = (self.day, self.symbol, self.price)
        table = sa.table(name, *map(sa.column, names), schema=schema or None)
        return tuple(table.c[name] for name in names)


def price_rows(url: str, table: PriceTable) -> Sequence[sa.Row[Any]]:
    """Every day, symbol and price, in any order, as one statement sees them.

    Raises:
        StoreUnavailable: the database can't be reached.
        StoreNotMigrated: it has no such table.
        TableUnreadable: the table has other columns, or may not be read.
        DatabaseUrlInvalid: the URL is none, or nobody here can speak to such a database.
    """
    with _connection(url) as connection:
        return connection.execute(sa.select(*table._columns())).all()


def price_fingerprint(url: str, table: PriceTable) -> str:
    """Another text once a day was added, removed or corrected. Raises like `price_rows`."""
    day, _, price = table._columns()
    query = sa.select(sa.func.count(), sa.func.max(day), sa.func.sum(price))
    with _connection(url) as connection:
        count, newest, total = connection.execute(query).one()
        return f"{count}-{newest}-{total}"


@contextmanager
def _connection(url: str) -> Iterator[sa.Connection]:
    engine = _engine(url)
    try:
        with reading(engine) as connection:
            yield connection
    except sa.exc.DBAPIError as error:  # no such column, no right to read
        reason = str(error.orig).strip().splitlines()[0]
        raise TableUnreadable(reason) from error
    finally:
        engine.dispose()


def _engine(url: str) -> sa.Engine:
    """Of whatever database there is a driver for; asked seldom, so no connection is kept."""
    # From none of them is raised: their texts may hold the URL.
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise DatabaseUrlInvalid("the database URL can't be read as one") from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {"poolclass": sa.NullPool, "hide_parameters": True}
    if parsed.get_backend_name() == "postgresql":
        options["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT_SEC}
    elif parsed.get_backend_name() == "sqlite" and parsed.database:
        options["creator"] = _read_only(Path(parsed.database))
    try:
        return sa.create_engine(parsed, **options)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError):
        raise DatabaseUrlInvalid(f"there is no driver for {parsed.drivername}://") from None


def _read_only(path: Path) -> Any:
    """Connects to a SQLite file that must be there: an ordinary connection would make it."""
    return lambda: sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
