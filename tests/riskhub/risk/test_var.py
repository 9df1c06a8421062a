from datetime import date
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from riskhub.prices import load_panel
from riskhub.risk import (
    LEVELS,
    BadLevel,
    NotFinite,
    RiskInputError,
    TooFewReturns,
    WrongShape,
    historical,
    normal,
    normal_from_moments,
    portfolio_returns,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sp500_prices.csv.gz"
C90, C95, C99 = Fraction(9, 10), Fraction(95, 100), Fraction(99, 100)

one_return = st.floats(-0.9, 0.9, allow_subnormal=False)
returns = st.lists(one_return, min_size=2, max_size=300)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(999, 1000))
methods = pytest.mark.parametrize("method", [historical, normal])


@pytest.fixture(scope="module")
def panel():
    return load_panel(SHIPPED)


def acerbi_tasche(sample, level):
    """Their definition word by word, in exact arithmetic."""
    worst = sorted((-Fraction(r) for r in sample), reverse=True)
    mass = len(sample) * (1 - level)
    whole = floor(mass)
    total = sum(worst[:whole], Fraction(0))
    if mass > whole:
        total += (mass - whole) * worst[whole]
    return total / mass


class TestHistorical:
    def test_by_hand_with_a_whole_tail(self):
        # 20 returns at 90 %: the tail holds 2, of losses 0.10 and 0.06.
        sample = [0.01] * 17 + [-0.10, -0.03, -0.06]
        tail = historical(sample, C90)
        assert (tail.method, tail.level, tail.rank) == ("historical", C90, 2)
        assert tail.var == 0.06
        assert tail.var_next == 0.03
        assert tail.es == pytest.approx(0.08, rel=1e-15)

    def test_by_hand_with_a_fraction_in_the_tail(self):
        # 15 returns at 90 %: the tail holds 1.5, so (0.10 + 0.06 / 2) / 1.5.
        sample = [-0.06, -0.03, *[0.01] * 12, -0.10]
        tail = historical(sample, C90)
        assert (tail.rank, tail.var, tail.var_next) == (2, 0.06, 0.03)
        assert tail.es == pytest.approx(0.13 / 1.5, rel=1e-15)

    def test_of_one_return_is_that_loss(self):
        tail = historical([-0.02], C99)
        assert (tail.rank, tail.var, tail.es, tail.var_next) == (1, 0.02, 0.02, None)

    def test_of_gains_is_negative(self):
        tail = historical([0.01, 0.02], C99)
        assert tail.var == tail.es == -0.01

    def test_of_no_moves_is_a_plain_zero(self):
        tail = historical([0.0, 0.0], C99)
        assert [str(x) for x in (tail.var, tail.es, tail.var_next)] == ["0.0", "0.0", "0.0"]

    @given(returns, levels)
    def test_var_is_the_kth_worst_return(self, sample, level):
        tail = historical(sample, level)
        k = ceil(len(sample) * (1 - level))
        assert tail.rank == k
        assert tail.var == -sorted(sample)[k - 1]
        assert tail.var_next == (-sorted(sample)[k] if k < len(sample) else None)

    @given(returns, levels)
    def test_var_is_the_upper_quantile_of_the_losses(self, sample, level):
        # inf {x : P(L <= x) > c}
        n = len(sample)
        losses = [-r for r in sample]
        above = [x for x in losses if Fraction(sum(loss <= x for loss in losses), n) > level]
        assert historical(sample, level).var == min(above)

    @given(returns, levels)
    def test_es_is_that_of_acerbi_and_tasche(self, sample, level):
        expected = float(acerbi_tasche(sample, level))
        assert historical(sample, level).es == pytest.approx(expected, rel=1e-12, abs=1e-14)

    @given(st.lists(one_return, min_size=2, max_size=30), levels)
    def test_es_is_the_mean_of_var_over_the_tail(self, sample, level):
        # The VaR at alpha is the (j+1)-th worst loss for alpha in (j/n, (j+1)/n): the integral of
        # a step function is a sum over its steps, each asked of `historical` in its middle.
        n, alpha = len(sample), 1 - level
        edges = [*(Fraction(j, n) for j in range(n) if Fraction(j, n) < alpha), alpha]
        integral = sum(
            float(high - low) * historical(sample, 1 - (low + high) / 2).var
            for low, high in pairwise(edges)
        )
        es = historical(sample, level).es
        assert es == pytest.approx(integral / float(alpha), rel=1e-12, abs=1e-14)

    @given(returns, levels, st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order(self, sample, level, random):
        shuffled = random.sample(sample, len(sample))
        assert historical(shuffled, level) == historical(sample, level)

    @given(returns, levels)
    def test_leaves_its_input_alone(self, sample, level):
        array = np.array(sample)
        historical(array, level)
        assert array.tolist() == sample


class TestNormal:
    def test_published_quantiles(self):
        # Phi^-1(0.99) and phi(z)/0.01 of the standard normal, from tables.
        tail = normal_from_moments(0.0, 1.0, C99)
        assert (tail.method, tail.rank, tail.var_next) == ("normal", None, None)
        assert tail.var == pytest.approx(2.3263478740, abs=1e-9)
        assert tail.es == pytest.approx(2.6652142203, abs=1e-9)

    @given(st.floats(-0.01, 0.01), st.floats(1e-4, 0.1), levels)
    def test_es_is_the_mean_loss_beyond_var(self, mean, sigma, level):
        tail = normal_from_moments(mean, sigma, level)
        loss = stats.norm(-mean, sigma)
        assert tail.var == pytest.approx(loss.ppf(float(level)), rel=1e-9, abs=1e-12)
        beyond, _ = integrate.quad(
            lambda x: x * loss.pdf(x), tail.var, tail.var + 12 * sigma, epsabs=1e-13
        )
        assert tail.es == pytest.approx(beyond / float(1 - level), rel=1e-6, abs=1e-9)

    @given(returns, levels)
    def test_uses_the_sample_mean_and_deviation(self, sample, level):
        loss = stats.norm(-np.mean(sample), max(np.std(sample, ddof=1), 1e-300))
        expected = loss.ppf(float(level))
        assert normal(sample, level).var == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_keeps_its_precision_far_out(self):
        level = 1 - Fraction(1, 10**20)
        assert normal_from_moments(0.0, 1.0, level).var == pytest.approx(stats.norm.isf(1e-20))

    def test_without_deviation_is_the_mean_loss(self):
        tail = normal_from_moments(0.01, 0.0, C95)
        assert tail.var == tail.es == -0.01

    def test_refuses_moments_that_are_none(self):
        for mean, sigma in [(np.nan, 1.0), (0.0, np.nan), (np.inf, 1.0), (0.0, np.inf)]:
            with pytest.raises(NotFinite):
                normal_from_moments(mean, sigma, C99)
        with pytest.raises(RiskInputError, match="negative"):
            normal_from_moments(0.0, -1e-9, C99)


@methods
class TestEitherMethod:
    @given(sample=returns, level=levels)
    def test_es_is_never_below_var(self, method, sample, level):
        tail = method(sample, level)
        assert tail.es >= tail.var

    @given(sample=returns, level=levels, shift=st.floats(-0.5, 0.5))
    def test_cash_is_subtracted(self, method, sample, level, shift):
        before, after = method(sample, level), method([r + shift for r in sample], level)
        assert after.var == pytest.approx(before.var - shift, abs=1e-12)
        assert after.es == pytest.approx(before.es - shift, abs=1e-12)

    @given(sample=returns, level=levels, scale=st.floats(1e-3, 1e3))
    def test_twice_the_position_is_twice_the_risk(self, method, sample, level, scale):
        before, after = method(sample, level), method([r * scale for r in sample], level)
        assert after.var == pytest.approx(before.var * scale, rel=1e-9, abs=1e-11)
        assert after.es == pytest.approx(before.es * scale, rel=1e-9, abs=1e-11)

    @given(sample=returns, two=st.lists(levels, min_size=2, max_size=2))
    def test_grows_with_the_level(self, method, sample, two):
        low, high = (method(sample, level) for level in sorted(two))
        assert low.var <= high.var + 1e-15
        assert low.es <= high.es + 1e-12

    def test_gives_plain_floats(self, method):
        tail = method(np.array([0.01, -0.02, 0.005]), C99)
        assert (type(tail.var), type(tail.es)) == (float, float)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
    def test_refuses_what_is_not_finite(self, method, bad):
        with pytest.raises(NotFinite):
            method([0.01, bad, -0.02], C99)

    def test_refuses_too_few(self, method):
        with pytest.raises(TooFewReturns, match="0 returns given"):
            method([], C99)

    def test_refuses_a_matrix(self, method):
        with pytest.raises(WrongShape):
            method([[0.01, 0.02]], C99)

    def test_refuses_a_level_that_is_an_alpha(self, method):
        with pytest.raises(BadLevel):
            method([0.01, -0.02], Fraction(1, 100))


def test_the_normal_method_needs_a_deviation():
    with pytest.raises(TooFewReturns, match="1 returns given, at least 2 needed"):
        normal([0.01], C99)


@given(st.lists(st.tuples(one_return, one_return), min_size=2, max_size=60), levels)
def test_historical_es_of_a_sum_is_at_most_the_sum_of_es(pairs, level):
    # Coherence: the reason to have ES beside VaR.
    first, second = np.array(pairs).T
    together = historical(first + second, level).es
    assert together <= historical(first, level).es + historical(second, level).es + 1e-12


class TestShippedPanel:
    @pytest.mark.parametrize(
        "end", [date(1999, 3, 31), date(2008, 10, 15), date(2020, 3, 16), date(2022, 12, 28)]
    )
    def test_equal_weight_var_99_is_the_fifth_worst_of_500_days(self, panel, end):
        window = panel.window(panel.symbols, end, 500)
        tail = historical(portfolio_returns(window, np.full(20, 0.05)), C99)

        last = panel.days.index(end)
        prices = panel.prices[last - 500 : last + 1]
        plain = sorted(sum(today / before - 1) / 20 for before, today in pairwise(prices))
        assert tail.rank == 5
        assert tail.var == pytest.approx(-plain[4], rel=1e-12)
        assert tail.var_next == pytest.approx(-plain[5], rel=1e-12)
        assert tail.es == pytest.approx(-sum(plain[:5]) / 5, rel=1e-12)

    @pytest.mark.parametrize("level", LEVELS)
    def test_historical_tails_are_fatter_than_normal_in_es(self, panel, level):
        sample = portfolio_returns(panel.returns, np.full(20, 0.05))
        assert historical(sample, level).es > normal(sample, level).es
