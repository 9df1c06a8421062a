"""The state of a portfolio, from its positions, its equity and the highest that equity was.

Pure: the clock is an argument, what was read from Redis or the hub comes as text. `updater` reads
it and publishes what is made of it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from riskhub.errors import RiskHubError
from riskhub.governor.inputs import FUTURE_TOLERANCE_SEC
from riskhub.governor.inputs import _number as finite_number

Raw = bytes | str | None
"""A field as Redis has it; None: there is no such field."""

# Nobody's position is larger, and sums of what is smaller stay finite.
_LARGEST_USD = 1e18


class NoPortfolioState(RiskHubError):
    """Nothing may be published: the last state is to grow stale, and the governor to notice.

    Attributes:
        reason: `equity_missing`, `equity_malformed`, `equity_out_of_range` or `equity_stale`;
            `unrealized_pnl_unknown`; `high_water_malformed`.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(f"no portfolio state is published ({reason}): {why}")
        self.reason = reason


class PositionFields(NamedTuple):
    """What a position snapshot says, as it was read; `ts_epoch` is another name of `timestamp`."""

    position_amt: Raw = None
    mark_price: Raw = None
    unrealized_pnl: Raw = None
    timestamp: Raw = None
    ts_epoch: Raw = None


class EquityFields(NamedTuple):
    """What an equity source says, as it was read; see `equity_of`."""

    equity_usd: Raw = None
    wallet_balance: Raw = None
    timestamp: Raw = None
    net_flow_usd: Raw = None


@dataclass(frozen=True, slots=True)
class Position:
    """One open position.

    Attributes:
        notional_usd: amount times mark price, USD; negative for a short.
        unrealized_pnl_usd: gain (+) or loss (-) since it was opened; None if it is not said.
        timestamp: when that was so, unix seconds; None if it is not said.
    """

    notional_usd: float
    unrealized_pnl_usd: float | None
    timestamp: float | None


@dataclass(frozen=True, slots=True)
class Book:
    """All positions. What can't be read is named, and in no sum.

    Attributes:
        positions: those that are open, by symbol.
        malformed: symbols whose position snapshot can't be used, sorted.
    """

    positions: Mapping[str, Position]
    malformed: tuple[str, ...] = ()

    @property
    def gross_notional_usd(self) -> float:
        """Longs and shorts added up, USD, >= 0."""
        return sum((abs(position.notional_usd) for position in self.positions.values()), 0.0)

    @property
    def net_notional_usd(self) -> float:
        """Longs less shorts, USD."""
        return sum((position.notional_usd for position in self.positions.values()), 0.0)


@dataclass(frozen=True, slots=True)
class Equity:
    """What the portfolio was worth, and when.

    Attributes:
        usd: finite and > 0.
        timestamp: the time of the oldest thing it was made from, unix seconds.
        net_flow_usd: all deposits less all withdrawals up to then, counted from any moment that
            stays the same; None if it is not said, or not to be read.
        flow_malformed: it is said, and not to be read.
    """

    usd: float
    timestamp: float
    net_flow_usd: float | None = None
    flow_malformed: bool = False


@dataclass(frozen=True, slots=True)
class HighWater:
    """The highest that the equity was, moved by each deposit and withdrawal since.

    Attributes:
        equity_usd: finite and > 0.
        reached_at: when the equity was there, unix seconds.
        net_flow_usd: the flow that is in it; None while no source has ever said one.
    """

    equity_usd: float
    reached_at: float
    net_flow_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortfolioUpdate:
    """What is published.

    Attributes:
        equity_usd: USD, > 0.
        drawdown: the share of the high-water mark that is lost, 0 to 1.
        timestamp: when the equity was so, whole unix seconds, rounded down.
        gross_notional_usd: of the book.
        net_notional_usd: of the book.
        positions: how many are open and in the two notionals.
        malformed_positions: the symbols that are not.
        high_water: the mark that the drawdown is measured from.
        high_water_begins: none was kept, so it begins at this equity.
        net_flow_unknown: the source does not say its net flow now, though it did, or says it so
            that it can't be read. Until it does the mark stays where it is.
    """

    equity_usd: float
    drawdown: float
    timestamp: int
    gross_notional_usd: float
    net_notional_usd: float
    positions: int
    malformed_positions: tuple[str, ...]
    high_water: HighWater
    high_water_begins: bool
    net_flow_unknown: bool


def book_of(snapshots: Mapping[str, PositionFields | None]) -> Book:
    """Judge position snapshots; None is one that is no hash.

    An amount that is missing or no number is malformed, and so are a mark price of an open
    position that is missing, no number or <= 0, a profit or a time that is there and no number,
    and a notional that is beyond belief. An amount of 0 is no position.
    """
    positions: dict[str, Position] = {}
    malformed = []
    for symbol, fields in sorted(snapshots.items()):
        try:
            position = _position(fields)
        except ValueError:
            malformed.append(symbol)
        else:
            if position is not None:
                positions[symbol] = position
    return Book(positions, tuple(malformed))


def _position(fields: PositionFields | None) -> Position | None:
    """The position; None if it is flat. Raises ValueError: it can't be read."""
    if fields is None:
        raise ValueError
    amount = _required(fields.position_amt)
    if amount == 0:
        return None
    mark = _required(fields.mark_price)
    if mark <= 0:
        raise ValueError
    return Position(
        notional_usd=_believable(amount * mark),
        unrealized_pnl_usd=_optional_usd(fields.unrealized_pnl),
        timestamp=_optional(fields.ts_epoch if fields.timestamp is None else fields.timestamp),
    )


