"""What a portfolio state is made of, and when there is none."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.portfolio_state import (
    Book,
    Equity,
    HighWater,
    NoPortfolioState,
    PortfolioUpdate,
    update_of,
)
from riskhub.portfolio_state.state import (
    EquityFields,
    Position,
    PositionFields,
    book_of,
    equity_of,
)

NOW = 1_738_000_000.0
NO_NUMBERS = ["", "n/a", "nan", "inf", "-inf", "1e999", "1_0", " 1", "0x1", "١", b"\xff", "true"]
FLAT = Book({})


# --- positions -------------------------------------------------------------------------------


def test_shorts_count_in_gross_and_against_longs_in_net() -> None:
    book = book_of(
        {
            "BTCUSDT": PositionFields("0.5", "40000", "120.5"),
            "ETHUSDT": PositionFields(b"-4", b"2500", b"-20", ts_epoch=b"1738000000"),
            "DOGEUSDT": PositionFields("0.0", None, None),
        }
    )

    assert (book.gross_notional_usd, book.net_notional_usd) == (30_000.0, 10_000.0)
    assert book.positions == {
        "BTCUSDT": Position(20_000.0, 120.5, None),
        "ETHUSDT": Position(-10_000.0, -20.0, NOW),
    }
    assert book.malformed == ()


@pytest.mark.parametrize(
    "fields",
    [
        None,
        PositionFields(None, "100"),
        PositionFields("1", None),
        PositionFields("1", "0"),
        PositionFields("1", "-3"),
        PositionFields("1e12", "1e12"),
        PositionFields("1", "100", "n/a"),
        PositionFields("1", "100", "5", "yesterday"),
        PositionFields("1", "100", "5", ts_epoch=""),
        *(PositionFields(text, "100") for text in NO_NUMBERS),
        *(PositionFields("1", text) for text in NO_NUMBERS),
    ],
)
def test_a_malformed_position_is_named_and_in_no_sum(fields: PositionFields | None) -> None:
    book = book_of({"XRPUSDT": fields, "BTCUSDT": PositionFields("1", "100")})

    assert book.malformed == ("XRPUSDT",)
    assert (book.gross_notional_usd, book.net_notional_usd) == (100.0, 100.0)
    assert set(book.positions) == {"BTCUSDT"}


amounts = st.integers(-1000, 1000)
marks = st.integers(1, 1000)


@given(st.lists(st.tuples(amounts, marks), max_size=20))
def test_gross_is_longs_and_shorts_and_net_their_difference(
    positions: list[tuple[int, int]],
) -> None:
    book = book_of(
        {
            f"S{number}": PositionFields(str(amount), str(mark))
            for number, (amount, mark) in enumerate(positions)
        }
    )

    longs = sum(amount * mark for amount, mark in positions if amount > 0)
    shorts = -sum(amount * mark for amount, mark in positions if amount < 0)
    assert book.gross_notional_usd == longs + shorts
    assert book.net_notional_usd == longs - shorts
    assert len(book.positions) == sum(amount != 0 for amount, _ in positions)


# --- equity ----------------------------------------------------------------------------------


def judge(fields: EquityFields, book: Book = FLAT, now: float = NOW) -> Equity:
    return equity_of(fields, book, now=now, stale_sec=30)


def refused(fields: EquityFields, book: Book = FLAT) -> str:
    with pytest.raises(NoPortfolioState) as none:
        judge(fields, book)
    return none.value.reason


def test_equity_as_its_source_says_it() -> None:
    fields = EquityFields("100000.5", "7", str(NOW - 4), "-2500")

    assert judge(fields) == Equity(100_000.5, NOW - 4, -2500.0)


def test_a_wallet_and_what_its_positions_gain_and_lose() -> None:
    book = Book({"BTC": Position(20_000, 1500.0, NOW - 9), "ETH": Position(-9_000, -200.0, None)})

    # As old as the oldest thing in it.
    assert judge(EquityFields(None, "50000", str(NOW - 2)), book) == Equity(51_300.0, NOW - 9)


@pytest.mark.parametrize(
    ("pnl", "malformed", "timestamp", "reason"),
    [
        (None, (), None, "unrealized_pnl_unknown"),
        (5.0, ("XRP",), None, "unrealized_pnl_unknown"),
        (5.0, (), NOW - 30, "equity_stale"),
        (5.0, (), NOW * 1000, "equity_malformed"),
        (-1000.0, (), None, "equity_out_of_range"),
    ],
)
def test_a_wallet_is_no_equity_while_a_gain_is_not_known(
    pnl: float | None, malformed: tuple[str, ...], timestamp: float | None, reason: str
) -> None:
    book = Book({"BTC": Position(20_000, pnl, timestamp)}, malformed)

    assert refused(EquityFields(None, "1000", str(NOW)), book) == reason
    assert judge(EquityFields("1000", None, str(NOW)), book) == Equity(1000.0, NOW)


@pytest.mark.parametrize(
    ("usd", "timestamp", "reason"),
    [
        (None, str(NOW), "equity_missing"),
        ("0", str(NOW), "equity_out_of_range"),
        ("-5", str(NOW), "equity_out_of_range"),
        ("1e19", str(NOW), "equity_malformed"),
        *((text, str(NOW), "equity_malformed") for text in NO_NUMBERS),
        ("100", None, "equity_malformed"),
        *(("100", text, "equity_malformed") for text in NO_NUMBERS),
        ("100", str(NOW * 1000), "equity_malformed"),
        ("100", str(NOW + 2.5), "equity_malformed"),
        ("100", str(NOW - 30), "equity_stale"),
    ],
)
def test_what_is_no_equity(usd: str | None, timestamp: str | None, reason: str) -> None:
    assert refused(EquityFields(usd, None, timestamp)) == reason


@pytest.mark.parametrize("age", [29.9, 0.0, -2.0])
def test_equity_is_fresh_for_thirty_seconds(age: float) -> None:
    assert judge(EquityFields("100", None, repr(NOW - age))).timestamp == NOW - age


# --- high-water mark and drawdown ------------------------------------------------------------


def follow(*equities: Equity) -> list[PortfolioUpdate]:
    """One update after another, each from the mark that the one before left."""
    updates: list[PortfolioUpdate] = []
    for equity in equities:
        updates.append(update_of(FLAT, equity, updates[-1].high_water if updates else None))
    return updates


def test_drawdown_is_the_share_of_the_peak_that_is_lost() -> None:
    updates = follow(*(Equity(usd, NOW + usd) for usd in (100, 80, 90, 120, 60)))

    assert [update.drawdown for update in updates] == pytest.approx([0, 0.2, 0.1, 0, 0.5])
    assert updates[-1].high_water == HighWater(120, NOW + 120)
    assert [update.high_water_begins for update in updates] == [True, *[False] * 4]


def test_a_deposit_is_no_gain_and_a_withdrawal_no_loss() -> None:
    begun, down, deposit, withdrawal = follow(
        Equity(100, NOW, 1000), Equity(80, NOW, 1000), Equity(180, NOW, 1100), Equity(40, NOW, 960)
    )

    assert (begun.drawdown, down.drawdown) == (0, pytest.approx(0.2))
    assert deposit.high_water.equity_usd == 200
    assert deposit.drawdown == pytest.approx(20 / 200)  # of the same 20 USD
    assert withdrawal.high_water.equity_usd == 60
    assert withdrawal.drawdown == pytest.approx(20 / 60)


@pytest.mark.parametrize("unknown", [{}, {"flow_malformed": True}])
def test_a_flow_that_is_not_known_any_more_holds_the_mark(unknown: dict[str, bool]) -> None:
    _, deposit, later = follow(
        Equity(100, NOW, 0), Equity(500, NOW, None, **unknown), Equity(450, NOW, 400)
    )

    assert deposit.high_water == HighWater(100, NOW, 0)  # it may be a deposit, and is
    assert (deposit.drawdown, deposit.net_flow_unknown) == (0, True)
    assert later.high_water.equity_usd == 500
    assert (later.drawdown, later.net_flow_unknown) == (pytest.approx(0.1), False)


def test_a_flow_said_for_the_first_time_moves_nothing() -> None:
    _, said = follow(Equity(100, NOW), Equity(90, NOW, 5000))

    assert said.high_water == HighWater(100, NOW, 5000)
    assert not said.net_flow_unknown


steps = st.lists(
    st.tuples(st.integers(1, 10**9), st.integers(-(10**9), 10**9)), min_size=1, max_size=30
)


@given(steps)
def test_the_mark_is_the_greatest_equity_net_of_flows(history: list[tuple[int, int]]) -> None:
    updates = follow(*(Equity(usd, NOW, flow) for usd, flow in history))

    for number, (update, (usd, flow)) in enumerate(zip(updates, history, strict=True), 1):
        peak = flow + max(earlier - moved for earlier, moved in history[:number])
        assert update.high_water.equity_usd == peak
        assert update.drawdown == pytest.approx((peak - usd) / peak, abs=1e-12)


positive = st.floats(1e-300, 1e18)
flows = st.none() | st.floats(-1e18, 1e18)


@given(st.lists(st.tuples(positive, flows), min_size=2, max_size=10))
def test_drawdown_is_a_share_and_only_a_flow_lowers_the_mark(
    history: list[tuple[float, float | None]],
) -> None:
    updates = follow(*(Equity(usd, NOW, flow) for usd, flow in history))

    assert all(0.0 <= update.drawdown <= 1.0 for update in updates)
    for before, after in itertools.pairwise(updates):
        if after.high_water.equity_usd < before.high_water.equity_usd:
            known = before.high_water.net_flow_usd, after.high_water.net_flow_usd
            assert None not in known
            assert known[1] < known[0]  # type: ignore[operator]
