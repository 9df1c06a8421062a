from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import (
    NotFinite,
    NothingHeld,
    NotPsd,
    NoVariance,
    RiskInputError,
    TooFewReturns,
    WrongShape,
    beta_shock,
    betas,
    drift,
    gap,
    is_psd,
    max_drawdown,
    normal_from_moments,
    replay,
    reverse_stress,
    sample_covariance,
    scaled_covariance,
    stressed_tail,
)
from riskhub.risk.stress import buy_and_hold, cumulative_returns, stressed_tails

C99 = Fraction(99, 100)
seeds = st.integers(0, 2**32 - 1)
books = st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=1, max_size=12)


def bitten(weights, shock):
    """The loss when each position moves against its holder; a price falls by 100 % at most."""
    return sum(w * min(shock, 1.0) if w > 0 else -w * shock for w in weights)


class TestReplay:
    def test_by_hand(self):
        # 60 and 40: 66 + 40, 33 + 44, 33 + 66
        result = replay([0.6, 0.4], [[0.1, 0.0], [-0.5, 0.1], [0.0, 0.5]])
        np.testing.assert_allclose(result.path, [0.06, -0.23, -0.01], rtol=1e-12)
        assert result.pnl == pytest.approx(-0.01, rel=1e-12)
        assert result.worst == pytest.approx(-0.23, rel=1e-12)
        assert result.max_drawdown == pytest.approx(1 - 0.77 / 1.06, rel=1e-12)
        assert not result.ruined

    def test_a_short_loses_more_the_longer_it_rises(self):
        # short 0.5 of what doubles twice: -0.5, then -1.5
        result = replay([1.0, -0.5], [[0.0, 1.0], [0.0, 1.0]])
        assert result.path.tolist() == [-0.5, -1.5]
        assert (result.pnl, result.worst, result.max_drawdown) == (-1.5, -1.5, 1.0)
        assert result.ruined

    def test_is_of_what_the_assets_returned_since_the_start(self):
        returns = [[0.1, 0.0], [-0.5, 0.1], [0.0, 0.5]]
        cumulative = cumulative_returns(returns)
        np.testing.assert_allclose(
            cumulative, [[0.1, 0.0], [-0.45, 0.1], [-0.45, 0.65]], rtol=1e-12
        )
        for weights in ([0.6, 0.4], [1.5, -0.5]):
            assert buy_and_hold(weights, cumulative) == replay(weights, returns)
        with pytest.raises(WrongShape):
            buy_and_hold([1.0], cumulative)

    def test_the_loss_of_everything_is_not_undone_by_a_recovery(self):
        result = replay([-1.0], [[1.0], [-0.5]])
        assert result.path.tolist() == [-1.0, 0.0]
        assert (result.pnl, result.max_drawdown, result.ruined) == (0.0, 1.0, True)

    def test_of_a_rise_has_no_worst_below_the_start(self):
        result = replay([1.0], [[0.1], [0.1]])
        assert (str(result.worst), str(result.max_drawdown)) == ("0.0", "0.0")

    @given(seeds, st.integers(1, 30), st.integers(1, 5))
    def test_is_drift_from_day_to_day(self, seed, days, n):
        generator = np.random.default_rng(seed)
        returns = generator.uniform(-0.05, 0.05, (days, n))
        start = generator.uniform(-0.5, 1.0, n) / n
        weights, earned = start, []
        for row in returns:
            earned.append(float(weights @ row))
            weights = drift(weights, row)
        result = replay(start, returns)
        np.testing.assert_allclose(result.path, np.cumprod(1 + np.array(earned)) - 1, atol=1e-12)
        assert result.max_drawdown == pytest.approx(max_drawdown(earned), abs=1e-12)

    @given(seeds, st.permutations(range(4)), st.floats(0, 3))
    def test_is_linear_and_ignores_the_order_of_symbols(self, seed, order, scale):
        generator = np.random.default_rng(seed)
        returns, weights = generator.uniform(-0.2, 0.2, (10, 4)), generator.normal(0, 1, 4)
        path = replay(weights, returns).path
        np.testing.assert_allclose(
            replay(scale * weights[order], returns[:, order]).path, scale * path, atol=1e-12
        )
        alone = [replay(weights * unit, returns).path for unit in np.eye(4)]
        np.testing.assert_allclose(sum(alone), path, atol=1e-12)

    def test_refuses_by_name(self):
        with pytest.raises(TooFewReturns):
            replay([1.0], np.empty((0, 1)))
        with pytest.raises(WrongShape, match="2 weights for 1"):
            replay([0.5, 0.5], [[0.1]])
        with pytest.raises(NotFinite):
            replay([1.0], [[np.nan]])
        with pytest.raises(NotFinite, match="profits"):
            replay([1.0], [[1e200], [1e200]])
        with pytest.raises(RiskInputError, match="-100 %"):
            replay([1.0], [[-1.1]])


