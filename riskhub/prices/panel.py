"""The price panel, what can be wrong with one, and what its sources have in common.

What a source is read like belongs in a module of its own; what is computed from the returns belongs
in `riskhub.risk`.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from riskhub.errors import RiskHubError

# The longest the exchange stayed shut in the years of the panel (September 2001). A date further
# on than this is asked of a panel that has ended, not of one that waits for a holiday to pass.
LONGEST_CLOSURE = timedelta(days=7)


class PriceFileError(RiskHubError):
    """Base: there are no prices to be had from where the settings say. `source` says where."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source} {problem}")
        self.source = source


class PricesMissing(PriceFileError):
    """There is nothing where the prices should be."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "is missing")


class PricesCorrupt(PriceFileError):
    """Something is there, and what it holds is not a price panel: `reason`."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, f"is corrupt: {reason}")
        self.reason = reason


class PricesUnavailable(PriceFileError):
    """The source can't be reached, or refuses. Safe to try again."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, f"can't be read: {reason}")
        self.reason = reason


class PriceFileMissing(PricesMissing):
    """There is no file where the price file should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"price file {path}")
        self.path = path


class PriceFileCorrupt(PricesCorrupt):
    """The price file is there, and what it holds is not a price panel."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"price file {path}", reason)
        self.path = path


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
    finite and positive, in one currency. `digest`: `sha256:<hex>` of the uncompressed CSV, or of
    the content as `riskhub.prices.as_arrow` has it.
    """

    symbols: tuple[str, ...]
    days: tuple[date, ...] = field(repr=False)
    prices: NDArray[np.float64] = field(repr=False, compare=False)  # the digest stands for them
    digest: str

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """(T-1, N) simple daily returns p[t] / p[t-1] - 1; row i belongs to `return_days[i]`."""
        with np.errstate(over="ignore"):  # whoever computes with them refuses what is not finite
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


class PriceSource(Hashable, Protocol):
    """Where a panel comes from; equal to another that reads the same."""

    @property
    def label(self) -> str:
        """What a person reads, without what is secret: ``price file data/prices.csv.gz``."""
        ...

    def fingerprint(self) -> str:
        """Cheap to ask, and another one once the prices may have changed.

        Raises `PriceFileError`.
        """
        ...

    def load(self) -> PricePanel:
        """The panel, complete or not at all. Raises `PriceFileError`."""
        ...


class NotAPanel(Exception):
    """Why some content is not a price panel; its source adds where it came from."""


def refuse_days_out_of_order(days: Sequence[date]) -> None:
    """Raises `NotAPanel` unless the days strictly increase."""
    for earlier, later in pairwise(days):
        if later <= earlier:
            raise NotAPanel(f"{later} follows {earlier}: days must increase")


def refuse_repeated(symbols: Sequence[str]) -> None:
    """Raises `NotAPanel` unless the symbols are distinct."""
    twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if twice:
        raise NotAPanel(f"duplicate columns {', '.join(twice)}")


def refuse_impossible(
    prices: NDArray[np.float64], days: Sequence[date], symbols: Sequence[str]
) -> None:
    """Raises `NotAPanel` unless the prices (T, N) are finite and positive, naming the first."""
    bad = np.argwhere(~(np.isfinite(prices) & (prices > 0)))
    if bad.size:
        row, column = bad[0]
        price = prices[row, column]
        raise NotAPanel(f"{symbols[column]} on {days[row]} has the price {price:g}")
