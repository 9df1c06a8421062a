from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    BadDecay,
    BadLevel,
    NotFinite,
    NoVolatility,
    TooFewReturns,
    WrongShape,
    ewma,
    ewma_var,
    ewma_volatilities,
    ewma_volatility,
    filtered_historical,
    filtered_historical_var,
    filtered_returns,
    historical,
)

C95, C99 = Fraction(95, 100), Fraction(99, 100)
SAMPLE = np.random.default_rng(8).standard_t(5, 600) * np.linspace(0.005, 0.02, 600)
one_return = st.floats(-0.5, 0.5, allow_subnormal=False)
returns = st.lists(one_return, min_size=1, max_size=100)
moving = st.lists(st.floats(1e-6, 0.5), min_size=2, max_size=60)
decays = st.floats(0.5, 0.99)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(999, 1000))
number = pytest.mark.parametrize("number", [ewma, filtered_historical])


class TestVolatility:
    def test_hull_example(self):
        # Hull: decay 0.90, the volatility is 1 % and the market moves 2 %: 1.14 %.
        assert ewma_volatility([0.01, 0.02], 0.90) == pytest.approx(0.0114, abs=5e-5)

    def test_hull_exercise(self):
        # Hull: decay 0.94, volatility 1.5 %, the price goes from 30.00 to 30.50: 1.5105 %.
        assert ewma_volatility([0.015, 0.5 / 30], 0.94) == pytest.approx(0.015105, abs=5e-7)

    def test_riskmetrics_effective_days(self):
        # RiskMetrics (1996), table 5.7: at 0.94, 74 days hold 99 % of the weight.
        calm = np.zeros(1000)
        for days, left in [(74, 0.0103), (75, 0.0097)]:
            last = ewma_volatility([1.0, *calm[:days]]) ** 2
            assert last == pytest.approx(left, abs=5e-5)

    def test_the_first_return_is_the_seed(self):
        assert ewma_volatility([-0.03]) == pytest.approx(0.03, rel=1e-15)
        assert ewma_volatilities([-0.03, 0.0])[0] == pytest.approx(0.03, rel=1e-15)

    @given(returns, decays)
    def test_agrees_with_pandas(self, sample, decay):
        squares = pd.Series(np.square(sample))
        expected = np.sqrt(squares.ewm(alpha=1 - decay, adjust=False).mean())
        forecasts = ewma_volatilities(sample, decay)
        np.testing.assert_allclose(forecasts, expected, rtol=1e-9, atol=1e-150)
        assert ewma_volatility(sample, decay) == forecasts[-1]

    @given(returns, st.lists(one_return, min_size=1, max_size=20))
    def test_no_forecast_looks_ahead(self, past, future):
        before, after = ewma_volatilities(past), ewma_volatilities([*past, *future])
        assert after[: len(past)].tolist() == before.tolist()

    @given(returns, st.floats(1e-3, 1e3))
    def test_twice_the_position_is_twice_the_risk(self, sample, scale):
        scaled = ewma_volatility([r * scale for r in sample])
        assert scaled == pytest.approx(scale * ewma_volatility(sample), rel=1e-9, abs=1e-150)

    @pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5, np.nan])
    def test_refuses_what_is_no_decay(self, decay):
        for call in (ewma_volatility, ewma_volatilities, filtered_returns):
            with pytest.raises(BadDecay):
                call(SAMPLE, decay)

    def test_refuses_overflow(self):
        with pytest.raises(NotFinite):
            ewma_volatility([1e200, 0.1])