class TestScaledCovariance:
    def test_by_hand(self):
        # sigmas 0.2 and 0.3, correlation 0.2 -> 0.6 half way; twice the volatility
        matrix = scaled_covariance([[0.04, 0.012], [0.012, 0.09]], 2.0, 0.5)
        np.testing.assert_allclose(matrix, [[0.16, 0.144], [0.144, 0.36]], rtol=1e-12)

    def test_all_the_way_to_one_the_sigmas_add(self):
        covariance = [[0.04, -0.03], [-0.03, 0.09]]
        tail = stressed_tail([0.5, 0.5], covariance, C99, toward_one=1.0)
        assert tail.var == pytest.approx(stats.norm.ppf(0.99) * 0.25, rel=1e-9)

    def test_twice_the_volatility_is_twice_the_tail(self):
        covariance = [[0.04, 0.012], [0.012, 0.09]]
        before = normal_from_moments(0.0, sqrt(0.0385), C99)
        plain = stressed_tail([0.5, 0.5], covariance, C99)
        assert plain.var == pytest.approx(before.var, rel=1e-12)
        for factor in (1.5, 2.0):
            tail = stressed_tail([0.5, 0.5], covariance, C99, volatility=factor)
            assert tail.var == pytest.approx(factor * before.var, rel=1e-12)
            assert tail.es == pytest.approx(factor * before.es, rel=1e-12)

    def test_a_hedged_book_gains_from_correlation(self):
        covariance = [[1.0, 0.5], [0.5, 1.0]]
        book = [0.5, -0.5]
        hedged = stressed_tail(book, covariance, C99, toward_one=0.5)
        assert hedged.var < stressed_tail(book, covariance, C99).var

    @given(seeds, st.integers(1, 7), st.floats(0.1, 5), st.floats(0, 1))
    def test_stays_psd_and_long_books_only_lose(self, seed, n, volatility, toward_one):
        generator = np.random.default_rng(seed)
        covariance = sample_covariance(generator.normal(0, 0.01, (n + 2, n)))
        assert is_psd(scaled_covariance(covariance, volatility, toward_one))
        weights = generator.uniform(0, 1, n)
        stressed = stressed_tail(weights, covariance, C99, 1.0, toward_one)
        assert stressed.var >= stressed_tail(weights, covariance, C99).var * (1 - 1e-12)

    @given(seeds, st.integers(1, 7), st.floats(0.1, 5), st.floats(0, 1))
    def test_tails_need_no_shifted_matrix(self, seed, n, volatility, toward_one):
        generator = np.random.default_rng(seed)
        covariance = sample_covariance(generator.normal(0, 0.01, (n + 2, n)))
        weights = generator.uniform(-1, 1, n)
        shifts = [(volatility, toward_one), (1.0, 0.0), (2.0, 1.0)]
        for tail, shift in zip(
            stressed_tails(weights, covariance, C99, shifts), shifts, strict=True
        ):
            shifted = scaled_covariance(covariance, *shift)
            size = np.abs(weights) @ np.abs(shifted) @ np.abs(weights)
            sigma = tail.var / stats.norm.ppf(0.99)
            assert sigma**2 == pytest.approx(weights @ shifted @ weights, abs=1e-12 * size)
            assert tail == stressed_tail(weights, covariance, C99, *shift)

    @pytest.mark.parametrize(
        ("volatility", "toward_one"),
        [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, 1.1), (1.0, -0.1), (1.0, np.nan)],
    )
    def test_refuses_parameters_out_of_range(self, volatility, toward_one):
        with pytest.raises(RiskInputError, match="out of range"):
            scaled_covariance(np.eye(2), volatility, toward_one)
        with pytest.raises(RiskInputError, match="out of range"):
            stressed_tails([0.5, 0.5], np.eye(2), C99, [(2.0, 0.0), (volatility, toward_one)])

    def test_refuses_what_is_no_covariance(self):
        with pytest.raises(NoVariance):
            scaled_covariance([[-1.0]], 2.0)
        with pytest.raises(NotFinite):
            scaled_covariance([[1e300]], 1e10)
        with pytest.raises(NoVariance):
            stressed_tail([0.0], [[-1.0]], C99, 2.0)
        with pytest.raises(NotPsd):
            stressed_tail([1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]], C99, 1.0, 0.5)
        with pytest.raises(NotFinite):
            stressed_tail([1.0], [[1e300]], C99, 1e200)


