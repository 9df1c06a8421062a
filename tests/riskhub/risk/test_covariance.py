import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    MissingPairs,
    NotFinite,
    NotPsd,
    NotSymmetric,
    NoVariance,
    RiskInputError,
    TooFewReturns,
    WrongShape,
    correlation_from_covariance,
    covariance_from_correlation,
    covariance_from_pairs,
    fallback_covariance,
    is_psd,
    portfolio_volatility,
    sample_covariance,
    smallest_eigenvalue,
    volatilities,
)

PAIRS = {"A,A": 0.04, "B,B": 0.09, "C,C": 0.01, "A,B": 0.012, "C,A": -0.005, "B,C": 0.0}


def random_covariance(seed: int, n: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(0, 0.01, (n, n))
    return factor @ factor.T


seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 8)


class TestPairs:
    def test_follow_the_order_asked_and_either_key(self):
        expected = [[0.01, -0.005, 0.0], [-0.005, 0.04, 0.012], [0.0, 0.012, 0.09]]
        assert covariance_from_pairs(PAIRS, ["C", "A", "B"]).tolist() == expected

    def test_of_other_symbols_are_left_aside(self):
        assert covariance_from_pairs(PAIRS, ["B"]).tolist() == [[0.09]]

    @given(seeds, sizes, st.randoms(use_true_random=False))
    def test_survive_json_to_the_last_bit(self, seed, n, random):
        matrix = random_covariance(seed, n)
        matrix = (matrix + matrix.T) / 2
        names = [f"S{i}" for i in range(n)]
        pairs = {f"{a},{b}": matrix[i, j] for i, a in enumerate(names) for j, b in enumerate(names)}
        pairs = json.loads(json.dumps(pairs))
        order = random.sample(range(n), n)
        read = covariance_from_pairs(pairs, [names[i] for i in order])
        assert read.tolist() == matrix[np.ix_(order, order)].tolist()

    def test_that_are_missing_are_all_named(self):
        pairs = {key: value for key, value in PAIRS.items() if key not in ("B,C", "A,B")}
        with pytest.raises(MissingPairs, match="no covariance of A,B; B,C") as refusal:
            covariance_from_pairs(pairs, ["A", "B", "C"])
        assert refusal.value.pairs == (("A", "B"), ("B", "C"))
        assert refusal.value.symbols == ()

    def test_a_symbol_without_a_variance_is_named_and_not_filled_in(self):
        with pytest.raises(MissingPairs, match="no covariance of X; Y") as refusal:
            covariance_from_pairs(PAIRS, ["A", "X", "Y"])
        assert (refusal.value.symbols, refusal.value.pairs) == (("X", "Y"), ())

    def test_many_missing_are_counted_in_the_text_and_listed_in_the_refusal(self):
        symbols = [f"S{i}" for i in range(12)]
        with pytest.raises(MissingPairs, match="and 7 more") as refusal:
            covariance_from_pairs({}, symbols)
        assert refusal.value.symbols == tuple(symbols)

    def test_mirrored_pairs_may_differ_by_rounding_only(self):
        near = {"A,A": 1.0, "B,B": 1.0, "A,B": 0.5, "B,A": 0.5 * (1 + 1e-12)}
        matrix = covariance_from_pairs(near, ["A", "B"])
        assert matrix[0, 1] == matrix[1, 0] == pytest.approx(0.5, rel=1e-12)
        with pytest.raises(NotSymmetric, match=r"(A,B|B,A) is 0\.[56]"):
            covariance_from_pairs(near | {"B,A": 0.6}, ["A", "B"])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_that_are_no_number_are_refused(self, bad):
        with pytest.raises(NotFinite):
            covariance_from_pairs({"A,A": bad}, ["A"])
        with pytest.raises(NotFinite):
            covariance_from_pairs({"A,A": 1, "B,B": 1, "A,B": bad, "B,A": 0.1}, ["A", "B"])

    def test_a_symbol_twice_is_refused(self):
        with pytest.raises(RiskInputError, match="twice"):
            covariance_from_pairs(PAIRS, ["A", "A"])


