from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats

from riskhub.risk import (
    BadLevel,
    NotFinite,
    OutsideMaillardDomain,
    RiskInputError,
    TooFewReturns,
    cornish_fisher,
    cornish_fisher_from_moments,
    cornish_fisher_var,
    in_maillard_domain,
    normal,
    shape,
)

C95, C99 = Fraction(95, 100), Fraction(99, 100)
SAMPLE = np.random.default_rng(2).standard_t(9, 500) * 0.01 + 0.0004
skewnesses, kurtoses = st.floats(-3, 3), st.floats(-2, 10)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(999, 1000))
returns = st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=5, max_size=100)


def expansion(z, s, k):
    """Of a quantile of the losses, whose skewness is s: Cornish and Fisher (1937)."""
    return z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36


@pytest.mark.parametrize(
    ("skewness", "kurtosis", "expected"),
    [
        # Values of the D library mir.stat, `cornishFisherInvCDF`, at 0.01 and (mirrored) at 0.99.
        (0.1, 1.0, 2.482841),
        (-0.1, 1.0, 2.629904),
    ],
)
def test_published_quantiles(skewness, kurtosis, expected):
    tail = cornish_fisher_from_moments(0.0, 1.0, skewness, kurtosis, C99)
    assert (tail.method, tail.level, tail.rank, tail.var_next) == (
        "cornish_fisher",
        C99,
        None,
        None,
    )
    assert tail.var == pytest.approx(expected, abs=5e-7)


def test_without_skewness_and_kurtosis_is_normal():
    tail = cornish_fisher_from_moments(0.001, 0.01, 0.0, 0.0, C99)
    assert tail.var == pytest.approx(0.01 * 2.3263478740 - 0.001, abs=1e-11)
    assert tail.es == pytest.approx(0.01 * 2.6652142203 - 0.001, abs=1e-11)


class TestDomain:
    def test_of_maillard(self):
        # Maillard (2012): K from 0 to 8 without skewness; |S| at most 6 (sqrt(2) - 1).
        assert in_maillard_domain(0.0, 0.0)
        assert in_maillard_domain(0.0, 8.0)
        assert not in_maillard_domain(0.0, 8.0001)
        assert not in_maillard_domain(0.0, -0.0001)
        assert not in_maillard_domain(0.1, 0.0)
        widest = 6 * (sqrt(2) - 1)
        kurtoses = np.linspace(0, 40, 20_001)
        assert any(in_maillard_domain(widest - 1e-4, k) for k in kurtoses)
        assert not any(in_maillard_domain(widest + 1e-4, k) for k in kurtoses)

    @given(skewnesses, kurtoses)
    def test_is_where_quantiles_keep_their_order(self, skewness, kurtosis):
        s, k = -skewness, kurtosis
        cubic = [k / 24 - s**2 / 18, s / 6, 1 - k / 8 + 5 * s**2 / 36, -s / 6]
        size = np.geomspace(1e-3, 1e6, 5000)
        z = np.concatenate([-size[::-1], size])
        assert np.polyval(cubic, 1.7) == pytest.approx(expansion(1.7, s, k), rel=1e-9)
        slope = (np.polyval(np.polyder(cubic), z) / (1 + z**2)).min()
        assume(abs(slope) > 1e-6)
        assert in_maillard_domain(skewness, kurtosis) == (slope > 0)

    @given(skewnesses, kurtoses)
    def test_has_no_side(self, skewness, kurtosis):
        assert in_maillard_domain(skewness, kurtosis) == in_maillard_domain(-skewness, kurtosis)

    def test_outside_it_is_refused_with_what_was_found(self):
        crash = [*[0.001, -0.001] * 250, -0.2]
        with pytest.raises(OutsideMaillardDomain, match=r"skewness S = -21\.9") as refusal:
            cornish_fisher(crash, C99)
        assert refusal.value.skewness == pytest.approx(stats.skew(crash), rel=1e-9)
        assert refusal.value.kurtosis == pytest.approx(stats.kurtosis(crash), rel=1e-9)


