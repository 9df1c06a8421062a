from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import NotFinite, WrongShape
from riskhub.risk.backtest import (
    BadAlpha,
    BadCount,
    CrossedLevels,
    TooFewObservations,
    kupiec,
    multinomial,
    multinomial_alphas,
    multinomial_from_counts,
)

ALPHA = Fraction(25, 1000)


def cells(alphas):
    edges = [1.0, *map(float, alphas), 0.0]
    return -np.diff(edges)


class TestLevels:
    def test_are_theirs(self):
        # Kratz, Lok and McNeil: c_j = c + (j - 1) / N (1 - c), here c = 0.975 and N = 4.
        levels = [1 - alpha for alpha in multinomial_alphas(ALPHA, 4)]
        assert [float(c) for c in levels] == [0.975, 0.98125, 0.9875, 0.99375]

    def test_one_is_the_binomial_test(self):
        assert multinomial_alphas(ALPHA, 1) == (ALPHA,)

    @given(st.integers(1, 64))
    def test_are_evenly_spaced(self, n):
        alphas = (*multinomial_alphas(ALPHA, n), Fraction(0))
        assert {high - low for high, low in pairwise(alphas)} == {ALPHA / n}


class TestStatistics:
    @given(st.integers(1, 8), st.integers(1, 1000), st.integers(0, 2**32))
    @settings(max_examples=50)
    def test_agree_with_scipy(self, levels, n, seed):
        alphas = multinomial_alphas(ALPHA, levels)
        p = cells(alphas)
        counts = np.random.default_rng(seed).multinomial(n, np.full(levels + 1, 1 / (levels + 1)))
        result = multinomial_from_counts(counts.tolist(), alphas, simulations=10)
        pearson = stats.chisquare(counts, n * p)
        assert result.pearson.statistic == pytest.approx(pearson.statistic, rel=1e-9)
        assert result.pearson.p_value == pytest.approx(pearson.pvalue, rel=1e-7, abs=1e-290)
        ratio = stats.power_divergence(counts, n * p, lambda_="log-likelihood")
        assert result.likelihood_ratio.statistic == pytest.approx(ratio.statistic, rel=1e-7)
        nass = result.nass
        expected = stats.chi2.sf(nass.statistic, nass.degrees_of_freedom)
        assert nass.p_value == pytest.approx(expected, rel=1e-7, abs=1e-290)

    @pytest.mark.parametrize(("levels", "n"), [(1, 7), (2, 5), (3, 4)])
    def test_nass_has_the_moments_of_his_chi_square(self, levels, n):
        # Mean and variance of Pearson's statistic by adding up every outcome.
        p = cells(multinomial_alphas(Fraction(1, 4), levels))
        outcomes = [c for c in np.ndindex(*[n + 1] * (levels + 1)) if sum(c) == n]
        weights = stats.multinomial(n, p).pmf(outcomes)
        values = ((np.array(outcomes) - n * p) ** 2 / (n * p)).sum(axis=1)
        mean = weights @ values
        variance = weights @ (values - mean) ** 2
        nass = multinomial_from_counts(
            [n] + [0] * levels, multinomial_alphas(Fraction(1, 4), levels), simulations=1
        ).nass
        scale = nass.degrees_of_freedom / mean
        assert mean == pytest.approx(levels)
        assert scale**2 * variance == pytest.approx(2 * nass.degrees_of_freedom, rel=1e-9)

    def test_with_one_level_is_the_squared_binomial_score(self):
        result = multinomial_from_counts([240, 10], [0.025])
        score = (10 - 6.25) ** 2 / (250 * 0.025 * 0.975)
        assert result.pearson.statistic == pytest.approx(score)

    def test_simulated_p_values_agree_with_every_outcome(self):
        alphas = multinomial_alphas(Fraction(1, 4), 2)
        n, counts = 12, [6, 5, 1]
        p = cells(alphas)
        outcomes = np.array([c for c in np.ndindex(n + 1, n + 1, n + 1) if sum(c) == n])
        assert len(outcomes) == comb(n + 2, 2)
        weights = stats.multinomial(n, p).pmf(outcomes)
        result = multinomial_from_counts(counts, alphas, simulations=100_000)
        pearson = ((outcomes - n * p) ** 2 / (n * p)).sum(axis=1)
        exact = weights[pearson >= result.pearson.statistic - 1e-9].sum()
        assert result.pearson.p_value_simulated == pytest.approx(exact, abs=0.006)
        assert result.nass.p_value_simulated == result.pearson.p_value_simulated
        ratio = stats.power_divergence(outcomes, n * p, axis=1, lambda_="log-likelihood").statistic
        exact = weights[ratio >= result.likelihood_ratio.statistic - 1e-9].sum()
        assert result.likelihood_ratio.p_value_simulated == pytest.approx(exact, abs=0.006)

    def test_of_one_day_and_two_equal_cells_says_nothing(self):
        result = multinomial_from_counts([1, 0], [0.5], simulations=20)
        assert result.nass.statistic == 1.0
        assert result.nass.p_value_simulated == 1.0