class TestCorrelation:
    def test_by_hand(self):
        matrix = covariance_from_pairs(PAIRS, ["A", "B", "C"])
        np.testing.assert_allclose(volatilities(matrix), [0.2, 0.3, 0.1], rtol=1e-15)
        expected = [[1, 0.2, -0.25], [0.2, 1, 0], [-0.25, 0, 1]]
        correlation = correlation_from_covariance(matrix)
        np.testing.assert_allclose(correlation, expected, rtol=1e-14)
        assert correlation.diagonal().tolist() == [1.0, 1.0, 1.0]

    @given(seeds, st.integers(1, 6))
    def test_agrees_with_numpy_and_comes_back(self, seed, n):
        returns = np.random.default_rng(seed).normal(0, 0.01, (30, n))
        covariance = sample_covariance(returns)
        correlation = correlation_from_covariance(covariance)
        expected = np.atleast_2d(np.corrcoef(returns.T))
        np.testing.assert_allclose(correlation, expected, atol=1e-12)
        back = covariance_from_correlation(correlation, volatilities(covariance))
        np.testing.assert_allclose(back, covariance, rtol=1e-12, atol=1e-18)

    def test_needs_variances(self):
        with pytest.raises(NoVariance, match="constant"):
            correlation_from_covariance([[0.0, 0.0], [0.0, 1.0]])
        with pytest.raises(NoVariance, match="a variance is -1"):
            volatilities([[-1.0]])

    def test_refuses_what_overflows(self):
        with pytest.raises(NotFinite, match="correlations"):
            correlation_from_covariance([[1e-300, 1e200], [1e200, 1e-300]])
        with pytest.raises(NotFinite, match="covariances"):
            covariance_from_correlation(np.eye(2), [1e200, 1.0])

    def test_refuses_sigmas_that_do_not_fit(self):
        with pytest.raises(WrongShape, match="3 sigmas for 2"):
            covariance_from_correlation(np.eye(2), [1.0, 1.0, 1.0])
        with pytest.raises(RiskInputError, match="negative"):
            covariance_from_correlation(np.eye(2), [1.0, -1.0])


class TestEigenvalues:
    def test_of_a_path_graph(self):
        # 2 - 2 cos(k pi / (n + 1)), k = 1
        matrix = 2 * np.eye(9) - np.eye(9, k=1) - np.eye(9, k=-1)
        expected = 2 - 2 * np.cos(np.pi / 10)
        assert smallest_eigenvalue(matrix) == pytest.approx(expected, rel=1e-12)

    def test_psd_is_judged_relative_to_the_largest(self):
        for scale in (1e-8, 1.0, 1e8):
            assert is_psd(scale * np.diag([1.0, -1e-12]))
            assert not is_psd(scale * np.diag([1.0, -1e-8]))
            assert is_psd(scale * np.diag([1.0, -1e-8]), tolerance=1e-7)
        assert is_psd(np.zeros((2, 2)))
        assert not is_psd([[-1.0]])

    @given(seeds, sizes)
    def test_a_gram_matrix_is_psd(self, seed, n):
        assert is_psd(random_covariance(seed, n))

    @pytest.mark.parametrize(
        ("matrix", "refusal"),
        [
            (np.empty((0, 0)), WrongShape),
            (np.ones((2, 3)), WrongShape),
            (np.ones(2), WrongShape),
            ([[1.0, np.nan], [np.nan, 1.0]], NotFinite),
            ([[1.0, 0.5], [0.4, 1.0]], NotSymmetric),
        ],
    )
    def test_of_no_symmetric_matrix_are_refused(self, matrix, refusal):
        with pytest.raises(refusal):
            smallest_eigenvalue(matrix)


