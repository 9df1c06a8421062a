"""A panel as a CSV: unquoted, oldest day first.

Date,AAPL,AMD
1990-01-02,0.264,4.125
"""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from riskhub.prices.panel import (
    NotAPanel,
    PricePanel,
    refuse_days_out_of_order,
    refuse_impossible,
    refuse_repeated,
)


def panel_of_csv(content: bytes) -> PricePanel:
    """The panel in a CSV; its digest is of these bytes.

    Raises:
        NotAPanel: a header other than `Date` and distinct symbols, rows of unequal length, days
            that are not ISO dates in strictly increasing order, prices that are not finite positive
            numbers.
    """
    symbols, days, prices = _parse(content)
    return PricePanel(symbols, days, prices, f"sha256:{hashlib.sha256(content).hexdigest()}")


def panel_of_gzipped_csv(content: bytes) -> PricePanel:
    """The same of a gzipped CSV; the digest is of the CSV. Raises `NotAPanel`."""
    try:
        return panel_of_csv(gzip.decompress(content))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise NotAPanel(f"not a whole gzip archive ({error})") from error


def _parse(content: bytes) -> tuple[tuple[str, ...], tuple[date, ...], NDArray[np.float64]]:
    try:
        header, *lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise NotAPanel(f"byte {error.start} is not ASCII") from error
    except ValueError as error:
        raise NotAPanel("it is empty") from error
    symbols = _symbols(header)
    for number, line in enumerate(lines, start=2):
        if line.count(",") != len(symbols):
            raise NotAPanel(f"line {number} has not {len(symbols) + 1} columns like the header")
    if not lines:
        raise NotAPanel("it has a header and no prices")
    rows = [line.partition(",") for line in lines]
    days = _days([day for day, _, _ in rows])
    return symbols, days, _prices([cells for _, _, cells in rows], days, symbols)


def _symbols(header: str) -> tuple[str, ...]:
    first, *symbols = header.split(",")
    if first != "Date" or not symbols or not all(symbols):
        raise NotAPanel("the header is not 'Date' followed by symbols")
    refuse_repeated(symbols)
    return tuple(symbols)


def _days(texts: Sequence[str]) -> tuple[date, ...]:
    try:
        days = tuple(map(date.fromisoformat, texts))
    except ValueError as error:
        raise NotAPanel(f"not a day: {error}") from error
    refuse_days_out_of_order(days)
    return days


def _prices(
    lines: Sequence[str], days: Sequence[date], symbols: Sequence[str]
) -> NDArray[np.float64]:
    for day, cells in zip(days, lines, strict=True):
        # A line that is blank as a whole, loadtxt would leave out without a word.
        if not all(cell and not cell.isspace() for cell in cells.split(",")):
            empty = [cell.strip() for cell in cells.split(",")].index("")
            raise NotAPanel(f"{symbols[empty]} on {day} has no price")
    try:
        prices = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise NotAPanel(f"not a price: {error}") from error
    refuse_impossible(prices, days, symbols)
    prices.setflags(write=False)
    return prices
