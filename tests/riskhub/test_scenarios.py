import csv
import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from riskhub.prices import load_panel
from riskhub.risk import beta_shock, replay
from riskhub.scenarios import (
    CovarianceShift,
    Gap,
    Historical,
    MarketMove,
    ScenarioAhead,
    ScenarioFileInvalid,
    ScenarioUnavailable,
    load_scenarios,
    market_betas,
    panel_betas,
    window_returns,
)

DATA = Path(__file__).parents[2] / "data"
LATER = date(2022, 12, 28)
LATER_24 = date(2024, 12, 31)
WEIGHTS = {"AAPL": 0.3, "JPM": 0.4, "XOM": 0.5, "WMT": -0.2}
GOOD = """
scenarios:
  - {id: fall, kind: historical, title: A fall, start: 2024-01-05, end: 2024-01-09}
"""
PRICES = (
    "Date,AAA,BBB\n2024-01-04,100.0,50.0\n2024-01-05,110.0,40.0\n2024-01-08,99.0,60.0\n"
    "2024-01-09,99.0,30.0\n2024-01-10,99.0,31.0\n"
)


@pytest.fixture(scope="module")
def panel():
    return load_panel(DATA / "sp500_prices.csv.gz")


@pytest.fixture(scope="module")
def shipped():
    return {each.id: each for each in load_scenarios(DATA / "scenarios.yaml").scenarios}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text(PRICES)
    return load_panel(path)


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        path = tmp_path / "scenarios.yaml"
        path.write_text(text)
        return load_scenarios(path)

    return load


def fall(start: str, end: str) -> Historical:
    return Historical(
        id="fall",
        kind="historical",
        title="A fall",
        start=date.fromisoformat(start),
        end=date.fromisoformat(end),
    )


class TestShippedFile:
    def test_holds_what_the_issue_asks_for(self, shipped):
        kinds = [type(each) for each in shipped.values()]
        counts = [kinds.count(kind) for kind in (Historical, CovarianceShift, Gap, MarketMove)]
        assert counts == [12, 4, 2, 1]
        shifts = [
            (each.volatility, each.toward_one)
            for each in shipped.values()
            if isinstance(each, CovarianceShift)
        ]
        assert shifts == [(1.5, 0.0), (2.0, 0.0), (1.0, 0.5), (2.0, 0.5)]
        assert (shipped["single-name-50"].size, shipped["single-name-50"].count) == (0.5, 1)
        assert shipped["top-three-gap"].count == 3

    def test_1987_says_that_it_is_mapped(self, shipped):
        # The S&P 500 closed at 282.70 on the Friday and at 224.84 on the Monday.
        black_monday = shipped["black-monday-1987"]
        assert black_monday.move == pytest.approx(224.84 / 282.70 - 1, abs=5e-5)
        assert black_monday.label == "S&P 500 on 1987-10-19 (-20.47%), mapped by beta"

    # The close bought at, the last close, and the days between: of which the portfolio's values
    # are recomputed from the CSV, holding shares.
    @pytest.mark.parametrize(
        ("scenario", "before", "last", "days"),
        [
            ("gulf-1990", "1990-07-31", "1990-10-31", 65),
            ("asia-1997", "1997-09-30", "1997-10-31", 23),
            ("ltcm-1998", "1998-07-31", "1998-10-30", 64),
            ("dotcom-2000", "2000-03-24", "2002-10-09", 637),
            ("september-2001", "2001-08-31", "2001-09-28", 15),
            ("crisis-2007", "2007-10-09", "2009-03-09", 355),
            ("lehman-2008", "2008-09-12", "2008-10-14", 22),
            ("downgrade-2011", "2011-07-29", "2011-08-31", 23),
            ("volatility-2018", "2018-01-31", "2018-02-28", 19),
            ("q4-2018", "2018-09-28", "2018-12-31", 63),
            ("covid-2020", "2020-02-19", "2020-03-23", 23),
            ("rates-2022", "2021-12-31", "2022-12-28", 249),
        ],
    )
    def test_replays_what_the_prices_did(self, panel, shipped, scenario, before, last, days):
        with gzip.open(DATA / "sp500_prices.csv.gz", "rt", newline="") as file:
            rows = [row for row in csv.DictReader(file) if before <= row["Date"] <= last]
        assert (rows[0]["Date"], rows[-1]["Date"], len(rows)) == (before, last, days + 1)
        shares = {symbol: w / float(rows[0][symbol]) for symbol, w in WEIGHTS.items()}
        values = [sum(n * float(row[symbol]) for symbol, n in shares.items()) for row in rows]
        path = [value - values[0] for value in values]
        peak, depth = 1.0, 0.0
        for earned in path:
            peak = max(peak, 1 + earned)
            depth = max(depth, 1 - (1 + earned) / peak)

        returns = window_returns(shipped[scenario], panel, list(WEIGHTS), LATER)
        result = replay(list(WEIGHTS.values()), returns)
        np.testing.assert_allclose(result.path, path[1:], atol=1e-11)
        assert result.pnl == pytest.approx(path[-1], abs=1e-11)
        assert result.worst == pytest.approx(min(path), abs=1e-11)
        assert result.max_drawdown == pytest.approx(depth, abs=1e-11)

    def test_every_crisis_hurts_the_equal_weighted_panel_somewhere(self, panel, shipped):
        for scenario in shipped.values():
            if isinstance(scenario, Historical):
                returns = window_returns(scenario, panel, panel.symbols, LATER)
                assert replay(np.full(20, 0.05), returns).max_drawdown > 0.08, scenario.id

    def test_the_panel_has_a_beta_of_one_and_loses_what_the_index_lost(self, panel, shipped):
        scenario = shipped["black-monday-1987"]
        slopes = market_betas(scenario, panel, panel.symbols, date(2015, 6, 30))
        assert slopes.mean() == pytest.approx(1.0, rel=1e-12)
        pnl = beta_shock(np.full(20, 0.05), slopes, scenario.move).pnl
        assert pnl == pytest.approx(-0.2047, rel=1e-9)

        last = panel.days.index(date(2015, 6, 30))
        changes = np.diff(panel.prices[last - 500 : last + 1], axis=0)
        moves = changes / panel.prices[last - 500 : last]
        for column in (0, 7):
            expected = np.polyfit(moves.mean(axis=1), moves[:, column], 1)[0]
            assert slopes[column] == pytest.approx(expected, rel=1e-9)