def equity_of(fields: EquityFields, book: Book, *, now: float, stale_sec: float) -> Equity:
    """The equity that a source says: `equity_usd`, else `wallet_balance` and what the book gains.

    Args:
        fields: `timestamp` is when the rest was so, unix seconds; an equity of no time is none.
        book: its unrealized profits count only next to a wallet balance, and then all of them
            must be known; the oldest of their times, where they say one, is that of the equity.
        now: unix seconds.
        stale_sec: an equity of this age is not published. The clock of a source may be
            `FUTURE_TOLERANCE_SEC` ahead; more is malformed, and so are milliseconds.

    Raises:
        NoPortfolioState: there is no equity that is finite, > 0 and fresh.
    """
    by_wallet = fields.equity_usd is None
    raw = fields.wallet_balance if by_wallet else fields.equity_usd
    if raw is None:
        raise NoPortfolioState("equity_missing", "its source says none")
    try:
        usd, times = _believable(_required(raw)), [_required(fields.timestamp)]
    except ValueError:
        raise NoPortfolioState(
            "equity_malformed", "the equity or its timestamp is no number"
        ) from None
    if by_wallet:
        usd += _unrealized(book)
        times += [
            position.timestamp
            for position in book.positions.values()
            if position.timestamp is not None
        ]
    if usd <= 0:
        raise NoPortfolioState("equity_out_of_range", f"an equity of {usd} USD")
    if max(times) > now + FUTURE_TOLERANCE_SEC:
        raise NoPortfolioState("equity_malformed", "its timestamp lies in the future")
    if now - min(times) >= stale_sec:
        raise NoPortfolioState("equity_stale", f"it is {now - min(times):.0f} s old")
    try:
        return Equity(usd, min(times), _optional_usd(fields.net_flow_usd))
    except ValueError:
        return Equity(usd, min(times), flow_malformed=True)


def _unrealized(book: Book) -> float:
    total = 0.0
    for symbol, position in book.positions.items():
        if position.unrealized_pnl_usd is None:
            raise NoPortfolioState("unrealized_pnl_unknown", f"{symbol} has no unrealized_pnl")
        total += position.unrealized_pnl_usd
    if book.malformed:
        raise NoPortfolioState(
            "unrealized_pnl_unknown", f"the position of {book.malformed[0]} is malformed"
        )
    return total


def advanced(mark: HighWater | None, equity: Equity) -> HighWater:
    """The high-water mark once the equity is known; without one before, it starts at the equity.

    A deposit or withdrawal since, the change of `net_flow_usd`, moves it by as much: the loss from
    the peak stays the same number of dollars. Otherwise it only rises, to the equity. A source
    that said its net flow and does not say it now leaves the mark alone, lest a deposit pass for a
    gain.
    """
    if mark is None:
        return HighWater(equity.usd, equity.timestamp, equity.net_flow_usd)
    flow, known = equity.net_flow_usd, mark.net_flow_usd
    if flow is None and (known is not None or equity.flow_malformed):
        return mark
    moved = mark.equity_usd + (flow - known if flow is not None and known is not None else 0.0)
    if equity.usd > moved:
        return HighWater(equity.usd, equity.timestamp, flow)
    return replace(mark, equity_usd=moved, net_flow_usd=flow)


def drawdown_from(mark: HighWater, equity_usd: float) -> float:
    """The share of the mark that is lost: ``max(0, (mark - equity) / mark)``, 0 to 1."""
    return max(0.0, (mark.equity_usd - equity_usd) / mark.equity_usd)


def update_of(book: Book, equity: Equity, mark: HighWater | None) -> PortfolioUpdate:
    """What is to be published, with the new mark.

    Args:
        mark: the last high-water mark; None if there was none yet.
    """
    high_water = advanced(mark, equity)
    was_known = mark is not None and mark.net_flow_usd is not None
    return PortfolioUpdate(
        equity_usd=equity.usd,
        drawdown=drawdown_from(high_water, equity.usd),
        timestamp=int(equity.timestamp),
        gross_notional_usd=book.gross_notional_usd,
        net_notional_usd=book.net_notional_usd,
        positions=len(book.positions),
        malformed_positions=book.malformed,
        high_water=high_water,
        high_water_begins=mark is None,
        net_flow_unknown=equity.flow_malformed or (was_known and equity.net_flow_usd is None),
    )


def high_water_of(equity_usd: Raw, reached_at: Raw, net_flow_usd: Raw) -> HighWater | None:
    """The mark as it was kept; None if none was.

    Raises:
        NoPortfolioState: what is kept is no mark. It is not begun anew by itself: that would be a
            drawdown of 0 in the middle of one.
    """
    if equity_usd is None and reached_at is None and net_flow_usd is None:
        return None
    try:
        mark = HighWater(
            _believable(_required(equity_usd)), _required(reached_at), _optional_usd(net_flow_usd)
        )
    except ValueError:
        mark = None
    if mark is None or mark.equity_usd <= 0:
        raise NoPortfolioState(
            "high_water_malformed",
            "the mark that is kept is none; --reset-high-water begins anew",
        )
    return mark


def _required(raw: Raw) -> float:
    value = finite_number(raw)
    if value is None:
        raise ValueError
    return value


def _optional(raw: Raw) -> float | None:
    return None if raw is None else _required(raw)


def _believable(usd: float) -> float:
    if not abs(usd) <= _LARGEST_USD:
        raise ValueError
    return usd


def _optional_usd(raw: Raw) -> float | None:
    return None if raw is None else _believable(_required(raw))