class TestShape:
    @given(returns)
    def test_agrees_with_scipy(self, sample):
        assume(np.std(sample) > 1e-6)
        skewness, kurtosis = shape(sample)
        assert skewness == pytest.approx(stats.skew(sample), rel=1e-7, abs=1e-7)
        assert kurtosis == pytest.approx(stats.kurtosis(sample), rel=1e-7, abs=1e-7)

    def test_of_returns_that_are_all_equal_is_none(self):
        assert shape([0.1] * 7) == (0.0, 0.0)
        assert cornish_fisher([0.1] * 7, C99).var == pytest.approx(-0.1, rel=1e-12)

    def test_of_tiny_returns_is_that_of_large_ones(self):
        assert shape(SAMPLE * 1e-100) == pytest.approx(shape(SAMPLE), rel=1e-9)

    def test_refuses_overflow(self):
        with pytest.raises(NotFinite):
            shape([1e308, 1e308, -1e308])


@given(skewnesses, kurtoses, levels)
def test_es_is_the_mean_of_the_quantiles_beyond_var(skewness, kurtosis, level):
    assume(in_maillard_domain(skewness, kurtosis))
    tail = cornish_fisher_from_moments(0.0, 1.0, skewness, kurtosis, level)
    z = stats.norm.isf(float(1 - level))
    beyond, _ = integrate.quad(
        lambda x: expansion(x, -skewness, kurtosis) * stats.norm.pdf(x), z, z + 15, epsabs=1e-12
    )
    assert tail.var == pytest.approx(expansion(z, -skewness, kurtosis), rel=1e-9, abs=1e-9)
    assert tail.es == pytest.approx(beyond / float(1 - level), rel=1e-6, abs=1e-8)


@given(skewnesses, kurtoses, st.floats(0, 0.1), st.lists(levels, min_size=2, max_size=2))
def test_grows_with_the_level_and_es_is_never_below_var(skewness, kurtosis, sigma, two):
    assume(in_maillard_domain(skewness, kurtosis))
    low, high = (
        cornish_fisher_from_moments(0.001, sigma, skewness, kurtosis, level)
        for level in sorted(two)
    )
    assert low.var <= high.var + 1e-12
    assert low.es <= high.es + 1e-12
    assert low.var <= low.es
    assert high.var <= high.es


def test_is_made_of_the_samples_own_moments():
    expected = expansion(stats.norm.ppf(0.99), -stats.skew(SAMPLE), stats.kurtosis(SAMPLE))
    tail = cornish_fisher(SAMPLE, C99)
    assert tail.var == pytest.approx(expected * SAMPLE.std(ddof=1) - SAMPLE.mean(), rel=1e-10)
    assert cornish_fisher_var(SAMPLE, C99) == tail.var
    assert tail.var > normal(SAMPLE, C99).var


def test_scales_and_shifts_with_the_returns():
    before, after = cornish_fisher(SAMPLE, C99), cornish_fisher(3 * SAMPLE + 0.02, C99)
    assert after.var == pytest.approx(3 * before.var - 0.02, rel=1e-10)
    assert after.es == pytest.approx(3 * before.es - 0.02, rel=1e-10)


def test_does_not_depend_on_the_order():
    before, after = cornish_fisher(SAMPLE, C95), cornish_fisher(SAMPLE[::-1], C95)
    assert after.var == pytest.approx(before.var, rel=1e-12)
    assert after.es == pytest.approx(before.es, rel=1e-12)


def test_refuses_rather_than_guess():
    with pytest.raises(TooFewReturns):
        cornish_fisher([0.01], C99)
    with pytest.raises(NotFinite):
        cornish_fisher([0.01, np.nan, 0.02], C99)
    with pytest.raises(BadLevel):
        cornish_fisher(SAMPLE, Fraction(1, 100))
    with pytest.raises(NotFinite):
        cornish_fisher_from_moments(0.0, 1.0, np.nan, 1.0, C99)
    with pytest.raises(RiskInputError, match="negative"):
        cornish_fisher_from_moments(0.0, -1.0, 0.0, 1.0, C99)
