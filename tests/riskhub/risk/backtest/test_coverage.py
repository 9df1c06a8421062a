from fractions import Fraction
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk.backtest import kupiec

alphas = st.fractions(Fraction(1, 1000), Fraction(1, 2), max_denominator=1000)


@st.composite
def samples(draw):
    n = draw(st.integers(1, 3000))
    return n, draw(st.integers(0, n)), draw(alphas)


# Kupiec (1995), as reprinted in Jorion's "Value at Risk": not rejected at 5 % between the two,
# both left out. The table prints `N < 7` for 255 days at 1 %, without a lower end.
@pytest.mark.parametrize(
    ("alpha", "n", "below", "above"),
    [
        (0.01, 255, None, 7),
        (0.01, 510, 1, 11),
        (0.01, 1000, 4, 17),
        (0.025, 255, 2, 12),
        (0.025, 510, 6, 21),
        (0.025, 1000, 15, 36),
        (0.05, 255, 6, 21),
        (0.05, 510, 16, 36),
        (0.05, 1000, 37, 65),
        (0.075, 255, 11, 28),
        (0.075, 510, 27, 51),
        (0.075, 1000, 59, 92),
        (0.10, 255, 16, 36),
        (0.10, 510, 38, 65),
        (0.10, 1000, 81, 120),
    ],
)
def test_kupiecs_regions(alpha, n, below, above):
    kept = [x for x in range(n + 1) if not kupiec(n, x, alpha).reject]
    assert kept[-1] + 1 == above
    assert kept == list(range(kept[0], above))
    if below is not None:
        assert kept[0] - 1 == below


def test_none_of_255_is_rejected_by_the_formula_and_not_by_the_exact_test():
    none = kupiec(255, 0, 0.01)
    assert none.statistic == pytest.approx(-2 * 255 * log(0.99), rel=1e-14)
    assert (none.reject, none.reject_exact) == (True, False)


def test_by_hand():
    # 10 of 250 at 1 %: 2 (10 log 4 + 240 log(0.96 / 0.99))
    result = kupiec(250, 10, Fraction(1, 100))
    assert result.statistic == pytest.approx(20 * log(4) + 480 * log(0.96 / 0.99), rel=1e-13)
    assert result.p_value == pytest.approx(stats.chi2.sf(result.statistic, 1), rel=1e-12)
    assert result.p_value_exact == pytest.approx(stats.binomtest(10, 250, 0.01).pvalue, rel=1e-12)
    assert (result.expected, result.rate, result.reject) == (2.5, 0.04, True)


@given(samples())
def test_is_the_ratio_of_two_likelihoods(sample):
    n, x, alpha = sample
    ratio = stats.binom.logpmf(x, n, x / n) - stats.binom.logpmf(x, n, float(alpha))
    assert kupiec(n, x, alpha).statistic == pytest.approx(2 * ratio, rel=1e-7, abs=1e-7)


@given(samples())
def test_p_values_are_probabilities_and_decide(sample):
    result = kupiec(*sample)
    assert result.statistic >= 0
    assert 0 <= result.p_value <= 1
    assert 0 <= result.p_value_exact <= 1
    assert result.reject == (result.p_value <= 0.05)
    assert result.reject_exact == (result.p_value_exact <= 0.05)


@given(st.integers(1, 500), st.data())
def test_at_one_half_exceeding_and_not_are_alike(n, data):
    x = data.draw(st.integers(0, n))
    one, other = kupiec(n, x, Fraction(1, 2)), kupiec(n, n - x, Fraction(1, 2))
    assert one.statistic == pytest.approx(other.statistic, rel=1e-12, abs=1e-12)
    assert one.p_value_exact == other.p_value_exact


@pytest.mark.parametrize(("n", "x"), [(100, 1), (1000, 10), (40_000, 400)])
def test_what_was_expected_is_no_evidence(n, x):
    result = kupiec(n, x, 0.01)
    assert (str(result.statistic), result.p_value, result.p_value_exact) == ("0.0", 1.0, 1.0)


def test_the_exact_test_keeps_its_size():
    for n, alpha in [(50, 0.05), (250, 0.01), (250, 0.05)]:
        law = stats.binom(n, alpha)
        size = sum(law.pmf(x) for x in range(n + 1) if kupiec(n, x, alpha).reject_exact)
        assert size <= 0.05


def test_a_stricter_significance_rejects_less():
    assert kupiec(250, 7, 0.01).reject
    assert not kupiec(250, 7, 0.01, significance=0.01).reject
