"""Many rows at once, in a transaction of the caller: COPY on Postgres, columns at once on SQLite.

SQLAlchemy takes each row of many apart by itself, and Postgres answers each for itself: both take
longer than storing the row does.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from psycopg import sql

# With fewer than these the three round trips of a COPY cost more than they save.
_LEAST_TO_COPY = 8
# SQLite: rows whose columns are held beside them at a time.
_CHUNK = 5_000


def add_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, which all have the same columns, as the last of what the caller gave.

    Raises:
        sqlalchemy.exc.IntegrityError: a row is there already, or is not complete; the transaction
            is to be given up.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        for start in range(0, len(rows), _CHUNK):
            _insert(connection, table, rows[start : start + _CHUNK])
    elif len(rows) < _LEAST_TO_COPY:
        connection.execute(sa.insert(table), list(rows))
    else:
        _copy(connection, table, rows)


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    compiled = sa.insert(table).compile(dialect=connection.dialect, column_keys=list(rows[0]))
    columns = _columns(connection.dialect, table, rows, compiled.positiontup or ())
    connection.exec_driver_sql(str(compiled), list(zip(*columns, strict=True)))


def _copy(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(rows[0])
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    columns = _columns(connection.dialect, table, rows, names)
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in zip(*columns, strict=True):
                copy.write_row(row)
    except psycopg.Error as error:
        # As SQLAlchemy tells of its own statements, and as the pool is to know.
        if connection.dialect.is_disconnect(error, driver, None):  # type: ignore[arg-type]
            connection.invalidate(error)
        raise sa.exc.DBAPIError.instance(
            statement.as_string(),
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            dialect=connection.dialect,
        ) from error


def _columns(
    dialect: sa.Dialect, table: sa.Table, rows: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> list[Iterable[Any]]:
    """The values of each column, as the driver takes them."""
    columns: list[Iterable[Any]] = []
    for name in names:
        convert = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        values = map(itemgetter(name), rows)
        columns.append(map(convert, values) if convert else values)
    return columns
