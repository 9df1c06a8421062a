from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from riskhub.risk import (
    BadDegrees,
    BadLevel,
    NoFit,
    NotFinite,
    RiskInputError,
    StudentT,
    TooFewReturns,
    fit_student_t,
    normal,
    student_t,
    student_t_from_fit,
    student_t_var,
)
from riskhub.risk.t_distribution import t_density, t_quantile, t_upper

C95, C99 = Fraction(95, 100), Fraction(99, 100)
SAMPLE = np.random.default_rng(4).standard_t(4, 500) * 0.01 + 0.0005
degrees = st.floats(2.01, 1e4)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(9999, 10000))


def log_likelihood(sample, location, scale, v):
    return stats.t.logpdf(sample, v, location, scale).sum()


class TestDistribution:
    @pytest.mark.parametrize(
        ("v", "upper", "expected"),
        # The printed table of every statistics book.
        [
            *((3, 0.05, 2.353), (3, 0.01, 4.541), (4, 0.025, 2.776), (5, 0.01, 3.365)),
            *((10, 0.05, 1.812), (10, 0.005, 3.169), (30, 0.025, 2.042), (120, 0.01, 2.358)),
        ],
    )
    def test_table(self, v, upper, expected):
        assert t_quantile(upper, v) == pytest.approx(expected, abs=5e-4)

    @given(degrees, st.floats(1e-12, 0.49))
    def test_quantile_agrees_with_scipy(self, v, upper):
        assert t_quantile(upper, v) == pytest.approx(stats.t.isf(upper, v), rel=1e-7)
        assert t_upper(t_quantile(upper, v), v) == pytest.approx(upper, rel=1e-10)

    @given(degrees, st.floats(0, 1e3))
    def test_tail_and_density_agree_with_scipy(self, v, x):
        assert t_upper(x, v) == pytest.approx(stats.t.sf(x, v), rel=1e-9, abs=1e-300)
        assert t_density(x, v) == pytest.approx(stats.t.pdf(x, v), rel=1e-9, abs=1e-300)

    def test_the_median_is_zero(self):
        assert t_quantile(0.5, 3.0) == 0.0

    def test_of_many_degrees_is_normal(self):
        assert t_quantile(0.01, 1e6) == pytest.approx(stats.norm.isf(0.01), rel=1e-5)

    @pytest.mark.parametrize("v", [2.0, 0.0, -1.0, np.nan, np.inf])
    def test_refuses_degrees_without_a_variance(self, v):
        for call in (t_density, t_upper):
            with pytest.raises(BadDegrees):
                call(1.0, v)
        with pytest.raises(BadDegrees):
            student_t(SAMPLE, C99, degrees=v)


class TestTail:
    def test_published(self):
        # McNeil, Frey and Embrechts (2005), table 2.1: a portfolio of 10 000, whose volatility is
        # 20 % in a year of 250 days, by a t with 4 degrees scaled to that deviation.
        fit = StudentT(0.0, 10_000 * 0.2 / sqrt(250) * sqrt(2 / 4), 4.0)
        expected = {"0.9": 137.1, "0.95": 190.7, "0.975": 248.3, "0.99": 335.1, "0.995": 411.8}
        for text, var in expected.items():
            assert student_t_from_fit(fit, Fraction(text)).var == pytest.approx(var, abs=0.06)

    @given(st.floats(-0.01, 0.01), st.floats(1e-4, 0.1), st.floats(2.5, 200), levels)
    def test_es_is_the_mean_loss_beyond_var(self, location, scale, v, level):
        tail = student_t_from_fit(StudentT(location, scale, v), level)
        loss = stats.t(v, -location, scale)
        alpha = float(1 - level)
        assert tail.var == pytest.approx(loss.isf(alpha), rel=1e-7, abs=1e-10)
        beyond, _ = integrate.quad(lambda p: stats.t.isf(p, v), 0, alpha, epsabs=1e-10, limit=200)
        assert tail.es == pytest.approx(scale * beyond / alpha - location, rel=1e-3, abs=1e-8)
        assert tail.es >= tail.var

    @given(st.floats(2.01, 300), st.lists(levels, min_size=2, max_size=2))
    def test_grows_with_the_level(self, v, two):
        low, high = (student_t_from_fit(StudentT(0, 1, v), level) for level in sorted(two))
        assert low.var <= high.var * (1 + 1e-12)
        assert low.es <= high.es * (1 + 1e-12)

    def test_refuses_what_is_no_distribution(self):
        with pytest.raises(NotFinite):
            student_t_from_fit(StudentT(np.nan, 1, 4), C99)
        with pytest.raises(RiskInputError, match="negative"):
            student_t_from_fit(StudentT(0, -1, 4), C99)
        with pytest.raises(BadLevel):
            student_t_from_fit(StudentT(0, 1, 4), Fraction(1, 100))


