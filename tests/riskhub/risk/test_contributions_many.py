from fractions import Fraction
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    BadLevel,
    NoRisk,
    NotFinite,
    NotPsd,
    NotSymmetric,
    WrongShape,
    euler_contributions,
    euler_contributions_many,
    normal_from_moments,
    portfolio_returns,
    portfolio_returns_many,
    sample_covariance,
)

C99 = Fraction(99, 100)
NAMES = ("marginal_var", "marginal_es", "component_var", "component_es")
seeds = st.integers(0, 2**32 - 1)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(9999, 10000))


def market(seed, m, n, days=80):
    """Weights of m long-short portfolios, and the covariance and means of n symbols."""
    generator = np.random.default_rng(seed)
    returns = generator.standard_t(4, (days, n)) * 0.01
    return generator.normal(0, 0.5, (m, n)), sample_covariance(returns), returns.mean(axis=0)


def assert_is_the_single_one(many, row, weights, covariance, level, means=None):
    one, other = euler_contributions(weights, covariance, level, means), many.of(row)
    # Rounding is of what is summed, before any of it cancels.
    size = np.abs(weights)
    uncancelled = np.abs(covariance) @ size
    sigma = sqrt(weights @ covariance @ weights)
    cancelled = max(1.0, size @ uncancelled / sigma**2)
    drift = 0.0 if means is None else np.abs(means)
    marginal = 1e-12 * cancelled * (5 * uncancelled / sigma + drift)
    bounds = [marginal, marginal, size * marginal, size * marginal]
    for name, bound in zip(NAMES, bounds, strict=True):
        assert (np.abs(getattr(other, name) - getattr(one, name)) <= bound).all()
    total = float(size @ marginal)
    assert other.tail.var == pytest.approx(one.tail.var, rel=1e-12, abs=total)
    assert other.tail.es == pytest.approx(one.tail.es, rel=1e-12, abs=total)
    assert (other.tail.method, other.tail.level) == ("normal", level)


