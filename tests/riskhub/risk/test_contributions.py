from fractions import Fraction
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from riskhub.prices import load_panel
from riskhub.risk import (
    LEVELS,
    BadLevel,
    NoRisk,
    NotFinite,
    NothingToShare,
    NotPsd,
    TooFewReturns,
    WrongShape,
    euler_contributions,
    historical,
    historical_contributions,
    normal_from_moments,
    portfolio_returns,
    sample_covariance,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sp500_prices.csv.gz"
C90, C99 = Fraction(90, 100), Fraction(99, 100)
seeds = st.integers(0, 2**32 - 1)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(9999, 10000))


def book(seed, n=6, days=60):
    """A long-short portfolio and scenarios without ties."""
    generator = np.random.default_rng(seed)
    return generator.normal(0, 0.5, n), generator.standard_t(4, (days, n)) * 0.01


def assert_adds_up(result):
    for components, total in [
        (result.component_var, result.tail.var),
        (result.component_es, result.tail.es),
    ]:
        assert components.sum() == pytest.approx(total, abs=1e-12 * np.abs(components).sum())


class TestNormal:
    def test_by_hand(self):
        # C w = (0.032, 0.042), w' C w = 0.036: sigma_p = 0.18974.
        result = euler_contributions([0.6, 0.4], [[0.04, 0.02], [0.02, 0.075]], C99)
        sigma, z = sqrt(0.0360), 2.3263478740
        np.testing.assert_allclose(
            result.component_var, [z * 0.0192 / sigma, z * 0.0168 / sigma], rtol=1e-9
        )
        np.testing.assert_allclose(result.var_shares(), [0.0192 / 0.036, 0.0168 / 0.036])
        np.testing.assert_allclose(
            result.marginal_es, 2.6652142203 * np.array([0.032, 0.042]) / sigma, rtol=1e-9
        )
        assert result.tail == normal_from_moments(0.0, sigma, C99)

    def test_uncorrelated_positions_share_by_variance(self):
        # (w sigma)^2: 1, 4, 4 of 9; sign does not matter.
        result = euler_contributions([1.0, -2.0, 1.0], np.diag([1.0, 1.0, 4.0]), C99)
        np.testing.assert_allclose(result.var_shares(), [1 / 9, 4 / 9, 4 / 9], rtol=1e-12)
        np.testing.assert_allclose(result.es_shares(), [1 / 9, 4 / 9, 4 / 9], rtol=1e-12)

    def test_a_hedge_contributes_less_than_nothing(self):
        result = euler_contributions([1.0, -0.3], [[1.0, 0.9], [0.9, 1.0]], C99)
        assert result.component_var[0] > 0 > result.component_var[1]
        assert result.var_shares().sum() == pytest.approx(1.0, rel=1e-12)

    @given(seeds, levels)
    def test_add_up(self, seed, level):
        weights, returns = book(seed)
        result = euler_contributions(
            weights, sample_covariance(returns), level, returns.mean(axis=0)
        )
        assert_adds_up(result)

    @given(seeds)
    def test_marginal_is_the_derivative(self, seed):
        weights, returns = book(seed)
        covariance, mean = sample_covariance(returns), returns.mean(axis=0)
        result = euler_contributions(weights, covariance, C99, mean)

        def tail(w):
            sigma = sqrt(w @ covariance @ w)
            z = stats.norm.ppf(0.99)
            return np.array([z, stats.norm.pdf(z) / 0.01]) * sigma - w @ mean

        step = 1e-6
        for i, unit in enumerate(np.eye(len(weights)) * step):
            var, es = (tail(weights + unit) - tail(weights - unit)) / (2 * step)
            assert result.marginal_var[i] == pytest.approx(var, rel=1e-4, abs=1e-7)
            assert result.marginal_es[i] == pytest.approx(es, rel=1e-4, abs=1e-7)

    def test_agrees_with_the_conditional_expectation(self):
        # Normal ES contribution is E[-w_i r_i | L >= VaR]: seeded Monte Carlo, 4 standard errors.
        weights = np.array([0.5, -0.2, 0.7])
        covariance = np.array([[4.0, 1.0, 0.5], [1.0, 9.0, -2.0], [0.5, -2.0, 1.0]]) * 1e-4
        draws = np.random.default_rng(1).multivariate_normal(np.zeros(3), covariance, 200_000)
        result = euler_contributions(weights, covariance, C90)
        tail = -draws[-draws @ weights >= result.tail.var] * weights
        error = tail.std(axis=0, ddof=1) / sqrt(len(tail))
        assert (np.abs(tail.mean(axis=0) - result.component_es) < 4 * error).all()

    def test_a_net_of_zero_does_not_divide(self):
        result = euler_contributions([0.5, -0.5], [[1.0, 0.2], [0.2, 1.0]], C99)
        np.testing.assert_allclose(result.var_shares(), [0.5, 0.5], rtol=1e-12)

    def test_without_risk_there_is_no_derivative(self):
        for weights, matrix in [
            ([1.0, -1.0], np.ones((2, 2))),  # a perfect hedge
            ([0.0, 0.0], np.eye(2)),
            ([1.0, 1.0], np.zeros((2, 2))),
            ([0.1 + 0.2, -0.3], np.ones((2, 2))),  # a perfect hedge but for rounding
        ]:
            with pytest.raises(NoRisk):
                euler_contributions(weights, matrix, C99)

    def test_a_total_that_is_no_loss_has_no_shares(self):
        median = euler_contributions([0.5, 0.5], np.eye(2), Fraction(1, 2))  # VaR is zero
        with pytest.raises(NothingToShare, match="value at risk is 0"):
            median.var_shares()
        assert median.es_shares().sum() == pytest.approx(1.0)
        gain = euler_contributions([0.5, 0.5], np.eye(2) * 1e-6, C99, means=[0.1, 0.1])
        with pytest.raises(NothingToShare, match=r"expected shortfall is -0\.09"):
            gain.es_shares()

    def test_refuses_by_name(self):
        with pytest.raises(NotPsd):
            euler_contributions([1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]], C99)
        with pytest.raises(WrongShape, match="1 weights for a covariance of 2"):
            euler_contributions([1.0], np.eye(2), C99)
        with pytest.raises(WrongShape, match="1 means for 2"):
            euler_contributions([1.0, 1.0], np.eye(2), C99, means=[0.0])
        with pytest.raises(NotFinite):
            euler_contributions([1.0, np.nan], np.eye(2), C99)
        with pytest.raises(BadLevel):
            euler_contributions([1.0, 1.0], np.eye(2), Fraction(1, 100))


