"""A panel out of columns: Parquet, wide or long, or the rows of a database.

Wide, a row per day: the day in the index that pandas wrote, else in the first column; each other
column is a symbol. Long, a row per day and symbol, in any order: three columns, by name.

Nothing is filled in. What was not there when another symbol had a price is refused, with the symbol
and the day.

The symbols of the panel are in the order of their names, and its digest covers the content alone:
sha256 of ``riskhub-panel/1``, the canonical JSON of the days (ISO) and symbols, each ended by a
newline, and the prices as little-endian doubles, a day after the other. So the same prices have the
same digest however their rows or columns were ordered, and in whichever of these sources they are.
"""

import hashlib
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from riskhub.digests import canonical_json
from riskhub.prices.panel import (
    NotAPanel,
    PricePanel,
    refuse_days_out_of_order,
    refuse_impossible,
    refuse_repeated,
)


def panel_of_parquet(content: bytes, day: str, symbol: str, price: str) -> PricePanel:
    """The panel in a Parquet file: long when it has these three columns, else wide.

    Raises:
        NotAPanel: no whole Parquet file, no day, a day that is not one or (wide) does not follow
            the one before, a symbol twice (on a day), a price that is missing or not finite and
            positive.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise NotAPanel(f"not a whole Parquet file ({_first_line(error)})") from error
    refuse_repeated(table.column_names)
    if {day, symbol, price} <= set(table.column_names):
        return _long(table[day], table[symbol], table[price])
    return _wide(table)


def panel_of_rows(rows: Sequence[Sequence[Any]]) -> PricePanel:
    """The panel in rows of day, symbol and price, in any order.

    A day is a date, a timestamp at midnight, or the ISO text of either. Raises `NotAPanel`.
    """
    if not rows:
        raise NotAPanel("it has no prices")
    try:
        days, symbols, prices = (pa.chunked_array([column]) for column in zip(*rows, strict=True))
    except pa.ArrowException as error:
        raise NotAPanel(f"its columns are mixed ({_first_line(error)})") from error
    return _long(days, symbols, prices)


def _wide(table: pa.Table) -> PricePanel:
    day = _day_column(table)
    symbols = sorted(name for name in table.column_names if name != day)
    if not symbols or not table.num_rows:
        raise NotAPanel("it has no prices")
    days = _days(table[day])
    refuse_days_out_of_order(days)
    prices = np.empty((len(days), len(symbols)))
    for column, symbol in enumerate(symbols):
        values = _prices(table[symbol], f"the column {symbol}")
        _refuse_null(values, days, [symbol] * len(days))
        prices[:, column] = values.to_numpy()
    return _panel(symbols, days, prices)


def _day_column(table: pa.Table) -> str:
    """The index that pandas wrote, which stands last; else the first column."""
    of_pandas = (table.schema.pandas_metadata or {}).get("index_columns", [])
    stored = [name for name in of_pandas if isinstance(name, str)]  # a range is not stored
    return str(stored[0] if stored else table.column_names[0])


def _long(day: pa.ChunkedArray, symbol: pa.ChunkedArray, price: pa.ChunkedArray) -> PricePanel:
    if not len(day):
        raise NotAPanel("it has no prices")
    row_days, row_symbols = _days(day), _texts(symbol)
    prices = _prices(price, "the price")
    _refuse_null(prices, row_days, row_symbols)
    days, rows = np.unique(np.array(row_days, dtype="datetime64[D]"), return_inverse=True)
    symbols, columns = np.unique(np.array(row_symbols, dtype=object), return_inverse=True)
    panel_days = days.astype(object).tolist()
    found = np.zeros((len(days), len(symbols)), dtype=np.int64)
    np.add.at(found, (rows, columns), 1)
    for wrong, what in ((found > 1, "several prices"), (found == 0, "no price")):
        if wrong.any():
            at_day, at_symbol = np.argwhere(wrong)[0]
            raise NotAPanel(f"{symbols[at_symbol]} on {panel_days[at_day]} has {what}")
    ordered = np.empty(found.shape)
    ordered[rows, columns] = prices.to_numpy()
    return _panel(symbols.tolist(), panel_days, ordered)


def _panel(symbols: Sequence[str], days: Sequence[date], prices: NDArray[np.float64]) -> PricePanel:
    refuse_impossible(prices, days, symbols)
    prices.setflags(write=False)
    named = {"days": [day.isoformat() for day in days], "symbols": list(symbols)}
    content = hashlib.sha256(b"riskhub-panel/1\n" + canonical_json(named) + b"\n")
    content.update(prices.astype("<f8").tobytes())
    return PricePanel(tuple(symbols), tuple(days), prices, f"sha256:{content.hexdigest()}")


def _days(column: pa.ChunkedArray) -> list[date]:
    """Each row's day. Every distinct value is looked at once: a long table repeats them."""
    if pa.types.is_timestamp(column.type):
        # Of nanoseconds, pyarrow would make timestamps of pandas.
        column = _cast(column, pa.timestamp("us", column.type.tz), "a day")
    elif pa.types.is_date64(column.type):
        column = _cast(column, pa.date32(), "a day")
    elif not (pa.types.is_date32(column.type) or _is_text(column.type)):
        raise NotAPanel(f"the days are of type {column.type}")
    distinct = column.combine_chunks().dictionary_encode()
    if distinct.null_count:
        raise NotAPanel("a row has no day")
    known = [_day(value) for value in distinct.dictionary.to_pylist()]
    return [known[index] for index in distinct.indices.to_pylist()]


def _day(value: date | str) -> date:
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise NotAPanel(f"not a day: {error}") from error
    if not isinstance(read, datetime):
        return read
    if read.time() != time.min:
        raise NotAPanel(f"not a day: {value}")
    return read.date()


def _texts(column: pa.ChunkedArray) -> list[str]:
    if not _is_text(column.type):
        raise NotAPanel(f"the symbols are of type {column.type}")
    if column.null_count or pc.any(pc.equal(column.cast(pa.string()), "")).as_py():
        raise NotAPanel("a row has no symbol")
    texts: list[str] = column.cast(pa.string()).to_pylist()
    return texts


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # a categorical of pandas
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _prices(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """As doubles, nulls kept."""
    if pa.types.is_decimal(column.type):
        # Python rounds a decimal to the nearest double; Arrow may be a bit beside it.
        numbers = [None if value is None else float(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(numbers, pa.float64())])
    if pa.types.is_null(column.type):
        return _cast(column, pa.float64(), what)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise NotAPanel(f"{what} is of type {column.type}, not a number")
    return _cast(column, pa.float64(), what)


def _cast(column: pa.ChunkedArray, kind: pa.DataType, what: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise NotAPanel(f"{what} can't be read ({_first_line(error)})") from error


def _refuse_null(prices: pa.ChunkedArray, days: Sequence[date], symbols: Sequence[str]) -> None:
    if prices.null_count:
        row = pc.index(pc.is_null(prices), True).as_py()
        raise NotAPanel(f"{symbols[row]} on {days[row]} has no price")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