class TestEuler:
    def test_by_hand(self):
        # C w = (0.032, 0.042) and w' C w = 0.036; (0.04, 0.02) and 0.04.
        accepted, many = euler_contributions_many(
            [[0.6, 0.4], [1.0, 0.0]], [[0.04, 0.02], [0.02, 0.075]], C99
        )
        assert accepted.tolist() == [True, True]
        z = NormalDist().inv_cdf(0.99)
        sigma = sqrt(0.036)
        np.testing.assert_allclose(
            many.component_var, [[z * 0.0192 / sigma, z * 0.0168 / sigma], [z * 0.2, 0]], rtol=1e-12
        )
        np.testing.assert_allclose(many.marginal_var[1], [z * 0.2, z * 0.1], rtol=1e-12)
        tails = [normal_from_moments(0.0, sigma, C99), normal_from_moments(0.0, 0.2, C99)]
        np.testing.assert_allclose(many.tails.var[:, 0], [t.var for t in tails], rtol=1e-12)
        np.testing.assert_allclose(many.tails.es[:, 0], [t.es for t in tails], rtol=1e-12)

    def test_long_short_closed_form(self):
        # Independent symbols: the share of each is its part of the variance, whatever its sign.
        _, many = euler_contributions_many([[1.0, -2.0, 1.0]], np.diag([1.0, 1.0, 4.0]), C99)
        np.testing.assert_allclose(many.of(0).var_shares(), [1 / 9, 4 / 9, 4 / 9], rtol=1e-12)
        assert (np.sign(many.marginal_var) == [[1, -1, 1]]).all()
        # A short that hedges takes risk away.
        _, hedged = euler_contributions_many([[1.0, -0.3]], [[1.0, 0.9], [0.9, 1.0]], C99)
        assert hedged.component_es[0, 0] > 0 > hedged.component_es[0, 1]

    @given(seeds, st.integers(1, 9), st.integers(1, 12), levels, st.booleans())
    def test_each_row_is_the_single_function_s(self, seed, m, n, level, drifting):
        weights, covariance, means = market(seed, m, n)
        given_means = means if drifting else None
        accepted, many = euler_contributions_many(weights, covariance, level, given_means)
        assert accepted.all()
        for row in range(m):
            assert_is_the_single_one(many, row, weights[row], covariance, level, given_means)

    @given(seeds, levels)
    def test_add_up(self, seed, level):
        weights, covariance, means = market(seed, 5, 7)
        _, many = euler_contributions_many(weights, covariance, level, means)
        for components, totals in [
            (many.component_var, many.tails.var[:, 0]),
            (many.component_es, many.tails.es[:, 0]),
        ]:
            left = components.sum(axis=1) - totals
            assert (np.abs(left) <= 1e-12 * np.abs(components).sum(axis=1)).all()

    def test_of_more_portfolios_than_are_taken_at_once(self):
        weights, covariance, means = market(1, 6000, 100, days=500)
        weights[::7] = 0.0  # so that a chunk's results do not stand where its weights do
        accepted, many = euler_contributions_many(weights, covariance, C99, means)
        assert accepted.tolist() == [row % 7 != 0 for row in range(6000)]
        assert many.component_var.shape == (accepted.sum(), 100)
        for place, row in list(enumerate(np.flatnonzero(accepted)))[::97]:
            assert_is_the_single_one(many, place, weights[row], covariance, C99, means)

    def test_those_without_risk_are_left_out(self):
        matrix = np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]])
        weights = np.array(
            [[1.0, -1.0, 0.0], [1.0, -1.0, 0.1], [0.0, 0.0, 0.0], [0.1 + 0.2, -0.3, 0.0]]
        )
        accepted, many = euler_contributions_many(weights, matrix, C99)
        assert accepted.tolist() == [False, True, False, False]
        assert_is_the_single_one(many, 0, weights[1], matrix, C99)
        for row in (0, 2, 3):
            with pytest.raises(NoRisk):
                euler_contributions(weights[row], matrix, C99)

    @given(st.floats(1e-7, 1e-3))
    def test_a_hedge_is_refused_where_the_single_function_refuses_it(self, left):
        # The variance is left^2, of 4 when nothing cancels: too little below 2e-5.
        weights, matrix = [1.0, left - 1.0], np.ones((2, 2))
        accepted, _ = euler_contributions_many([weights], matrix, C99)
        if abs(left - 2e-5) > 1e-7:
            assert accepted[0] == (left > 2e-5)

    @pytest.mark.parametrize(("m", "n"), [(0, 3), (0, 0), (2, 0)])
    def test_of_nothing_is_empty(self, m, n):
        accepted, many = euler_contributions_many(np.empty((m, n)), np.eye(n), C99)
        assert accepted.tolist() == [False] * m
        assert many.component_var.shape == (0, n)
        assert many.tails.var.shape == (0, 1)

    def test_leaves_its_input_alone_and_its_result_cannot_be_changed(self):
        weights, covariance, _ = market(2, 4, 3)
        before = weights.copy(), covariance.copy()
        _, many = euler_contributions_many(weights, covariance, C99)
        np.testing.assert_array_equal(weights, before[0])
        np.testing.assert_array_equal(covariance, before[1])
        for name in NAMES:
            assert not getattr(many, name).flags.writeable
            assert not getattr(many.of(1), name).flags.writeable

    def test_leaves_no_negative_zero(self):
        _, many = euler_contributions_many([[1.0, 0.0]], [[1.0, -0.5], [-0.5, 1.0]], C99)
        assert str(many.component_var[0, 1]) == str(many.component_es[0, 1]) == "0.0"

    def test_refuses_by_name(self):
        with pytest.raises(NotPsd, match="variance is -2"):
            euler_contributions_many([[1, 0], [1, -1]], [[1.0, 2.0], [2.0, 1.0]], C99)
        with pytest.raises(WrongShape, match="1 weights for a covariance of 2"):
            euler_contributions_many([[1.0]], np.eye(2), C99)
        with pytest.raises(WrongShape, match="1 means for 2"):
            euler_contributions_many([[1.0, 1.0]], np.eye(2), C99, means=[0.0])
        with pytest.raises(WrongShape):
            euler_contributions_many([1.0, 1.0], np.eye(2), C99)
        with pytest.raises(NotFinite):
            euler_contributions_many([[1.0, 1.0], [1.0, np.nan]], np.eye(2), C99)
        with pytest.raises(NotFinite, match="overflows"):
            euler_contributions_many([[1e200, -1e200]], np.eye(2), C99)
        with pytest.raises(NotSymmetric):
            euler_contributions_many([[1.0, 1.0]], [[1.0, 0.1], [0.2, 1.0]], C99)
        with pytest.raises(BadLevel):
            euler_contributions_many([[1.0, 1.0]], np.eye(2), Fraction(1, 100))


class TestPortfolioReturns:
    def test_by_hand(self):
        returns = portfolio_returns_many([[0.01, -0.02], [0.03, 0.0]], [[1.0, -0.5], [0.0, 2.0]])
        np.testing.assert_allclose(returns, [[0.02, 0.03], [-0.04, 0.0]], rtol=1e-15)

    @given(seeds, st.integers(0, 9), st.integers(1, 30), st.integers(1, 40))
    def test_is_each_portfolio_s(self, seed, m, n, days):
        generator = np.random.default_rng(seed)
        scenarios, weights = generator.normal(0, 0.01, (days, n)), generator.normal(0, 0.5, (m, n))
        returns = portfolio_returns_many(scenarios, weights)
        assert returns.shape == (m, days)
        for row in range(m):
            expected = portfolio_returns(scenarios, weights[row])
            size = np.abs(scenarios) @ np.abs(weights[row])
            assert (np.abs(returns[row] - expected) <= 1e-14 * size).all()

    def test_refuses_by_name(self):
        with pytest.raises(WrongShape, match="3 weights for 2 columns"):
            portfolio_returns_many(np.zeros((4, 2)), np.zeros((5, 3)))
        with pytest.raises(WrongShape):
            portfolio_returns_many(np.zeros((4, 2)), [0.5, 0.5])
        with pytest.raises(NotFinite):
            portfolio_returns_many([[0.01, np.inf]], [[0.5, 0.5]])
        with pytest.raises(NotFinite, match="portfolio returns"):
            portfolio_returns_many([[1e200, 1e200]], [[1e200, -1e200]])