class TestHistorical:
    def test_by_hand_with_a_fraction_in_the_tail(self):
        # 15 scenarios at 90 %: 1.5 of them. Losses 0.10 = 0.12 - 0.02 and 0.06 = 0.02 + 0.04.
        scenarios = np.full((15, 2), 0.01)
        scenarios[4] = [-0.04, -0.08]
        scenarios[9] = [-0.24, 0.04]
        result = historical_contributions([0.5, 0.5], scenarios, C90)
        assert result.tail.var == pytest.approx(0.06, rel=1e-12)
        np.testing.assert_allclose(result.component_var, [0.02, 0.04], rtol=1e-12)
        expected = [(0.12 + 0.02 / 2) / 1.5, (-0.02 + 0.04 / 2) / 1.5]
        np.testing.assert_allclose(result.component_es, expected, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(result.var_shares(), [1 / 3, 2 / 3], rtol=1e-12)

    def test_by_hand_with_a_whole_tail_and_a_short(self):
        scenarios = np.full((20, 2), 0.001)
        scenarios[0] = [-0.03, 0.02]  # loss 0.05
        scenarios[1] = [0.01, 0.04]  # loss 0.03
        result = historical_contributions([1.0, -1.0], scenarios, C90)
        np.testing.assert_allclose(result.marginal_var, [-0.01, -0.04], rtol=1e-12)
        np.testing.assert_allclose(result.component_var, [-0.01, 0.04], rtol=1e-12)
        np.testing.assert_allclose(result.component_es, [0.01, 0.03], rtol=1e-12)

    def test_of_equal_losses_the_oldest_is_the_worst(self):
        scenarios = [[-0.02, 0.0], [0.0, -0.02], [0.01, 0.01]]
        result = historical_contributions([1.0, 1.0], scenarios, C90)
        assert result.component_var.tolist() == [0.02, 0.0]
        assert [str(x) for x in result.component_var] == ["0.02", "0.0"]

    @given(seeds, st.integers(1, 80), levels)
    def test_add_up_to_the_historical_tail(self, seed, days, level):
        weights, scenarios = book(seed, days=days)
        result = historical_contributions(weights, scenarios, level)
        assert_adds_up(result)
        assert result.tail == historical(portfolio_returns(scenarios, weights), level)

    @given(seeds)
    def test_marginal_es_is_the_derivative(self, seed):
        weights, scenarios = book(seed)
        result = historical_contributions(weights, scenarios, C90)
        step = 1e-9
        for i, unit in enumerate(np.eye(len(weights)) * step):
            es = [historical(scenarios @ (weights + side * unit), C90).es for side in (1, -1)]
            assert result.marginal_es[i] == pytest.approx((es[0] - es[1]) / (2 * step), abs=1e-4)

    @given(seeds)
    def test_es_contributions_are_below_what_each_position_risks_alone(self, seed):
        # Tasche: subadditivity bounds the Euler contribution by the stand-alone ES.
        weights, scenarios = book(seed)
        result = historical_contributions(weights, scenarios, C90)
        for i, weight in enumerate(weights):
            assert result.component_es[i] <= historical(weight * scenarios[:, i], C90).es + 1e-12

    def test_refuses_by_name(self):
        with pytest.raises(TooFewReturns):
            historical_contributions([0.5, 0.5], np.empty((0, 2)), C99)
        with pytest.raises(WrongShape):
            historical_contributions([0.5], np.zeros((3, 2)), C99)
        with pytest.raises(NotFinite):
            historical_contributions([0.5], [[np.inf]], C99)
        with pytest.raises(NothingToShare):
            historical_contributions([0.5, 0.5], np.zeros((3, 2)), C99).es_shares()

    @pytest.mark.parametrize("level", LEVELS)
    def test_the_panel_adds_up_to_its_own_tail(self, level):
        panel = load_panel(SHIPPED)
        weights = np.full(20, 0.05)
        result = historical_contributions(weights, panel.returns[-500:], level)
        assert_adds_up(result)
        losses = -(panel.prices[-500:] / panel.prices[-501:-1] - 1) * 0.05
        kth = np.argsort(-losses.sum(axis=1))[result.tail.rank - 1]
        np.testing.assert_allclose(result.component_var, losses[kth], rtol=1e-12, atol=1e-16)


def both(weights, scenarios, level):
    yield historical_contributions(weights, scenarios, level)
    yield euler_contributions(weights, sample_covariance(scenarios), level)


@given(seeds, st.floats(1e-3, 1e3))
def test_a_portfolio_twice_as_large_contributes_twice_as_much(seed, scale):
    weights, scenarios = book(seed)
    for one, other in zip(
        both(weights, scenarios, C90), both(weights * scale, scenarios, C90), strict=True
    ):
        np.testing.assert_allclose(other.component_es, one.component_es * scale, rtol=1e-9)
        np.testing.assert_allclose(other.component_var, one.component_var * scale, rtol=1e-9)
        np.testing.assert_allclose(other.marginal_es, one.marginal_es, rtol=1e-8, atol=1e-14)


@given(seeds, st.permutations(range(6)))
def test_the_order_of_symbols_is_the_order_of_contributions(seed, order):
    weights, scenarios = book(seed)
    for one, other in zip(
        both(weights, scenarios, C90), both(weights[order], scenarios[:, order], C90), strict=True
    ):
        np.testing.assert_allclose(other.component_es, one.component_es[order], rtol=1e-9)
        np.testing.assert_allclose(other.component_var, one.component_var[order], rtol=1e-9)


@given(seeds)
def test_a_position_in_two_lots_contributes_as_one(seed):
    weights, scenarios = book(seed)
    assume(abs(weights[0]) > 1e-3)
    split = np.array([weights[0] / 4, *weights[1:], weights[0] * 3 / 4])
    lots = np.column_stack([scenarios, scenarios[:, 0]])
    for one, other in zip(both(weights, scenarios, C90), both(split, lots, C90), strict=True):
        together = other.component_es[0] + other.component_es[-1]
        assert together == pytest.approx(one.component_es[0], rel=1e-9, abs=1e-14)


def test_results_can_not_be_changed():
    for result in both(*book(1), C90):
        with pytest.raises(ValueError, match="read-only"):
            result.component_es[0] = 1.0