class TestWindow:
    def test_starts_from_the_close_before(self, small):
        returns = window_returns(fall("2024-01-05", "2024-01-08"), small, ["BBB", "AAA"], LATER_24)
        np.testing.assert_allclose(returns, [[-0.2, 0.1], [0.5, -0.1]], rtol=1e-12)

    def test_may_start_and_end_on_days_without_trading(self, small):
        returns = window_returns(fall("2024-01-06", "2024-01-09"), small, ["AAA"], LATER_24)
        np.testing.assert_allclose(returns, [[-0.1], [0.0]], atol=1e-15)

    def test_symbols_without_prices_are_named_and_not_taken_to_be_still(self, small):
        scenario = fall("2024-01-05", "2024-01-08")
        with pytest.raises(ScenarioUnavailable, match="no prices for XXX, YYY") as refusal:
            window_returns(scenario, small, ["AAA", "XXX", "YYY"], LATER_24)
        assert refusal.value.missing == ("XXX", "YYY")
        assert refusal.value.scenario == "fall"

    def test_of_many_symbols_without_prices_a_few_are_told(self, small):
        many = [f"X{number}" for number in range(8)]
        reason = "no prices for X0, X1, X2, X3, X4 and 3 more"
        with pytest.raises(ScenarioUnavailable, match=reason) as told:
            window_returns(fall("2024-01-05", "2024-01-08"), small, many, LATER_24)
        assert told.value.missing == tuple(many)

    @pytest.mark.parametrize(
        ("start", "end", "reason"),
        [
            ("2024-01-04", "2024-01-08", "prices begin on 2024-01-04"),
            ("2023-12-01", "2024-01-08", "prices begin on 2024-01-04"),
            ("2024-01-08", "2024-01-11", "prices end on 2024-01-10"),
            ("2024-01-06", "2024-01-07", "no trading day"),
        ],
    )
    def test_that_the_prices_do_not_cover_is_unavailable(self, small, start, end, reason):
        with pytest.raises(ScenarioUnavailable, match=reason):
            window_returns(fall(start, end), small, ["AAA"], LATER_24)

    def test_nobody_replays_what_is_still_to_come(self, small):
        scenario = fall("2024-01-05", "2024-01-09")
        assert len(window_returns(scenario, small, ["AAA"], date(2024, 1, 9))) == 3
        with pytest.raises(ScenarioAhead, match="2024-01-09 lies after 2024-01-08"):
            window_returns(scenario, small, ["AAA"], date(2024, 1, 8))


