from datetime import date
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.prices import load_panel
from riskhub.risk import (
    NotFinite,
    Ruin,
    TooFewReturns,
    WrongShape,
    annualised,
    current_drawdown,
    drawdowns,
    drift,
    max_drawdown,
    moments,
    portfolio_returns,
    volatility,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sp500_prices.csv.gz"
one_return = st.floats(-0.9, 0.9, allow_subnormal=False)
returns = st.lists(one_return, min_size=2, max_size=200)


class TestPortfolioReturns:
    def test_by_hand_with_a_short(self):
        matrix = [[0.10, 0.05], [-0.02, 0.04]]
        expected = [1.5 * 0.10 - 0.5 * 0.05, -1.5 * 0.02 - 0.5 * 0.04]
        np.testing.assert_allclose(portfolio_returns(matrix, [1.5, -0.5]), expected, rtol=1e-15)

    def test_a_day_has_the_same_return_in_every_window(self):
        panel = load_panel(SHIPPED)
        weights = np.random.default_rng(7).dirichlet(np.ones(20))
        whole = dict(zip(panel.return_days, portfolio_returns(panel.returns, weights), strict=True))
        for length in (1, 2, 3, 5, 250, 499, 500, 501):
            window = panel.window(panel.symbols, date(2015, 6, 30), length)
            days = [day for day in panel.return_days if day <= date(2015, 6, 30)][-length:]
            assert portfolio_returns(window, weights).tolist() == [whole[day] for day in days]

    def test_of_no_days_is_empty(self):
        assert portfolio_returns(np.empty((0, 2)), [0.5, 0.5]).shape == (0,)

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(WrongShape, match="3 weights for 2 columns"):
            portfolio_returns([[0.1, 0.2]], [0.3, 0.3, 0.4])
        with pytest.raises(WrongShape):
            portfolio_returns([0.1, 0.2], [0.5, 0.5])

    def test_refuses_nan_even_at_weight_zero(self):
        with pytest.raises(NotFinite, match="asset returns"):
            portfolio_returns([[np.nan, 0.1]], [0.0, 1.0])
        with pytest.raises(NotFinite, match="weights"):
            portfolio_returns([[0.1, 0.1]], [np.nan, 1.0])


class TestDrift:
    def test_by_hand(self):
        # 60 grows to 66, 40 falls to 38: 104 in all.
        expected = [66 / 104, 38 / 104]
        np.testing.assert_allclose(drift([0.6, 0.4], [0.10, -0.05]), expected, rtol=1e-15)

    def test_a_short_that_rises_weighs_more(self):
        # Long 150, short 50; the short's asset doubles: 150 - 100 leaves 50.
        np.testing.assert_allclose(drift([1.5, -0.5], [0.0, 1.0]), [3.0, -2.0], rtol=1e-15)

    def test_cash_is_what_the_weights_leave(self):
        # 50 in the asset, 50 in cash; the asset doubles.
        np.testing.assert_allclose(drift([0.5], [1.0]), [100 / 150], rtol=1e-15)

    def test_holding_from_day_to_day_earns_what_the_prices_earn(self):
        generator = np.random.default_rng(3)
        matrix = generator.normal(0, 0.02, (250, 4))
        start = np.array([0.7, 0.5, -0.3, 0.1])
        weights, wealth = start, 1.0
        for row in matrix:
            wealth *= 1 + portfolio_returns([row], weights)[0]
            weights = drift(weights, row)
        shares = start * np.prod(1 + matrix, axis=0)
        assert wealth == pytest.approx(shares.sum(), rel=1e-12)
        np.testing.assert_allclose(weights, shares / shares.sum(), rtol=1e-11)

    @pytest.mark.parametrize("fall", [-1.0, -1.5])
    def test_refuses_a_day_that_leaves_nothing(self, fall):
        with pytest.raises(Ruin):
            drift([1.0], [fall])


class TestVolatility:
    def test_by_hand(self):
        # mean 0.01, squares 0.0001 + 0 + 0.0001 over 2
        assert volatility([0.0, 0.01, 0.02]) == pytest.approx(0.01, rel=1e-15)
        assert moments([0.0, 0.01, 0.02])[0] == pytest.approx(0.01, rel=1e-15)

    @given(returns)
    def test_agrees_with_numpy(self, sample):
        assert volatility(sample) == pytest.approx(np.std(sample, ddof=1), rel=1e-12, abs=1e-18)

    def test_annual_is_daily_by_the_root_of_252(self):
        assert annualised(0.01) == pytest.approx(0.1587450787, abs=1e-10)
        assert annualised(1.0) == sqrt(252)

    def test_needs_two_returns(self):
        with pytest.raises(TooFewReturns):
            volatility([0.01])

    @pytest.mark.parametrize("sample", [[1e200, -1e200], [1e308, 1e308, -1e308], [0.0, np.nan]])
    def test_refuses_rather_than_overflow(self, sample):
        with pytest.raises(NotFinite):
            volatility(sample)


class TestDrawdown:
    def test_by_hand(self):
        # wealth 1.1, 0.55, 0.66, 1.32, 0.99
        sample = [0.1, -0.5, 0.2, 1.0, -0.25]
        np.testing.assert_allclose(drawdowns(sample), [0, 0.5, 0.4, 0, 0.25], atol=1e-15)
        assert max_drawdown(sample) == pytest.approx(0.5, rel=1e-14)
        assert current_drawdown(sample) == pytest.approx(0.25, rel=1e-14)

    def test_the_start_is_the_first_peak(self):
        assert max_drawdown([-0.1]) == pytest.approx(0.1, rel=1e-14)
        assert current_drawdown([-0.1, 0.05]) == pytest.approx(1 - 0.9 * 1.05, rel=1e-14)

    def test_of_a_rise_is_a_plain_zero(self):
        assert str(max_drawdown([0.01, 0.0, 0.02])) == "0.0"
        assert str(current_drawdown([0.01, 0.0, 0.02])) == "0.0"

    @given(returns)
    def test_agrees_with_wealth_and_its_peak(self, sample):
        wealth, peak, expected = 1.0, 1.0, []
        for r in sample:
            wealth *= 1 + r
            peak = max(peak, wealth)
            expected.append(1 - wealth / peak)
        np.testing.assert_allclose(drawdowns(sample), expected, atol=1e-12)
        assert max_drawdown(sample) == pytest.approx(max(expected), abs=1e-12)
        assert current_drawdown(sample) == pytest.approx(expected[-1], abs=1e-12)

    @pytest.mark.parametrize("loss", [-1.0, -1.7])
    def test_ruin_is_for_good(self, loss):
        assert drawdowns([0.1, loss, 0.5, -3.0]).tolist() == [0.0, 1.0, 1.0, 1.0]

    def test_a_long_series_does_not_overflow(self):
        assert max_drawdown(np.full(200_000, 0.05)) == 0.0
        assert max_drawdown(np.full(200_000, -0.05)) == 1.0
        sample = np.append(np.full(200_000, 0.05), -0.2)
        assert current_drawdown(sample) == pytest.approx(0.2, abs=1e-9)

    def test_refuses_nothing_and_nan(self):
        with pytest.raises(TooFewReturns):
            max_drawdown([])
        with pytest.raises(NotFinite):
            current_drawdown([0.1, np.nan])
