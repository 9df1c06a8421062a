from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk.backtest.distributions import (
    binomial_quantiles,
    binomial_tails,
    binomial_two_sided,
    chi_square_sf,
    student_t_tail,
)

alphas = st.fractions(Fraction(1, 1000), Fraction(1, 2), max_denominator=1000)


class TestChiSquare:
    @given(st.floats(0, 500), st.floats(0.01, 300))
    def test_agrees_with_scipy(self, x, degrees):
        expected = stats.chi2.sf(x, degrees)
        assert chi_square_sf(x, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-14)

    @pytest.mark.parametrize(
        ("x", "degrees"), [(3.841459, 1), (5.991465, 2), (9.487729, 4), (26.296228, 16)]
    )
    def test_published_quantiles_at_five_per_cent(self, x, degrees):
        assert chi_square_sf(x, degrees) == pytest.approx(0.05, abs=1e-7)

    @given(st.floats(0, 1e300), st.sampled_from([0.01, 1, 2, 3.7, 1000]))
    def test_is_always_a_probability(self, x, degrees):
        assert 0 <= chi_square_sf(x, degrees) <= 1


class TestBinomial:
    @given(st.integers(1, 400), alphas, st.data())
    def test_two_sided_agrees_with_scipy(self, n, alpha, data):
        k = data.draw(st.integers(0, n))
        expected = stats.binomtest(k, n, float(alpha)).pvalue
        assert binomial_two_sided(n, k, alpha) == pytest.approx(expected, rel=1e-9, abs=1e-100)

    @given(st.integers(1, 40), alphas, st.data())
    def test_two_sided_adds_up_what_is_no_more_probable(self, n, alpha, data):
        k = data.draw(st.integers(0, n))
        pmf, ways = [], 1
        for j in range(n + 1):
            pmf.append(ways * alpha**j * (1 - alpha) ** (n - j))
            ways = ways * (n - j) // (j + 1)
        assert binomial_two_sided(n, k, alpha) == float(sum(p for p in pmf if p <= pmf[k]))

    def test_ties_are_seen(self):
        # (n + 1) alpha = 1: none and one are just as probable, and nothing is likelier.
        assert binomial_two_sided(99, 0, Fraction(1, 100)) == 1.0
        assert binomial_two_sided(99, 1, Fraction(1, 100)) == 1.0

    @given(st.integers(1, 400), alphas, st.data())
    def test_tails_agree_with_scipy(self, n, alpha, data):
        k = data.draw(st.integers(0, n))
        law = stats.binom(n, float(alpha))
        at_most, at_least = binomial_tails(n, k, alpha)
        assert at_most == pytest.approx(law.cdf(k), rel=1e-9, abs=1e-100)
        assert at_least == pytest.approx(law.sf(k - 1), rel=1e-9, abs=1e-100)

    @given(st.integers(1, 400), alphas)
    def test_quantiles_are_where_the_cumulative_probability_arrives(self, n, alpha):
        wanted = (Fraction(1, 2), Fraction(95, 100), Fraction(9999, 10000))
        for k, probability in zip(binomial_quantiles(n, alpha, wanted), wanted, strict=True):
            assert binomial_tails(n, k, alpha)[0] >= float(probability)
            assert k == 0 or binomial_tails(n, k - 1, alpha)[0] <= float(probability)

    def test_of_tens_of_thousands_of_days(self):
        expected = stats.binomtest(700, 60_000, 0.01).pvalue
        assert binomial_two_sided(60_000, 700, Fraction(1, 100)) == pytest.approx(expected)


class TestStudentT:
    @given(st.floats(1e-8, 0.5), st.floats(1.01, 500))
    def test_agrees_with_scipy(self, alpha, degrees):
        q, es = student_t_tail(alpha, degrees)
        expected = stats.t.isf(alpha, degrees)
        assert q == pytest.approx(expected, rel=1e-7, abs=1e-12)
        closed = stats.t.pdf(expected, degrees) / alpha * (degrees + expected**2) / (degrees - 1)
        assert es == pytest.approx(closed, rel=1e-6)

    def test_es_is_the_mean_beyond(self):
        mean = stats.t(4).expect(lb=stats.t.isf(0.025, 4), conditional=True)
        assert student_t_tail(0.025, 4)[1] == pytest.approx(mean, rel=1e-6)

    def test_with_many_degrees_is_normal(self):
        q, es = student_t_tail(0.01, 1e6)
        assert (q, es) == pytest.approx((2.3263478740, 2.6652142203), abs=2e-5)