class TestSample:
    def test_by_hand(self):
        returns = [[0.01, 0.02], [0.03, 0.00], [0.02, 0.01]]
        expected = [[1e-4, -1e-4], [-1e-4, 1e-4]]
        np.testing.assert_allclose(sample_covariance(returns), expected, rtol=1e-12)
        halves = np.array(expected) * 2 / 3
        np.testing.assert_allclose(sample_covariance(returns, ddof=0), halves, rtol=1e-12)

    @given(seeds, st.integers(2, 40), sizes, st.integers(0, 1))
    def test_agrees_with_numpy(self, seed, days, n, ddof):
        returns = np.random.default_rng(seed).normal(0.001, 0.02, (days, n))
        expected = np.atleast_2d(np.cov(returns.T, ddof=ddof))
        covariance = sample_covariance(returns, ddof)
        np.testing.assert_allclose(covariance, expected, rtol=1e-9, atol=1e-18)
        assert (covariance == covariance.T).all()

    def test_refuses_too_few_and_too_large(self):
        with pytest.raises(TooFewReturns, match="1 returns given, at least 2"):
            sample_covariance([[0.01, 0.02]])
        with pytest.raises(NotFinite):
            sample_covariance([[1e200], [-1e200]])


class TestFallback:
    def test_by_hand(self):
        expected = [[4e-4, 1.2e-4, -1.2e-4], [1.2e-4, 4e-4, -1.2e-4], [-1.2e-4, -1.2e-4, 4e-4]]
        matrix = fallback_covariance([0.8, 0.6, -0.4], 0.02, 0.3)
        np.testing.assert_allclose(matrix, expected, rtol=1e-12)

    @given(
        st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=1, max_size=10),
        st.floats(0, 1),
    )
    def test_a_short_is_no_hedge(self, weights, correlation):
        size = np.abs(weights)
        matrix = fallback_covariance(weights, 0.02, correlation)
        together = (1 - correlation) * np.square(size).sum() + correlation * size.sum() ** 2
        expected = 0.02 * np.sqrt(together)
        assert portfolio_volatility(weights, matrix) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert is_psd(matrix)

    @pytest.mark.parametrize(
        ("sigma", "correlation"),
        [(-0.01, 0.5), (np.nan, 0.5), (0.02, 1.1), (0.02, -0.1), (0.02, np.nan)],
    )
    def test_refuses_what_was_configured_wrongly(self, sigma, correlation):
        with pytest.raises(RiskInputError, match="out of range"):
            fallback_covariance([1.0], sigma, correlation)


class TestPortfolioVolatility:
    def test_by_hand(self):
        # 0.25 * 0.04 + 0.25 * 0.09 + 2 * 0.25 * 0.012 = 0.0385
        matrix = covariance_from_pairs(PAIRS, ["A", "B"])
        assert portfolio_volatility([0.5, 0.5], matrix) == pytest.approx(0.0385**0.5, rel=1e-14)

    @given(seeds, sizes)
    def test_is_that_of_the_portfolios_own_returns(self, seed, n):
        generator = np.random.default_rng(seed)
        returns, weights = generator.normal(0, 0.01, (40, n)), generator.normal(0, 1, n)
        expected = np.std(returns @ weights, ddof=1)
        sigma = portfolio_volatility(weights, sample_covariance(returns))
        assert sigma == pytest.approx(expected, rel=1e-9)

    def test_of_a_perfect_hedge_is_zero_and_a_negative_variance_is_refused(self):
        assert portfolio_volatility([1.0, -1.0], np.full((2, 2), 0.1)) == 0.0
        with pytest.raises(NotPsd, match="variance is -2"):
            portfolio_volatility([1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]])

    def test_refuses_what_does_not_fit_or_overflows(self):
        with pytest.raises(WrongShape, match="1 weights for a covariance of 2"):
            portfolio_volatility([1.0], np.eye(2))
        with pytest.raises(NotFinite, match="overflows"):
            portfolio_volatility([1e200], [[1.0]])
