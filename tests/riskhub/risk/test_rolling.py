from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    LEVELS,
    BadLevel,
    NotFinite,
    RiskInputError,
    TooFewReturns,
    exceedances,
    historical,
    rolling_historical_var,
    windows_before,
)

C99 = Fraction(99, 100)
levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(999, 1000))


def day_by_day(returns, window, level):
    days = range(window, len(returns))
    return [historical(returns[day - window : day], level).var for day in days]


@pytest.mark.parametrize("level", [*LEVELS, Fraction(1, 2), Fraction(3, 4)])
@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 63, 64, 65, 250, 500])
def test_is_historical_of_every_window(window, level):
    returns = np.random.default_rng(window).standard_t(4, 900) * 0.01
    assert rolling_historical_var(returns, window, level).tolist() == day_by_day(
        returns, window, level
    )


@given(
    st.lists(st.sampled_from([-0.02, -0.01, 0.0, 0.01]), min_size=2, max_size=150),
    st.data(),
    levels,
)
def test_bears_ties_and_any_window(returns, data, level):
    window = data.draw(st.integers(1, len(returns) - 1))
    assert rolling_historical_var(returns, window, level).tolist() == day_by_day(
        returns, window, level
    )


def test_of_more_days_than_are_taken_at_once():
    returns = np.random.default_rng(0).standard_normal(40_000)
    var = rolling_historical_var(returns, 20, C99)
    lowest = np.lib.stride_tricks.sliding_window_view(returns[:-1], 20).min(axis=1)
    np.testing.assert_array_equal(var, -lowest)


def test_the_future_changes_nothing_before_it():
    returns = np.random.default_rng(1).normal(0, 0.01, 800)
    before = rolling_historical_var(returns, 250, C99)
    for day in (250, 251, 400, 799):
        changed = returns.copy()
        changed[day:] -= 0.5
        after = rolling_historical_var(changed, 250, C99)
        # The forecast for `day` itself is entry day - 250, made from the days before.
        assert after[: day - 249].tolist() == before[: day - 249].tolist()


def test_a_forecast_and_its_day_stand_at_the_same_place():
    returns = np.array([0.01, 0.01, 0.01, -0.05, 0.01])
    var = rolling_historical_var(returns, 3, C99)
    assert var.tolist() == [-0.01, 0.05]
    assert exceedances(var, -returns[3:]).tolist() == [True, False]
    assert windows_before(returns, 3).tolist() == [[0.01, 0.01, 0.01], [0.01, 0.01, -0.05]]


def test_of_no_moves_is_a_plain_zero():
    assert str(rolling_historical_var([0.0, 0.0, 0.0], 2, C99)[0]) == "0.0"


def test_refuses_rather_than_guess():
    with pytest.raises(TooFewReturns, match="3 returns given, at least 4 needed"):
        rolling_historical_var([0.01] * 3, 3, C99)
    with pytest.raises(RiskInputError):
        rolling_historical_var([0.01] * 3, 0, C99)
    with pytest.raises(NotFinite):
        rolling_historical_var([0.01, np.nan, 0.02], 1, C99)
    with pytest.raises(BadLevel):
        rolling_historical_var([0.01] * 3, 2, Fraction(1, 100))
