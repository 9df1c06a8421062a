"""From a portfolio and a book of scenarios to rows: by hand on tiny panels, and on the real one."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from riskhub.blobs.file import FileBlobs
from riskhub.digests import canonical_json
from riskhub.metrics import CODE_VERSION
from riskhub.portfolio import Covariance, Portfolio, Sources, portfolio_of
from riskhub.prices import load_panel
from riskhub.risk import replay
from riskhub.scenarios import Historical, load_scenarios, window_returns
from riskhub.settings import RiskSettings
from riskhub.store.landing import Landed
from riskhub.store.tables import snapshot_stress, stress_results
from riskhub.stressing import StressRunner, book_rows, producer_rows

DATA = Path(__file__).parents[2] / "data"
BOOK = """
scenarios:
  - {id: fall, kind: historical, title: A fall, start: 2024-01-05, end: 2024-01-09}
  - {id: doubled, kind: covariance, title: Doubled, volatility: 2.0}
  - {id: together, kind: covariance, title: Together, volatility: 1.0, toward_one: 0.5}
  - {id: halved, kind: gap, title: Halved, size: 0.5, count: 1}
  - {id: crash, kind: market, title: Crash, day: 2023-12-29, move: -0.2, beta_days: 2}
"""
PRICES = """Date,AAA,BBB
2024-01-04,100.0,50.0
2024-01-05,110.0,40.0
2024-01-08,99.0,60.0
2024-01-09,99.0,30.0
2024-01-10,99.0,31.0
"""
Z = NormalDist().inv_cdf(0.99)
AFTER = datetime(2024, 1, 9, 21, tzinfo=UTC)
SETTINGS = RiskSettings(loss_limit=0.1)


def portfolio(weights, covariance=None, *, source="covariance", passed_over=None):
    symbols = tuple(sorted(weights))
    given = None
    if covariance is not None:
        given = Covariance(source, "sha256:c", np.array(covariance), np.zeros(len(covariance)))
    return Portfolio(
        symbols=symbols,
        weights=np.array([weights[symbol] for symbol in symbols]),
        returns=None,
        covariance=given,
        passed_over=passed_over or {},
    )


def landed(body=None, as_of=AFTER, position=7):
    return Landed(position, "equities", "v1", as_of, "paper", "sha256:s", json.dumps(body or {}))


def said(result):
    """What a result says beside its name and origin."""
    return {
        name: value
        for name, value in result.items()
        if name not in ("scenario", "origin") and value is not None
    }


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "scenarios.yaml"
    path.write_text(BOOK)
    return load_scenarios(path)


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "prices.csv"
        path.write_text(text)
        return load_panel(path)

    return load


@pytest.fixture
def runner(book, load):
    return StressRunner(book, load(PRICES), SETTINGS)


@pytest.fixture
def run(runner):
    def run(weights, covariance=None, as_of=AFTER, **how):
        rows = runner.of(portfolio(weights, covariance, **how), as_of).results
        return {row["scenario"]: said(row) for row in rows}

    return run


@pytest.fixture(scope="module")
def panel():
    return load_panel(DATA / "sp500_prices.csv.gz")


@pytest.fixture(scope="module")
def shipped():
    return load_scenarios(DATA / "scenarios.yaml")


class TestByHand:
    UNCORRELATED = ((0.0001, 0.0), (0.0, 0.0004))

    def test_a_replay_holds_what_was_bought_at_the_close_before(self, run):
        # 60 in AAA, 40 in BBB: 66 + 32, 59.4 + 48, 59.4 + 24
        found = run({"AAA": 0.6, "BBB": 0.4}, self.UNCORRELATED)["fall"]
        assert found == {
            "pnl": pytest.approx(-0.166, rel=1e-12),
            "worst": pytest.approx(-0.166, rel=1e-12),
            "max_drawdown": pytest.approx(1 - 0.834 / 1.074, rel=1e-12),
            "ruined": False,
        }

    def test_a_short_gains_where_the_price_falls(self, run):
        # 150 in AAA, short 50 of BBB: +15 + 10, -1.5 - 10, -1.5 + 20
        found = run({"AAA": 1.5, "BBB": -0.5}, self.UNCORRELATED)["fall"]
        assert found["pnl"] == pytest.approx(0.185, rel=1e-12)
        assert found["worst"] == pytest.approx(-0.115, rel=1e-12)
        assert found["max_drawdown"] == pytest.approx((1.25 - 0.885) / 1.25, rel=1e-12)

    def test_a_book_that_loses_its_equity_is_ruined_though_it_recovers(self, run):
        # short 300 of BBB, which falls by 20 % and then rises by half of that
        found = run({"AAA": 4.0, "BBB": -3.0}, self.UNCORRELATED)["fall"]
        assert found["worst"] == pytest.approx(4 * -0.01 - 3 * 0.2, rel=1e-12)
        assert found["ruined"] is False
        found = run({"AAA": 6.0, "BBB": -5.0}, self.UNCORRELATED)["fall"]
        assert found["worst"] == pytest.approx(6 * -0.01 - 5 * 0.2, rel=1e-12)
        assert (found["ruined"], found["max_drawdown"]) == (True, 1.0)
        assert found["pnl"] == pytest.approx(6 * -0.01 + 5 * 0.4, rel=1e-12)

    def test_covariances_are_shifted_and_tails_are_at_99(self, run):
        # Deviations of 1 % and 2 %: 0.6 % and 0.8 % of equity, at right angles 1 %.
        found = run({"AAA": 0.6, "BBB": 0.4}, self.UNCORRELATED)
        assert found["doubled"]["var"] == pytest.approx(2 * 0.01 * Z, rel=1e-12)
        es = 2 * 0.01 * NormalDist().pdf(Z) / 0.01
        assert found["doubled"]["es"] == pytest.approx(es, rel=1e-9)
        # rho = 1/2: 0.36 + 0.64 + 2 * 0.5 * 0.48 = 1.48
        assert found["together"]["var"] == pytest.approx(0.01 * sqrt(1.48) * Z, rel=1e-12)
        assert set(found["together"]) == {"var", "es"}

    def test_correlation_toward_one_helps_a_hedge(self, run):
        hedged = run({"AAA": 1.4, "BBB": -0.4}, self.UNCORRELATED)["together"]["var"]
        # 1.4 % and -0.8 %: 1.96 + 0.64 - 1.12
        assert hedged == pytest.approx(0.01 * sqrt(1.48) * Z, rel=1e-12)

    def test_the_largest_position_moves_against_its_holder(self, run):
        assert run({"AAA": 0.6, "BBB": 0.4})["halved"] == {"pnl": -0.3}
        assert run({"AAA": 2.1, "BBB": -1.1})["halved"] == {"pnl": -1.05}
        assert run({"AAA": -0.5, "BBB": 0.25})["halved"] == {"pnl": -0.25}

    def test_a_market_move_is_mapped_by_beta(self, run):
        # The two days up to the 9th: AAA -0.1, 0; BBB 0.5, -0.5; the market 0.2, -0.25.
        # About their means: -0.05, 0.5 and 0.225 of a first day, the negatives of the second.
        betas = {"AAA": -0.05 / 0.225, "BBB": 0.5 / 0.225}
        found = run({"AAA": 0.6, "BBB": 0.4})["crash"]
        assert found == {
            "pnl": pytest.approx(-0.2 * (0.6 * betas["AAA"] + 0.4 * betas["BBB"]), rel=1e-12)
        }

    def test_the_smallest_shocks_that_lose_the_limit(self, runner):
        row = runner.of(portfolio({"AAA": 1.5, "BBB": -0.5}), AFTER).snapshot
        assert (row["loss_limit"], row["against"]) == (0.1, pytest.approx(0.05))
        assert row["market"] == pytest.approx(-0.1)
        neutral = runner.of(portfolio({"AAA": 1.0, "BBB": -1.0}), AFTER).snapshot
        assert (neutral["against"], neutral["market"]) == (pytest.approx(0.05), None)
        nothing = runner.of(portfolio({"AAA": 0.0}), AFTER).snapshot
        assert (nothing["against"], nothing["market"]) == (None, None)


class TestUnavailable:
    def test_a_symbol_without_prices_leaves_what_needs_none(self, run):
        found = run({"AAA": 0.6, "ZZZ": 0.4}, ((0.0001, 0.0), (0.0, 0.0004)), source="fallback")
        reason = {"unavailable": "no prices for ZZZ"}
        assert (found["fall"], found["crash"]) == (reason, reason)
        assert found["halved"] == {"pnl": -0.3}
        assert found["doubled"]["var"] == pytest.approx(0.02 * Z, rel=1e-12)

    def test_no_covariance_says_why_and_leaves_the_rest(self, run):
        found = run({"AAA": 1.0}, passed_over={"covariance": "no covariance of AAA"})
        assert found["doubled"] == {"unavailable": "no covariance: no covariance of AAA"}
        assert found["together"] == found["doubled"]
        assert found["fall"]["pnl"] == pytest.approx(-0.01)

    def test_a_covariance_that_is_none_is_refused(self, run):
        found = run({"AAA": 0.5, "BBB": 0.5}, ((0.0001, -0.0004), (-0.0004, 0.0001)))
        assert "variance is" in found["doubled"]["unavailable"]
        assert set(found["doubled"]) == {"unavailable"}

    def test_a_window_is_not_replayed_before_its_last_close_is_known(self, run):
        before = AFTER - timedelta(microseconds=1)
        found = run({"AAA": 1.0}, as_of=before)["fall"]
        assert found == {"unavailable": "2024-01-09 lies after 2024-01-08"}
        assert "pnl" in run({"AAA": 1.0}, as_of=AFTER)["fall"]

    def test_too_short_a_panel_has_no_betas(self, run):
        early = datetime(2024, 1, 5, 21, tzinfo=UTC)
        found = run({"AAA": 1.0}, as_of=early)["crash"]
        assert found == {"unavailable": "1 days of returns, 2 needed"}
        late = datetime(2024, 3, 1, 21, tzinfo=UTC)
        found = run({"AAA": 1.0}, as_of=late)["crash"]
        assert found == {"unavailable": "prices end on 2024-01-10, 51 days before 2024-03-01"}

    def test_what_lies_ahead_lacks_nothing_and_everything_else_does(self, runner):
        unknown = portfolio({"ZZZ": 1.0}, passed_over={"covariance": "lost"})
        reason = "no covariance: lost"
        assert runner.of(unknown, AFTER).lacking == [
            ("fall", "no prices for ZZZ"),
            ("doubled", reason),
            ("together", reason),
            ("crash", "no prices for ZZZ"),
        ]
        early = datetime(2024, 1, 8, 21, tzinfo=UTC)
        assert runner.of(portfolio({"AAA": 1.0}, [[0.0001]]), early).lacking == []


class TestRows:
    def test_fit_their_tables(self, runner):
        rows = runner.rows_of(landed({"stress": {"flood": {"loss": 1.5}}}), portfolio({"AAA": 1.0}))
        assert set(rows.snapshot) == set(snapshot_stress.c.keys())
        for row in rows.results:
            assert set(row) == set(stress_results.c.keys())

    def test_name_what_they_were_made_from(self, runner, book, load):
        made = runner.rows_of(landed(), portfolio({"AAA": 1.0}, [[0.0001]], source="fallback"))
        assert made.snapshot == {
            "position": 7, "day": date(2024, 1, 9), "world_id": "equities", "version": "v1",
            "as_of": AFTER, "stage": "paper", "snapshot_digest": "sha256:s",
            "book_digest": book.digest, "prices_digest": load(PRICES).digest,
            "covariance_source": "fallback", "loss_limit": 0.1, "against": 0.1, "market": -0.1,
            "code_version": CODE_VERSION,
        }  # fmt: skip
        assert {(row["position"], row["day"]) for row in made.results} == {(7, date(2024, 1, 9))}
        without = runner.rows_of(landed(), portfolio({"AAA": 1.0}))
        assert without.snapshot["covariance_source"] is None

    def test_are_in_the_order_of_the_book(self, runner):
        rows = runner.of(portfolio({"AAA": 1.0}), AFTER).results
        assert [row["scenario"] for row in rows] == [
            "fall", "doubled", "together", "halved", "crash",
        ]  # fmt: skip
        assert {row["origin"] for row in rows} == {"riskhub"}

    def test_of_a_book_say_what_it_says(self, book):
        rows = book_rows(book)
        assert [(row["scenario"], row["place"], row["kind"]) for row in rows] == [
            ("fall", 0, "historical"), ("doubled", 1, "covariance"), ("together", 2, "covariance"),
            ("halved", 3, "gap"), ("crash", 4, "market"),
        ]  # fmt: skip
        assert rows[4]["label"] == "Crash (-20.00%), mapped by beta"
        assert json.loads(json.dumps(rows[0]["definition"]))["start"] == "2024-01-05"


class TestProducers:
    STRESS = {"crash": {"loss_pct": 12.5, "var": 3}, "flood": {"pnl": -0.4}}  # noqa: RUF012

    def test_own_numbers_are_kept_beside_ours_as_they_were_sent(self, runner):
        results = runner.rows_of(landed({"stress": self.STRESS}), portfolio({"AAA": 1.0})).results
        own = [row for row in results if row["origin"] == "producer"]
        assert [(row["scenario"], said(row)) for row in own] == [
            ("crash", {"position": 7, "day": date(2024, 1, 9), "measures": self.STRESS["crash"]}),
            ("flood", {"position": 7, "day": date(2024, 1, 9), "measures": self.STRESS["flood"]}),
        ]
        (ours,) = (
            row for row in results if (row["origin"], row["scenario"]) == ("riskhub", "crash")
        )
        assert ours["pnl"] is not None
        assert ours["measures"] is None

    def test_a_block_is_the_same_by_reference(self, tmp_path):
        blobs = FileBlobs(tmp_path)
        ref = blobs.put(canonical_json(self.STRESS))
        by_reference = producer_rows({"stress_ref": ref}, blobs)
        assert by_reference == producer_rows({"stress": self.STRESS}, None)
        assert [row["measures"] for row in by_reference] == list(self.STRESS.values())

    def test_a_reference_that_leads_nowhere_is_told_and_counted(self, runner):
        body = {"stress_ref": "file:nothing"}
        rows = runner.rows_of(landed(body), portfolio({"AAA": 1.0}, [[0.0001]]))
        (own,) = (row for row in rows.results if row["origin"] == "producer")
        assert own["scenario"] == "stress_ref"
        assert own["unavailable"] == "file:nothing: no blob store is configured any more"
        assert own["measures"] is None
        assert rows.lacking == [("stress_ref", own["unavailable"])]

    def test_nothing_sent_is_no_row(self):
        assert producer_rows({}, None) == producer_rows({"stress": {}}, None) == []


class TestSameBits:
    def many(self, panel, shipped, *, window=500):
        """Portfolios of several sets of symbols, at several closes, in an order that mixes them."""
        sources = Sources(panel, window, 250, 0.03, 0.8)
        generator = np.random.default_rng(5)
        found = []
        for number in range(24):
            symbols = panel.symbols[number % 4 : 20 - 3 * (number % 3)]
            weights = dict(zip(symbols, generator.uniform(-0.3, 1.0, len(symbols)), strict=True))
            day = date(2021, 5, 3) - timedelta(days=97 * (number % 5))
            snapshot = landed(as_of=datetime(day.year, day.month, day.day, 22, tzinfo=UTC))
            found.append((snapshot, portfolio_of(snapshot, weights, sources)))
        return found

    def test_alone_and_in_a_batch_and_in_another_order(self, panel, shipped):
        many = self.many(panel, shipped)
        together = StressRunner(shipped, panel, SETTINGS)
        forward = [together.rows_of(*each) for each in many]
        backward = [together.rows_of(*each) for each in reversed(many)][::-1]
        alone = [StressRunner(shipped, panel, SETTINGS).rows_of(*each) for each in many]
        assert forward == backward == alone

    def test_whatever_fits_in_memory(self, panel, shipped, monkeypatch):
        many = self.many(panel, shipped)
        roomy = [StressRunner(shipped, panel, SETTINGS).rows_of(*each) for each in many]
        monkeypatch.setattr("riskhub.stressing._WINDOW_BYTES", 200_000)
        tight = StressRunner(shipped, panel, SETTINGS)
        assert [tight.rows_of(*each) for each in many] == roomy
        assert tight._windows._bytes <= 200_000

    def test_as_the_kernel_gives_them(self, panel, shipped):
        weights = dict.fromkeys(panel.symbols, 0.05)
        rows = StressRunner(shipped, panel, SETTINGS).of(
            portfolio(weights), datetime(2022, 12, 28, 21, tzinfo=UTC)
        )
        results = {row["scenario"]: row for row in rows.results}
        for scenario in shipped.scenarios:
            if isinstance(scenario, Historical):
                moves = window_returns(scenario, panel, sorted(weights), scenario.end)
                held = replay([0.05] * 20, moves)
                result = results[scenario.id]
                assert (result["pnl"], result["worst"]) == (held.pnl, held.worst)
                assert (result["max_drawdown"], result["ruined"]) == (held.max_drawdown, False)


class TestRealPanel:
    def test_covid_on_ew20_is_buy_and_hold_in_pandas(self, panel, shipped):
        rows = StressRunner(shipped, panel, SETTINGS).of(
            portfolio(dict.fromkeys(panel.symbols, 0.05)),
            datetime(2020, 6, 30, 21, tzinfo=UTC),
        )
        prices = pd.read_csv(DATA / "sp500_prices.csv.gz", index_col="Date")
        held = prices.loc["2020-02-19":"2020-03-23"]
        equity = (held / held.iloc[0]).mean(axis=1)
        (covid,) = (row for row in rows.results if row["scenario"] == "covid-2020")
        assert covid["pnl"] == pytest.approx(equity.iloc[-1] - 1, rel=1e-12)
        assert covid["pnl"] < -0.25
        assert covid["worst"] == pytest.approx(equity.min() - 1, rel=1e-12)
        drawdown = (1 - equity / equity.cummax()).max()
        assert covid["max_drawdown"] == pytest.approx(drawdown, rel=1e-12)

    def test_the_future_can_be_cut_off_without_a_change(self, panel, shipped):
        for day in (date(1991, 3, 1), date(2008, 10, 14), date(2020, 3, 22), date(2022, 6, 1)):
            stop = sum(each <= day for each in panel.days)
            cut = replace(panel, days=panel.days[:stop], prices=panel.prices[:stop], digest="cut")
            found = []
            for prices in (panel, cut):
                sources = Sources(prices, 500, 250, 0.03, 0.8)
                snapshot = landed(as_of=datetime(day.year, day.month, day.day, 21, tzinfo=UTC))
                measured = portfolio_of(snapshot, {"AAPL": 1.4, "XOM": -0.4}, sources)
                found.append(StressRunner(shipped, prices, SETTINGS).rows_of(snapshot, measured))
            whole, up_to_the_day = found
            assert up_to_the_day.results == whole.results
            assert up_to_the_day.snapshot == whole.snapshot | {"prices_digest": "cut"}
            assert any(row["pnl"] is not None for row in whole.results)