class TestMarketBetas:
    def scenario(self, days: int) -> MarketMove:
        return MarketMove(
            id="crash", kind="market", title="Crash", day=date(1987, 10, 19), move=-0.2,
            beta_days=days,
        )  # fmt: skip

    def test_take_no_day_after_the_one_asked_for(self, small):
        slopes = market_betas(self.scenario(2), small, ["AAA"], date(2024, 1, 8))
        # AAA 0.1, -0.1; market -0.05, 0.2
        np.testing.assert_allclose(slopes, [-0.2 / 0.25], rtol=1e-12)

    def test_are_unavailable_before_there_are_enough_days(self, small):
        with pytest.raises(ScenarioUnavailable, match="2 days of returns, 3 needed"):
            market_betas(self.scenario(3), small, ["AAA"], date(2024, 1, 8))

    def test_are_unavailable_without_prices_and_before_the_day(self, small):
        with pytest.raises(ScenarioUnavailable, match="no prices for XXX") as refusal:
            market_betas(self.scenario(2), small, ["XXX"], date(2024, 1, 8))
        assert refusal.value.missing == ("XXX",)
        with pytest.raises(ScenarioAhead, match="1987-10-19 lies after 1987-10-16"):
            market_betas(self.scenario(2), small, ["AAA"], date(1987, 10, 16))

    def test_are_unavailable_of_a_panel_that_ended_and_of_a_market_that_stood_still(
        self, small, tmp_path
    ):
        with pytest.raises(ScenarioUnavailable, match="prices end on 2024-01-10, 22 days before"):
            market_betas(self.scenario(2), small, ["AAA"], date(2024, 2, 1))
        still = tmp_path / "still.csv"
        still.write_text("Date,AAA\n2024-01-04,1.0\n2024-01-05,1.0\n2024-01-08,1.0\n")
        with pytest.raises(ScenarioUnavailable, match="did not move"):
            market_betas(self.scenario(2), load_panel(still), ["AAA"], date(2024, 1, 8))

    def test_of_a_few_symbols_are_those_of_the_whole_panel(self, panel, shipped):
        scenario, day = shipped["black-monday-1987"], date(2015, 6, 30)
        of_all = panel_betas(scenario, panel, day)
        few = market_betas(scenario, panel, ["XOM", "AAPL"], day)
        columns = [panel.symbols.index("XOM"), panel.symbols.index("AAPL")]
        assert few.tolist() == of_all[columns].tolist()


class TestFile:
    def test_is_read_in_its_order(self, load):
        book = load(GOOD + "  - {id: gap, kind: gap, title: Gap, size: 1, count: 3}\n")
        assert [each.id for each in book.scenarios] == ["fall", "gap"]
        assert book.scenarios[0] == fall("2024-01-05", "2024-01-09")

    def test_has_the_digest_of_what_it_says(self, load):
        first = load(GOOD)
        assert load(f"# a comment\n{GOOD}\n").digest == first.digest
        assert load(GOOD.replace("2024-01-09", "2024-01-08")).digest != first.digest
        assert first.digest.startswith("sha256:")

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{id: x, kind: flood, title: X}", r"scenarios\[1\]: .*'flood'"),
            ("{id: x, title: X}", r"scenarios\[1\]: .*kind"),
            ("{id: x, kind: gap, title: X, size: 0.2}", r"scenarios\[1\]\.count: .*required"),
            ("{id: x, kind: gap, title: X, size: 1.5, count: 1}", r"scenarios\[1\]\.size: "),
            ("{id: x, kind: gap, title: X, size: '0.5', count: 1}", r"scenarios\[1\]\.size: "),
            ("{id: x, kind: gap, title: X, size: .nan, count: 1}", r"scenarios\[1\]\.size: "),
            ("{id: x, kind: gap, title: X, size: 0.5, count: 0}", r"scenarios\[1\]\.count: "),
            ("{id: x, kind: gap, title: X, size: 0.5, count: 1, z: 1}", r"scenarios\[1\]\.z: "),
            ("{id: X Y, kind: gap, title: X, size: 0.5, count: 1}", r"scenarios\[1\]\.id: "),
            ("{id: x, kind: covariance, title: X}", r"scenarios\[1\]: changes neither"),
            ("{id: x, kind: covariance, title: X, volatility: 0}", r"\.volatility: "),
            ("{id: x, kind: covariance, title: X, volatility: .inf}", r"\.volatility: "),
            ("{id: x, kind: covariance, title: X, toward_one: 1.5}", r"\.toward_one: "),
            (
                "{id: x, kind: historical, title: X, start: 2020-03-01, end: 2020-02-01}",
                r"scenarios\[1\]: ends on 2020-02-01, before it starts on 2020-03-01",
            ),
            ("{id: x, kind: historical, title: X, start: March, end: 2020-02-01}", r"\.start: "),
            (
                "{id: x, kind: market, title: X, day: 1987-10-19, move: -1, beta_days: 500}",
                r"scenarios\[1\]\.move: ",
            ),
            (
                "{id: fall, kind: gap, title: X, size: 0.5, count: 1}",
                "the id fall is given twice",
            ),
        ],
    )
    def test_a_mistake_is_told_with_its_place(self, load, line, problem):
        with pytest.raises(ScenarioFileInvalid, match=problem):
            load(f"{GOOD}  - {line}\n")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "the file: "),
            ("- 1\n", "the file: "),
            ("scenarios: []\n", "scenarios: "),
            ("scenarios: 3\n", "scenarios: "),
            ("scenes: []\n", "scenarios: .*required"),
            ("scenarios: [\n", "not YAML"),
            (GOOD + "scenarios: []\n", "a key is given twice"),
        ],
    )
    def test_another_file_is_no_scenario_file(self, load, text, problem):
        with pytest.raises(ScenarioFileInvalid, match=problem):
            load(text)

    def test_every_mistake_is_told(self, load):
        with pytest.raises(ScenarioFileInvalid) as refusal:
            load("scenarios:\n  - {id: a, kind: gap}\n")
        assert len(refusal.value.problems) == 3

    def test_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(ScenarioFileInvalid, match=r"none\.yaml"):
            load_scenarios(tmp_path / "none.yaml")