class TestGap:
    def test_the_single_name_that_halves(self):
        shock = gap([0.3, 0.5, 0.2], 0.5)
        assert shock.moves.tolist() == [0.0, -0.5, 0.0]
        assert shock.pnl == -0.25

    def test_a_short_is_hurt_by_a_rise(self):
        shock = gap([0.7, -0.4, 0.5, 0.2], 0.2, count=3)
        assert shock.moves.tolist() == [-0.2, 0.2, -0.2, 0.0]
        assert shock.pnl == pytest.approx(-0.32, rel=1e-12)

    def test_takes_no_more_positions_than_there_are(self):
        assert gap([0.5, 0.0], 0.2, count=3).pnl == pytest.approx(-0.1)
        assert str(gap([0.0], 0.2).pnl) == "0.0"
        assert [str(move) for move in gap([0.0], 0.2).moves] == ["0.0"]

    @given(books, st.floats(0.01, 1), st.integers(1, 5))
    def test_no_other_positions_lose_more(self, weights, size, count):
        expected = -size * sum(sorted(map(abs, weights))[-count:])
        assert gap(weights, size, count).pnl == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(("size", "count"), [(0.0, 1), (1.1, 1), (np.nan, 1), (0.5, 0)])
    def test_refuses_parameters_out_of_range(self, size, count):
        with pytest.raises(RiskInputError, match="no gap"):
            gap([1.0], size, count)


class TestBeta:
    @given(seeds)
    def test_is_the_slope_of_a_regression(self, seed):
        generator = np.random.default_rng(seed)
        market = generator.normal(0, 0.01, 40)
        returns = market[:, np.newaxis] * [0.5, 1.5] + generator.normal(0, 0.01, (40, 2))
        expected = [stats.linregress(market, column).slope for column in returns.T]
        np.testing.assert_allclose(betas(returns, market), expected, rtol=1e-9)

    def test_of_the_market_to_itself_is_one(self):
        market = [0.01, -0.02, 0.005]
        np.testing.assert_allclose(betas(np.transpose([market]), market), [1.0], rtol=1e-12)

    def test_maps_the_day_of_1987_by_hand(self):
        shock = beta_shock([0.6, -0.2, 0.1], [1.0, 1.5, 6.0], -0.2047)
        np.testing.assert_allclose(shock.moves, [-0.2047, -0.30705, -1.0], rtol=1e-12)
        assert shock.pnl == pytest.approx(0.6 * -0.2047 + 0.2 * 0.30705 - 0.1, rel=1e-12)

    def test_refuses_by_name(self):
        with pytest.raises(RiskInputError, match="did not move"):
            betas([[0.1], [0.2]], [0.0, 0.0])
        with pytest.raises(WrongShape, match="2 days of returns for 3"):
            betas([[0.1], [0.2]], [0.1, 0.2, 0.3])
        with pytest.raises(TooFewReturns):
            betas([[0.1]], [0.1])
        with pytest.raises(WrongShape, match="1 weights for 2 betas"):
            beta_shock([1.0], [1.0, 1.0], -0.2)
        for move in (-1.0, np.nan):
            with pytest.raises(RiskInputError, match="does not return"):
                beta_shock([1.0], [1.0], move)


