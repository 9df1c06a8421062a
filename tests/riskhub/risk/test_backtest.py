import numpy as np
import pytest
from scipy import stats

from riskhub.risk import LEVELS, NotFinite, WrongShape, exceedances, normal


def test_only_a_loss_beyond_its_var_exceeds_it():
    var = [0.02, 0.02, 0.02, 0.02, -0.01]
    losses = [0.0201, 0.02, 0.0199, -0.05, 0.0]
    assert exceedances(var, losses).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("level", LEVELS)
def test_forecasts_of_the_true_law_are_exceeded_as_often_as_they_say(level):
    returns = np.random.default_rng(11).normal(0.0005, 0.01, 5000)
    window = 500
    var = [normal(returns[day - window : day], level).var for day in range(window, len(returns))]
    count = exceedances(var, -returns[window:]).sum()
    low, high = stats.binom(len(var), float(1 - level)).ppf([0.0005, 0.9995])
    assert low <= count <= high


def test_of_no_days_is_empty():
    assert exceedances([], []).tolist() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_a_day_without_a_number(bad):
    with pytest.raises(NotFinite, match="values at risk"):
        exceedances([0.02, bad], [0.01, 0.01])
    with pytest.raises(NotFinite, match="losses"):
        exceedances([0.02, 0.02], [0.01, bad])


def test_refuses_series_that_do_not_pair():
    with pytest.raises(WrongShape, match="2 values at risk for 3 losses"):
        exceedances([0.02, 0.02], [0.01, 0.01, 0.01])
    with pytest.raises(WrongShape):
        exceedances([0.02], 0.01)