class TestSizes:
    # What the paper's study of sizes says: Nass holds 5 % whatever N is, Pearson does not.
    @pytest.mark.parametrize("n", [250, 500, 1000])
    def test_nass_keeps_its_size_where_pearson_does_not(self, n):
        sizes = {"nass": [], "pearson": []}
        for levels in (1, 2, 4, 8, 16, 32, 64):
            p = cells(multinomial_alphas(ALPHA, levels))
            drawn = np.random.default_rng(levels).multinomial(n, p, 20_000)
            s = ((drawn - n * p) ** 2 / (n * p)).sum(axis=1)
            law = multinomial_from_counts(
                [n, *[0] * levels], multinomial_alphas(ALPHA, levels), simulations=1
            )
            scale = law.nass.statistic / law.pearson.statistic
            quantile = stats.chi2.isf(0.05, law.nass.degrees_of_freedom)
            sizes["nass"].append((scale * s >= quantile).mean())
            sizes["pearson"].append((s >= stats.chi2.isf(0.05, levels)).mean())
        assert 0.03 < min(sizes["nass"]) < max(sizes["nass"]) < 0.06
        assert sizes["pearson"][-1] > 0.1


class TestForecasts:
    def test_counts_how_many_levels_each_day_exceeds(self):
        var = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 1.0]]
        result = multinomial(var, [1.0, 1.5, 2.5, 1.1], [0.05, 0.01])
        assert result.counts == (1, 1, 2)
        assert result.expected == pytest.approx((4 * 0.95, 4 * 0.04, 4 * 0.01))
        assert result.alphas == (Fraction(1, 20), Fraction(1, 100))
        assert (result.statistic, result.p_value, result.reject) == (
            *(result.nass.statistic, result.nass.p_value, result.nass.reject),
        )

    def test_sees_a_tail_that_is_too_thin_beyond_a_var_that_is_right(self):
        alphas = multinomial_alphas(ALPHA)
        fat = stats.t(3, scale=stats.norm.isf(0.025) / stats.t.isf(0.025, 3))
        losses = fat.rvs(4000, random_state=1)
        var = np.tile(stats.norm.isf([float(a) for a in alphas]), (4000, 1))
        assert not kupiec(4000, (losses > var[:, 0]).sum(), ALPHA).reject
        result = multinomial(var, losses, alphas)
        assert result.reject
        assert result.nass.reject_simulated
        assert result.likelihood_ratio.reject

    @given(st.lists(st.floats(-3, 3), min_size=1, max_size=60), st.randoms(use_true_random=False))
    @settings(max_examples=40)
    def test_p_values_are_probabilities_and_the_order_does_not_matter(self, losses, random):
        var = np.tile([0.5, 1.0, 2.0], (len(losses), 1))
        result = multinomial(var, losses, [0.3, 0.2, 0.01], simulations=30)
        shuffled = random.sample(losses, len(losses))
        assert multinomial(var, shuffled, [0.3, 0.2, 0.01], simulations=30) == result
        for part in (result.pearson, result.nass, result.likelihood_ratio):
            assert part.statistic >= 0
            assert 0 <= part.p_value <= 1
            assert 0 < part.p_value_simulated <= 1
            assert part.reject == (part.p_value <= 0.05)


class TestRefusals:
    def test_levels_that_cross(self):
        with pytest.raises(CrossedLevels, match="on 1 day"):
            multinomial([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0], [0.05, 0.01])

    def test_what_does_not_fit(self):
        with pytest.raises(WrongShape):
            multinomial([[1.0, 2.0]], [0.0, 0.0], [0.05, 0.01])
        with pytest.raises(WrongShape):
            multinomial([1.0], [0.0], [0.05])
        with pytest.raises(WrongShape, match="3 counts for 1 alphas"):
            multinomial_from_counts([1, 2, 3], [0.05])
        with pytest.raises(NotFinite):
            multinomial([[np.nan]], [0.0], [0.05])

    @pytest.mark.parametrize("alphas", [[0.01, 0.05], [0.05, 0.05], [0.99, 0.5]])
    def test_alphas_that_do_not_descend_or_are_levels(self, alphas):
        with pytest.raises(BadAlpha):
            multinomial_from_counts([240, 5, 5], alphas)

    def test_counts_that_are_none(self):
        with pytest.raises(BadCount):
            multinomial_from_counts([240, -5], [0.05])
        with pytest.raises(BadCount):
            multinomial_from_counts([240.0, 5], [0.05])
        with pytest.raises(BadCount, match="alpha"):
            multinomial_from_counts([240], [])
        with pytest.raises(TooFewObservations):
            multinomial_from_counts([0, 0], [0.05])
        with pytest.raises(BadCount):
            multinomial_alphas(ALPHA, 0)