class TestFit:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("v", [3, 5, 12])
    def test_agrees_with_scipy(self, seed, v):
        sample = np.random.default_rng(seed).standard_t(v, 800) * 0.01
        fit = fit_student_t(sample)
        best = optimize.minimize(
            lambda p: -log_likelihood(sample * 100, p[0], np.exp(p[1]), np.exp(p[2])),
            [0.0, 0.0, 1.5],
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000},
        )
        assert fit.location * 100 == pytest.approx(best.x[0], abs=1e-5)
        assert fit.scale * 100 == pytest.approx(np.exp(best.x[1]), rel=1e-5)
        assert fit.degrees == pytest.approx(np.exp(best.x[2]), rel=1e-4)

    @given(st.lists(st.floats(-0.5, 0.5), min_size=10, max_size=60, unique=True), degrees)
    def test_at_given_degrees_nothing_near_is_likelier(self, sample, v):
        assume(np.std(sample) > 1e-6)
        fit = fit_student_t(sample, v)
        assert fit.degrees == v
        here = log_likelihood(sample, fit.location, fit.scale, v)
        for shift, stretch in [(1e-3, 1), (-1e-3, 1), (0, 1.001), (0, 0.999)]:
            location, scale = fit.location + shift * fit.scale, fit.scale * stretch
            assert log_likelihood(sample, location, scale, v) <= here + 1e-9

    def test_stays_within_its_bounds(self):
        rng = np.random.default_rng(0)
        assert fit_student_t(rng.uniform(-1, 1, 500)).degrees == 200.0
        assert fit_student_t(rng.standard_cauchy(500)).degrees == 2.1

    def test_finds_a_normal_where_there_is_one(self):
        sample = np.random.default_rng(0).uniform(-1, 1, 5000)
        assert student_t_var(sample, C95) == pytest.approx(normal(sample, C95).var, rel=0.02)

    def test_is_blind_to_the_order(self):
        assert fit_student_t(SAMPLE[::-1]) == fit_student_t(SAMPLE)

    @given(st.floats(1e-3, 1e3), st.floats(-0.5, 0.5))
    def test_scales_and_shifts_with_the_returns(self, scale, shift):
        before, after = student_t(SAMPLE, C99), student_t(scale * SAMPLE + shift, C99)
        assert after.var == pytest.approx(scale * before.var - shift, rel=1e-6, abs=1e-9)
        assert after.es == pytest.approx(scale * before.es - shift, rel=1e-6, abs=1e-9)

    def test_of_returns_that_are_all_equal_has_no_scale(self):
        tail = student_t([0.01] * 10, C99)
        assert tail.var == tail.es == -0.01

    @pytest.mark.parametrize("v", [None, 4.0])
    def test_refuses_a_heap_of_equal_returns(self, v):
        with pytest.raises(NoFit):
            student_t([0.0] * 80 + [0.01, -0.02] * 10, C99, v)

    def test_refuses_rather_than_guess(self):
        with pytest.raises(TooFewReturns):
            student_t([0.01, 0.02], C99)
        with pytest.raises(NotFinite):
            student_t([0.01, np.nan, 0.02], C99)
        with pytest.raises(NotFinite):
            student_t([1e308, -1e308, 1e307, 1e308], C99)

    def test_leaves_its_input_alone(self):
        before = SAMPLE.copy()
        student_t(SAMPLE, C99)
        np.testing.assert_array_equal(SAMPLE, before)
