import gzip
import hashlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from riskhub.prices import (
    PanelEnded,
    PriceFileCorrupt,
    PriceFileError,
    PriceFileMissing,
    UnknownSymbol,
    load_panel,
)

SHIPPED = Path(__file__).parents[2] / "data" / "sp500_prices.csv.gz"
GOOD = (
    "Date,AAA,BBB\n"
    "2024-01-04,100.0,50.0\n"
    "2024-01-05,110.0,40.0\n"
    "2024-01-08,99.0,60.0\n"
    "2024-01-09,99.0,30.0\n"
)


@pytest.fixture(scope="module")
def shipped():
    return load_panel(SHIPPED)


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "prices.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def panel(write):
    return load_panel(write(GOOD))


class TestReturns:
    def test_are_simple_daily_returns_of_the_later_day(self, panel):
        expected = [[0.1, -0.2], [-0.1, 0.5], [0.0, -0.5]]
        np.testing.assert_allclose(panel.returns, expected, atol=1e-15)
        assert panel.return_days == (date(2024, 1, 5), date(2024, 1, 8), date(2024, 1, 9))

    def test_cannot_be_changed_by_a_caller(self, panel):
        with pytest.raises(ValueError, match="read-only"):
            panel.prices[0, 0] = 1.0
        with pytest.raises(ValueError, match="read-only"):
            panel.returns[0, 0] = 1.0


class TestWindow:
    def test_ends_with_the_return_of_its_last_day(self, panel):
        window = panel.window(["AAA"], date(2024, 1, 8), 2)
        np.testing.assert_allclose(window, [[0.1], [-0.1]], atol=1e-15)

    def test_never_holds_a_return_later_than_its_end(self, panel):
        for end in panel.return_days:
            n = sum(day <= end for day in panel.return_days)
            window = panel.window(panel.symbols, end, 100)
            np.testing.assert_array_equal(window, panel.returns[:n])

    def test_on_a_weekend_ends_with_the_friday(self, panel):
        window = panel.window(["BBB"], date(2024, 1, 7), 1)
        np.testing.assert_allclose(window, [[-0.2]], atol=1e-15)

    def test_has_its_columns_in_the_order_asked(self, panel):
        window = panel.window(["BBB", "AAA"], date(2024, 1, 9), 1)
        np.testing.assert_allclose(window, [[-0.5, 0.0]], atol=1e-15)

    def test_is_shorter_where_history_is(self, panel):
        assert panel.window(["AAA"], date(2024, 1, 5), 2).shape == (1, 1)
        assert panel.window(["AAA"], date(2024, 1, 5), 500).shape == (1, 1)
        assert panel.window(["AAA"], date(2024, 1, 4), 500).shape == (0, 1)
        assert panel.window(["AAA"], date(1999, 1, 1), 500).shape == (0, 1)

    def test_may_end_up_to_seven_days_after_the_panel(self, panel):
        window = panel.window(["BBB"], date(2024, 1, 16), 1)
        np.testing.assert_allclose(window, [[-0.5]], atol=1e-15)

    def test_of_a_day_beyond_that_is_refused_with_the_last_day(self, panel):
        with pytest.raises(PanelEnded, match=r"prices end on 2024-01-09, 8 days before") as refusal:
            panel.window(["AAA"], date(2024, 1, 17), 1)
        assert refusal.value.last_day == date(2024, 1, 9)

    def test_names_every_symbol_it_does_not_know(self, panel):
        with pytest.raises(UnknownSymbol, match=r"no prices for XXX, YYY") as refusal:
            panel.window(["XXX", "AAA", "YYY"], date(2024, 1, 9), 1)
        assert refusal.value.missing == ("XXX", "YYY")

    @pytest.mark.parametrize("length", [0, -1])
    def test_has_at_least_one_day(self, panel, length):
        with pytest.raises(ValueError, match="at least one day"):
            panel.window(["AAA"], date(2024, 1, 9), length)

    def test_is_the_callers_own_copy(self, panel):
        panel.window(panel.symbols, date(2024, 1, 9), 3)[:] = 0
        assert panel.returns.any()


def test_next_trading_day_is_strictly_later(panel):
    assert panel.next_trading_day(date(2024, 1, 4)) == date(2024, 1, 5)
    assert panel.next_trading_day(date(2024, 1, 5)) == date(2024, 1, 8)
    assert panel.next_trading_day(date(2024, 1, 6)) == date(2024, 1, 8)
    assert panel.next_trading_day(date(2000, 1, 1)) == date(2024, 1, 4)
    assert panel.next_trading_day(date(2024, 1, 9)) is None


def test_columns_follow_the_order_asked(panel):
    assert panel.columns(["BBB", "AAA", "BBB"]) == [1, 0, 1]


