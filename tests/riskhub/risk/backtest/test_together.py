import inspect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import riskhub.risk.backtest as room
from riskhub.risk import LEVELS, BadLevel, NotFinite, WrongShape, normal_from_moments
from riskhub.risk.backtest import (
    TooFewObservations,
    acerbi_szekely,
    backtest,
    christoffersen,
    kupiec,
    multinomial,
    rolling_traffic_light,
    traffic_light,
)

C99 = Fraction(99, 100)


def forecasts(n, level=C99):
    tail = normal_from_moments(0.0, 0.01, level)
    return np.full(n, tail.var), np.full(n, tail.es)


@pytest.fixture(scope="module")
def losses():
    return np.random.default_rng(20).normal(0, 0.012, 1000)


def test_each_part_is_the_test_of_that_name(losses):
    var, es = forecasts(1000)
    ladder = {level: forecasts(1000, level)[0] for level in reversed(LEVELS)}
    result = backtest(var, es, losses, C99, ladder=ladder, simulations=500, seed=3)
    hits = losses > var
    assert result.hits.tolist() == hits.tolist()
    assert (result.observations, result.exceedances) == (1000, hits.sum())
    assert result.kupiec == kupiec(1000, hits.sum(), 0.01)
    assert result.christoffersen == christoffersen(hits, 0.01)
    assert result.traffic_light == traffic_light(250, hits[-250:].sum(), 0.01)
    assert result.traffic_light.multiplier is not None
    rolling = rolling_traffic_light(hits, 0.01)
    assert result.rolling.counts.tolist() == rolling.counts.tolist()
    assert result.rolling.zones.tolist() == rolling.zones.tolist()
    assert result.rolling.counts[-1] == result.traffic_light.exceedances
    options = {"simulations": 500, "seed": 3}
    assert result.acerbi_szekely == acerbi_szekely(var, es, losses, 0.01, **options)
    columns = np.column_stack([ladder[level] for level in LEVELS])
    assert result.multinomial == multinomial(columns, losses, [0.05, 0.025, 0.01], **options)
    assert result.untested == ()


def test_says_what_it_did_not_test(losses):
    var, es = forecasts(1000)
    alone = backtest(var, None, losses, C99)
    assert (alone.acerbi_szekely, alone.multinomial) == (None, None)
    assert [reason.partition(":")[0] for reason in alone.untested] == [
        "acerbi_szekely",
        "multinomial",
    ]
    crossed = {Fraction(95, 100): es, C99: var}
    bad = backtest(var, var * 0.9, losses, C99, ladder=crossed)
    assert (bad.acerbi_szekely, bad.multinomial) == (None, None)
    assert "less than the value at risk on 1000 day(s)" in bad.untested[0]
    assert "smaller" in bad.untested[1]
    calm = backtest(var, es, np.zeros(1000), C99)
    assert [reason.partition(":")[0] for reason in calm.untested] == [
        "christoffersen",
        "acerbi_szekely",
        "multinomial",
    ]
    assert calm.acerbi_szekely.z2.statistic == 1.0


def test_of_fewer_days_than_the_window_lights_up_for_all_of_them(losses):
    result = backtest(*forecasts(100), losses[:100], C99)
    assert result.traffic_light.observations == 100
    assert len(result.rolling.counts) == 0


def test_of_tens_of_thousands_of_days():
    losses = np.random.default_rng(1).normal(0, 0.01, 40_000)
    result = backtest(*forecasts(40_000), losses, C99, simulations=200)
    assert not result.kupiec.reject
    assert len(result.rolling.counts) == 40_000 - 249


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=80), st.integers(1, 300))
def test_no_nan_and_every_p_value_a_probability(losses, window):
    n = len(losses)
    result = backtest(*forecasts(n), losses, C99, window, simulations=50)
    both = result.christoffersen.conditional_coverage
    for test in (result.kupiec, result.christoffersen, both, result.traffic_light):
        assert 0 <= test.p_value <= 1
        assert np.isfinite(test.statistic)
        assert test.reject in (True, False)
    assert 0 < result.acerbi_szekely.p_value <= 1


def test_refuses():
    with pytest.raises(BadLevel):
        backtest([0.02] * 3, None, [0.0] * 3, Fraction(1, 100))
    with pytest.raises(WrongShape):
        backtest([0.02] * 3, None, [0.0] * 2, C99)
    with pytest.raises(WrongShape, match="ladder"):
        backtest([0.02] * 3, None, [0.0] * 3, C99, ladder={C99: [0.02] * 2})
    with pytest.raises(NotFinite):
        backtest([0.02, np.nan], None, [0.0] * 2, C99)
    with pytest.raises(TooFewObservations):
        backtest([0.02], None, [0.0], C99)


def test_the_public_names_are_functions_and_classes():
    # A module of the same name would hide one of them.
    for name in room.__all__:
        assert not inspect.ismodule(getattr(room, name))
