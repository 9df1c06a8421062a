from fractions import Fraction
from math import prod, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    BadHorizon,
    NotFinite,
    Ruin,
    TooFewReturns,
    historical,
    normal,
    normal_from_moments,
    overlapping,
    overlapping_returns,
    square_root_of_time,
)

C95, C99 = Fraction(95, 100), Fraction(99, 100)
SAMPLE = np.random.default_rng(6).normal(0.0003, 0.01, 600)
returns = st.lists(st.floats(-0.9, 0.9, allow_subnormal=False), min_size=12, max_size=60)
horizons = st.integers(1, 12)


def test_compounds_by_hand():
    expected = [1.1 * 0.5 - 1, 0.5 * 1.2 - 1]
    np.testing.assert_allclose(overlapping_returns([0.1, -0.5, 0.2], 2), expected, rtol=1e-15)


@given(returns, horizons)
def test_every_window_is_compounded(sample, days):
    windows = [sample[i : i + days] for i in range(len(sample) - days + 1)]
    expected = [prod(1 + r for r in window) - 1 for window in windows]
    np.testing.assert_allclose(overlapping_returns(sample, days), expected, rtol=1e-12, atol=1e-14)


@given(returns, returns, horizons)
def test_a_window_is_the_same_in_every_series_that_holds_it(past, future, days):
    before, after = overlapping_returns(past, days), overlapping_returns([*past, *future], days)
    assert after[: len(before)].tolist() == before.tolist()
    assert overlapping_returns(future, days).tolist() == after[len(past) :].tolist()


def test_ten_days_by_overlapping_windows():
    horizon = overlapping(SAMPLE, C99, 10)
    assert (horizon.days, horizon.rule, horizon.windows) == (10, "overlapping", 591)
    assert horizon.tail == historical(overlapping_returns(SAMPLE, 10), C99)
    assert horizon.tail.rank == 6
    assert overlapping(SAMPLE, C99, 10, normal).tail.method == "normal"


def test_of_one_day_is_the_day_itself():
    assert overlapping(SAMPLE, C99, 1).tail == historical(SAMPLE, C99)
    assert overlapping_returns(SAMPLE, 1) is not SAMPLE


def test_square_root_of_time_is_that():
    daily = normal_from_moments(0.0, 0.01, C99)
    horizon = square_root_of_time(daily, 10)
    assert (horizon.rule, horizon.windows) == ("square_root_of_time", None)
    assert horizon.tail.var == pytest.approx(0.01 * sqrt(10) * 2.3263478740, rel=1e-9)
    assert horizon.tail.es == pytest.approx(0.01 * sqrt(10) * 2.6652142203, rel=1e-9)
    assert horizon.tail.var_next is None
    ranked = historical(SAMPLE, C95)
    scaled = square_root_of_time(ranked, 4).tail
    assert (scaled.var, scaled.var_next) == (2 * ranked.var, 2 * ranked.var_next)
    assert square_root_of_time(ranked, 1).tail == ranked


def test_a_trend_is_what_the_square_root_misses():
    falling = SAMPLE - 0.005
    by_windows = overlapping(falling, C99, 20).tail.var
    assert by_windows > 1.1 * square_root_of_time(historical(falling, C99), 20).tail.var


def test_a_total_loss_stays_one():
    assert overlapping_returns([0.1, -1.0, 0.5], 2).tolist() == [-1.0, -1.0]


def test_refuses_rather_than_guess():
    for days in (0, -1):
        with pytest.raises(BadHorizon):
            overlapping(SAMPLE, C99, days)
        with pytest.raises(BadHorizon):
            square_root_of_time(historical(SAMPLE, C99), days)
    with pytest.raises(TooFewReturns, match="9 returns given, at least 10 needed"):
        overlapping(SAMPLE[:9], C99, 10)
    with pytest.raises(Ruin):
        overlapping([0.1, -1.5, -1.5], C99, 2)
    with pytest.raises(NotFinite):
        overlapping([0.1, np.nan], C99, 2)
    with pytest.raises(NotFinite):
        overlapping([1e200, 1e200], C99, 2)