class TestLoading:
    def test_gzip_and_plain_give_the_same_panel(self, write):
        plain = load_panel(write(GOOD))
        zipped = load_panel(write(gzip.compress(GOOD.encode()), "prices.csv.gz"))
        assert plain == zipped
        np.testing.assert_array_equal(plain.prices, zipped.prices)
        assert plain.digest == "sha256:" + hashlib.sha256(GOOD.encode()).hexdigest()

    def test_other_prices_make_another_panel(self, write, panel):
        assert load_panel(write(GOOD.replace("30.0", "30.1"), "other.csv")) != panel

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "it is empty"),
            ("Date,AAA\n", "no prices"),
            (GOOD.replace("Date", "Day"), "the header is not 'Date'"),
            (GOOD.replace("Date,AAA,BBB", "Date"), "the header is not 'Date'"),
            (GOOD.replace("AAA", ""), "the header is not 'Date'"),
            (GOOD.replace("BBB", "AAA"), "duplicate columns AAA"),
            (GOOD.replace("Date,AAA,BBB", "Date,AAA"), "line 2 has not 2 columns"),
            (GOOD.replace("110.0,40.0", "110.0"), "line 3 has not 3 columns"),
            (GOOD.replace("99.0,60.0", "99.0,60.0,1.0"), "line 4 has not 3 columns"),
            (GOOD.replace("2024-01-08", "\n2024-01-08"), "line 4 has not 3 columns"),
            (GOOD.replace("40.0", "n/a"), "not a price: .*'n/a'"),
            (GOOD.replace("40.0", ""), "BBB on 2024-01-05 has no price"),
            (GOOD.replace("110.0", " "), "AAA on 2024-01-05 has no price"),
            ("Date,AAA\n2024-01-04,1\n2024-01-05,\n", "AAA on 2024-01-05 has no price"),
            ("Date,AAA\n2024-01-04,1\n2024-01-05,\t\n", "AAA on 2024-01-05 has no price"),
            (GOOD.replace("40.0", "4_0"), "not a price"),
            (GOOD.replace("40.0", '"40"'), "not a price"),
            (GOOD.replace("40.0", "nan"), "BBB on 2024-01-05 has the price nan"),
            (GOOD.replace("40.0", "inf"), "BBB on 2024-01-05 has the price inf"),
            (GOOD.replace("40.0", "1e999"), "BBB on 2024-01-05 has the price inf"),
            (GOOD.replace("40.0", "0"), "BBB on 2024-01-05 has the price 0"),
            (GOOD.replace("110.0", "-1"), "AAA on 2024-01-05 has the price -1"),
            (GOOD.replace("2024-01-08", "08.01.2024"), "not a day"),
            (GOOD.replace("2024-01-08", "2024-01-05"), "2024-01-05 follows 2024-01-05"),
            (GOOD.replace("2024-01-08", "2024-01-03"), "2024-01-03 follows 2024-01-05"),
            (b"\xef\xbb\xbf" + GOOD.encode(), "byte 0 is not ASCII"),
        ],
    )
    def test_refuses_a_file_that_is_no_panel(self, write, content, reason):
        path = write(content)
        with pytest.raises(PriceFileCorrupt, match=reason) as refusal:
            load_panel(path)
        assert isinstance(refusal.value, PriceFileError)
        assert refusal.value.path == path
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)

    def test_refuses_an_archive_cut_anywhere(self, write):
        whole = gzip.compress(GOOD.encode())
        for length in range(len(whole)):
            with pytest.raises(PriceFileCorrupt):
                load_panel(write(whole[:length], "prices.csv.gz"))

    def test_refuses_an_archive_with_a_flipped_bit(self, write):
        whole = SHIPPED.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 6):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            with pytest.raises(PriceFileCorrupt, match="not a whole gzip archive"):
                load_panel(write(bytes(damaged), "prices.csv.gz"))

    def test_refuses_an_archive_that_is_no_deflate_stream(self, write):
        header = gzip.compress(GOOD.encode())[:10]
        with pytest.raises(PriceFileCorrupt, match="not a whole gzip archive"):
            load_panel(write(header + b"\xff" * 100, "prices.csv.gz"))

    def test_refuses_a_plain_file_with_a_gzip_name(self, write):
        with pytest.raises(PriceFileCorrupt, match="not a whole gzip archive"):
            load_panel(write(GOOD, "prices.csv.gz"))

    def test_names_the_file_that_is_missing(self, tmp_path):
        for path in (tmp_path / "none.csv", tmp_path, tmp_path / "none" / "prices.csv.gz"):
            with pytest.raises(PriceFileMissing, match="is missing") as refusal:
                load_panel(path)
            assert isinstance(refusal.value, PriceFileError)
            assert str(path) in str(refusal.value)


class TestShippedPanel:
    def test_is_what_its_readme_says(self, shipped):
        assert shipped.prices.shape == (8313, 20)
        assert (shipped.days[0], shipped.days[-1]) == (date(1990, 1, 2), date(2022, 12, 28))
        assert shipped.digest.removeprefix("sha256:") in (SHIPPED.parent / "README.md").read_text()

    def test_holds_the_prices_of_the_file(self, shipped):
        lines = gzip.decompress(SHIPPED.read_bytes()).decode().splitlines()
        for row in (0, 4000, 8312):
            day, *cells = lines[row + 1].split(",")
            assert shipped.days[row] == date.fromisoformat(day)
            assert shipped.prices[row].tolist() == [float(cell) for cell in cells]

    def test_never_serves_a_day_long_after_its_end(self, shipped):
        with pytest.raises(PanelEnded, match="2022-12-28"):
            shipped.window(["AAPL"], date(2023, 1, 5), 500)
        assert shipped.window(["AAPL"], date(2023, 1, 4), 500).shape == (500, 1)

    def test_bridges_its_longest_closure(self, shipped):
        before = shipped.window(["AAPL"], date(2001, 9, 10), 500)
        np.testing.assert_array_equal(shipped.window(["AAPL"], date(2001, 9, 16), 500), before)
        assert shipped.next_trading_day(date(2001, 9, 10)) == date(2001, 9, 17)