class TestEwma:
    def test_is_normal_with_mean_zero(self):
        tail = ewma(SAMPLE, C99)
        assert (tail.method, tail.rank, tail.var_next) == ("ewma", None, None)
        assert tail.var == pytest.approx(2.3263478740 * ewma_volatility(SAMPLE), rel=1e-9)
        assert tail.es == pytest.approx(2.6652142203 * ewma_volatility(SAMPLE), rel=1e-9)
        assert ewma_var(SAMPLE, C99) == tail.var

    def test_of_no_moves_is_zero(self):
        assert ewma_var([0.0, 0.0], C99) == 0.0

    def test_depends_on_the_order(self):
        assert ewma_var(SAMPLE, C99) > 1.5 * ewma_var(SAMPLE[::-1], C99)


def by_the_word(sample, decay):
    """Hull and White's scaling, day by day."""
    variance, sigma = sum(r * r for r in sample) / len(sample), []
    for r in sample:
        sigma.append(variance**0.5)
        variance = decay * variance + (1 - decay) * r * r
    return [r * variance**0.5 / own for r, own in zip(sample, sigma, strict=True)]


class TestFiltered:
    @given(moving, decays, levels)
    def test_is_that_of_hull_and_white(self, sample, decay, level):
        expected = by_the_word(sample, decay)
        np.testing.assert_allclose(filtered_returns(sample, decay), expected, rtol=1e-9)
        tail, plain = filtered_historical(sample, level, decay), historical(expected, level)
        assert (tail.method, tail.rank) == ("filtered_historical", plain.rank)
        assert tail.var == pytest.approx(plain.var, rel=1e-9)
        assert tail.es == pytest.approx(plain.es, rel=1e-9)
        assert filtered_historical_var(sample, level, decay) == tail.var

    def test_follows_the_market(self):
        calm = np.random.default_rng(1).normal(0, 0.01, 400)
        storm = np.random.default_rng(2).normal(0, 0.04, 100)
        up, down = [*calm, *storm], [*storm, *calm]
        assert filtered_historical_var(up, C99) > 1.3 * historical(up, C99).var
        assert filtered_historical_var(down, C99) < 0.8 * historical(down, C99).var

    def test_a_constant_size_needs_no_scaling(self):
        sample = [0.01, -0.01] * 50
        np.testing.assert_allclose(filtered_returns(sample), sample, rtol=1e-12)

    def test_a_first_return_near_zero_does_not_blow_up_the_second(self):
        assert np.abs(filtered_returns([1e-9, *SAMPLE])).max() < 0.3

    def test_of_no_moves_is_zero(self):
        tail = filtered_historical([0.0] * 10, C95)
        assert str(tail.var) == str(tail.es) == "0.0"

    @given(moving, st.floats(1e-3, 1e3), levels)
    def test_twice_the_position_is_twice_the_risk(self, sample, scale, level):
        before = filtered_historical(sample, level)
        after = filtered_historical([r * scale for r in sample], level)
        assert after.var == pytest.approx(scale * before.var, rel=1e-9)
        assert after.es == pytest.approx(scale * before.es, rel=1e-9)

    def test_refuses_a_return_after_too_long_a_calm(self):
        with pytest.raises(NoVolatility):
            filtered_returns([0.01, *[0.0] * 1200, 0.01], 0.5)


@number
class TestEither:
    @given(sample=moving, two=st.lists(levels, min_size=2, max_size=2))
    def test_grows_with_the_level_and_es_is_never_below_var(self, number, sample, two):
        low, high = (number(sample, level) for level in sorted(two))
        assert low.var <= high.var
        assert low.es <= high.es + 1e-12 * abs(high.es)
        assert low.es >= low.var

    def test_refuses_rather_than_guess(self, number):
        with pytest.raises(TooFewReturns):
            number([], C99)
        with pytest.raises(NotFinite):
            number([0.01, np.nan], C99)
        with pytest.raises(WrongShape):
            number([[0.01, 0.02]], C99)
        with pytest.raises(BadLevel):
            number(SAMPLE, Fraction(1, 100))

    def test_leaves_its_input_alone(self, number):
        before = SAMPLE.copy()
        number(SAMPLE, C99)
        np.testing.assert_array_equal(SAMPLE, before)
