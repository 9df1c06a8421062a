"""The price panel: the hub's default source of daily returns.

Here belong reading a price file, refusing a bad one, and cutting windows of returns out of it.
What is computed from the returns belongs in `riskhub.risk`.

A price file is a CSV, plain or gzipped, unquoted, oldest day first:

    Date,AAPL,AMD
    1990-01-02,0.264,4.125
"""

import gzip
import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riskhub.errors import RiskHubError

# The longest the exchange stayed shut in the years of the panel (September 2001). A date further
# on than this is asked of a panel that has ended, not of one that waits for a holiday to pass.
LONGEST_CLOSURE = timedelta(days=7)


class PriceFileError(RiskHubError):
    """A price file cannot be used."""


class PriceFileMissing(PriceFileError):
    """There is no file where the price file should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"price file {path} is missing")
        self.path = path


class PriceFileCorrupt(PriceFileError):
    """The price file is there, and what it holds is not a price panel."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"price file {path} is corrupt: {reason}")
        self.path = path
        self.reason = reason


class UnknownSymbol(RiskHubError):
    """Symbols were asked for that the panel has no prices of."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(f"no prices for {', '.join(missing)}")
        self.missing = tuple(missing)


class PanelEnded(RiskHubError):
    """A day was asked for that lies too far behind the last day of the panel."""

    def __init__(self, last_day: date, asked: date) -> None:
        super().__init__(f"prices end on {last_day}, {(asked - last_day).days} days before {asked}")
        self.last_day = last_day
        self.asked = asked


@dataclass(frozen=True)
class PricePanel:
    """Daily closing prices, oldest day first. Its arrays are read-only.

    `symbols`: N distinct names. `days`: T trading days, strictly increasing. `prices`: (T, N),
    finite and positive, in the file's currency. `digest`: `sha256:<hex>` of the uncompressed CSV.
    """

    symbols: tuple[str, ...]
    days: tuple[date, ...] = field(repr=False)
    prices: NDArray[np.float64] = field(repr=False, compare=False)  # the digest stands for them
    digest: str

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """(T-1, N) simple daily returns p[t] / p[t-1] - 1; row i belongs to `return_days[i]`."""
        returns = self.prices[1:] / self.prices[:-1] - 1.0
        returns.setflags(write=False)
        return returns

    @cached_property
    def return_days(self) -> tuple[date, ...]:
        """The T-1 days that have a return: every trading day but the first."""
        return self.days[1:]

    def columns(self, symbols: Sequence[str]) -> list[int]:
        """The column of each symbol, in the order asked. Raises `UnknownSymbol`."""
        missing = [symbol for symbol in symbols if symbol not in self._column_of]
        if missing:
            raise UnknownSymbol(missing)
        return [self._column_of[symbol] for symbol in symbols]

    def window(self, symbols: Sequence[str], end: date, length: int) -> NDArray[np.float64]:
        """The simple returns of the last `length` trading days up to and including `end`.

        When `end` is no trading day, the last one before it closes the window. Gives (n, N) with
        n <= length: fewer rows, down to none, where the panel does not reach back far enough.
        Columns follow `symbols`.

        Raises `PanelEnded` when `end` is more than 7 calendar days after the panel's last day, so
        that an old panel never passes for today's, `UnknownSymbol`, and ValueError for a length
        below 1.
        """
        if length < 1:
            raise ValueError(f"a window has at least one day, not {length}")
        if end - self.days[-1] > LONGEST_CLOSURE:
            raise PanelEnded(self.days[-1], end)
        columns = self.columns(symbols)
        stop = bisect_right(self.return_days, end)
        return np.take(self.returns[max(0, stop - length) : stop], columns, axis=1)

    def next_trading_day(self, after: date) -> date | None:
        """The first trading day strictly after `after`; None where the panel has none."""
        position = bisect_right(self.days, after)
        return self.days[position] if position < len(self.days) else None

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {symbol: column for column, symbol in enumerate(self.symbols)}


def load_panel(path: Path) -> PricePanel:
    """The panel in a `.csv.gz` or `.csv` file, complete or not at all.

    Raises `PriceFileMissing`, and `PriceFileCorrupt` for a damaged archive, a header other than
    `Date` and distinct symbols, rows of unequal length, days that are not ISO dates in strictly
    increasing order, and prices that are not finite positive numbers.
    """
    content = _read(path)
    try:
        symbols, days, prices = _parse(content)
    except _NotAPanel as refusal:
        raise PriceFileCorrupt(path, str(refusal)) from refusal
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return PricePanel(symbols, days, prices, digest)


class _NotAPanel(Exception):
    """Why some bytes are not a price panel; `load_panel` adds which file they came from."""


def _read(path: Path) -> bytes:
    try:
        stored = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise PriceFileMissing(path) from error
    if path.suffix != ".gz":
        return stored
    try:
        return gzip.decompress(stored)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PriceFileCorrupt(path, f"not a whole gzip archive ({error})") from error


def _parse(content: bytes) -> tuple[tuple[str, ...], tuple[date, ...], NDArray[np.float64]]:
    try:
        header, *lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise _NotAPanel(f"byte {error.start} is not ASCII") from error
    except ValueError as error:
        raise _NotAPanel("it is empty") from error
    symbols = _symbols(header)
    for number, line in enumerate(lines, start=2):
        if line.count(",") != len(symbols):
            raise _NotAPanel(f"line {number} has not {len(symbols) + 1} columns like the header")
    if not lines:
        raise _NotAPanel("it has a header and no prices")
    rows = [line.partition(",") for line in lines]
    days = _days([day for day, _, _ in rows])
    return symbols, days, _prices([cells for _, _, cells in rows], days, symbols)


def _symbols(header: str) -> tuple[str, ...]:
    first, *symbols = header.split(",")
    if first != "Date" or not symbols or not all(symbols):
        raise _NotAPanel("the header is not 'Date' followed by symbols")
    twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if twice:
        raise _NotAPanel(f"duplicate columns {', '.join(twice)}")
    return tuple(symbols)


def _days(texts: Sequence[str]) -> tuple[date, ...]:
    try:
        days = tuple(map(date.fromisoformat, texts))
    except ValueError as error:
        raise _NotAPanel(f"not a day: {error}") from error
    for earlier, later in pairwise(days):
        if later <= earlier:
            raise _NotAPanel(f"{later} follows {earlier}: days must increase")
    return days


def _prices(
    lines: Sequence[str], days: Sequence[date], symbols: Sequence[str]
) -> NDArray[np.float64]:
    try:
        prices = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise _NotAPanel(f"not a price: {error}") from error
    bad = np.argwhere(~(np.isfinite(prices) & (prices > 0)))
    if bad.size:
        row, column = bad[0]
        price = prices[row, column]
        raise _NotAPanel(f"{symbols[column]} on {days[row]} has the price {price:g}")
    prices.setflags(write=False)
    return prices