class TestReverseStress:
    def test_of_a_long_book_by_hand(self):
        result = reverse_stress([0.5, 0.3], 0.2)
        assert result.against == pytest.approx(0.25, rel=1e-12)
        assert result.market == pytest.approx(-0.25, rel=1e-12)
        assert result.limit == 0.2

    def test_of_a_long_short_book_by_hand(self):
        # gross 2.0, net 1.0
        result = reverse_stress([1.5, -0.5], 0.1)
        assert result.against == pytest.approx(0.05, rel=1e-12)
        assert result.market == pytest.approx(-0.1, rel=1e-12)

    def test_a_short_book_breaks_on_a_rise(self):
        result = reverse_stress([0.5, -1.0], 1.0)
        assert result.market == pytest.approx(2.0, rel=1e-12)
        # Longs are gone at 1, and lose 0.5; the shorts lose the rest at 0.5.
        assert result.against == pytest.approx(1.0 / 1.5, rel=1e-12)

    def test_beyond_the_longs_the_shorts_must_lose_the_rest(self):
        # long 1.0, short 0.5, limit 2.0: (2 - 1) / 0.5
        assert reverse_stress([1.0, -0.5], 2.0).against == pytest.approx(2.0, rel=1e-12)

    @pytest.mark.parametrize("book", [[0.5, -0.5], [0.1, 0.2, -0.3]])
    def test_a_net_of_zero_does_not_divide(self, book):
        result = reverse_stress(book, 0.1)
        assert result.market is None
        assert result.against == pytest.approx(0.1 / sum(map(abs, book)), rel=1e-12)

    def test_what_no_price_can_do_is_none(self):
        result = reverse_stress([0.5], 0.6)
        assert (result.against, result.market) == (None, None)
        assert reverse_stress([0.5], 0.5).market == -1.0

    @given(books.filter(lambda book: any(abs(w) > 1e-6 for w in book)), st.floats(0.01, 3))
    def test_the_shock_loses_the_limit_and_a_smaller_one_does_not(self, weights, limit):
        result = reverse_stress(weights, limit)
        if result.against is None:
            assert bitten(weights, 1e9) < limit + 1e-9
        else:
            assert bitten(weights, result.against) == pytest.approx(limit, rel=1e-9)
            assert bitten(weights, result.against * 0.999) < limit
        if result.market is not None:
            assert -result.market * sum(weights) == pytest.approx(limit, rel=1e-6)
            assert result.market >= -1
            assert result.against is not None
            assert abs(result.market) >= result.against * (1 - 1e-9) or result.against > 1

    @given(books.filter(lambda book: any(abs(w) > 1e-6 for w in book)), st.floats(0.01, 3))
    def test_a_smaller_limit_needs_no_larger_shock(self, weights, limit):
        small, large = reverse_stress(weights, limit / 2), reverse_stress(weights, limit)
        if large.against is not None:
            assert small.against is not None
            assert small.against <= large.against

    def test_refuses_by_name(self):
        with pytest.raises(NothingHeld):
            reverse_stress([0.0, 0.0], 0.1)
        for limit in (0.0, -0.1, np.nan, np.inf):
            with pytest.raises(RiskInputError, match="limit is positive"):
                reverse_stress([1.0], limit)
        with pytest.raises(NotFinite, match="gross"):
            reverse_stress([1.7e308, -1.7e308], 0.1)
