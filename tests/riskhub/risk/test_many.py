from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    LEVELS,
    BadLevel,
    NoFit,
    NotFinite,
    OutsideMaillardDomain,
    TooFewReturns,
    WrongShape,
    cornish_fisher,
    cornish_fisher_many,
    ewma,
    ewma_many,
    filtered_historical,
    filtered_historical_many,
    historical,
    historical_many,
    moments,
    moments_many,
    normal,
    normal_many,
    student_t,
    student_t_many,
)

C99 = Fraction(99, 100)


def fitted_many(returns, levels):
    return student_t_many(returns, levels)[1]


pairs = pytest.mark.parametrize(
    ("many", "single"),
    [
        (historical_many, historical),
        (normal_many, normal),
        (ewma_many, ewma),
        (filtered_historical_many, filtered_historical),
        (fitted_many, student_t),
    ],
)


def worlds(m, n, seed=0):
    return np.random.default_rng(seed).standard_t(6, (m, n)) * 0.01


@pairs
@pytest.mark.parametrize("shape", [(1, 500), (7, 3), (40, 21), (600, 500), (5, 4097)])
def test_gives_what_each_gives_alone_to_the_last_bit(many, single, shape):
    returns = worlds(*shape)
    tails = many(returns, LEVELS)
    for row in range(0, shape[0], max(1, shape[0] // 20)):
        assert tails.of(row) == tuple(single(returns[row], level) for level in LEVELS)


@pairs
def test_a_world_does_not_depend_on_its_neighbours(many, single):
    returns = worlds(300, 60, seed=1)
    whole, part = many(returns, LEVELS), many(returns[120:140], LEVELS)
    assert whole.var[120:140].tolist() == part.var.tolist()
    assert whole.es[120:140].tolist() == part.es.tolist()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 100), st.data())
def test_historical_at_any_levels(m, n, seed, data):
    levels = data.draw(
        st.lists(st.fractions(Fraction(1, 2), Fraction(999, 1000)), min_size=1, max_size=4)
    )
    returns = worlds(m, n, seed)
    tails = historical_many(returns, levels)
    for row in range(m):
        assert tails.of(row) == tuple(historical(returns[row], level) for level in levels)


def test_moments_are_those_of_each():
    returns = worlds(700, 500)
    mean, sigma = moments_many(returns)
    for row in (0, 1, 350, 699):
        assert (mean[row], sigma[row]) == moments(returns[row])


def test_cornish_fisher_of_those_it_accepts():
    returns = np.random.default_rng(3).standard_t(4, (80, 300)) * 0.01
    accepted, tails = cornish_fisher_many(returns, LEVELS)
    assert 5 < accepted.sum() < 75
    assert len(tails.var) == accepted.sum()
    for place, row in enumerate(np.flatnonzero(accepted)):
        expected = tuple(cornish_fisher(returns[row], level) for level in LEVELS)
        assert tails.of(place) == expected
    for row in np.flatnonzero(~accepted):
        with pytest.raises(OutsideMaillardDomain):
            cornish_fisher(returns[row], C99)


@pairs
def test_of_no_worlds_is_empty(many, single):
    assert many(np.empty((0, 10)), LEVELS).var.shape == (0, 3)


def test_cornish_fisher_of_no_worlds_is_empty():
    accepted, tails = cornish_fisher_many(np.empty((0, 10)), LEVELS)
    assert (len(accepted), tails.var.shape) == (0, (0, 3))


def test_of_one_return_there_is_no_next():
    tails = historical_many([[-0.02], [0.01]], [C99])
    assert tails.var_next is None
    assert tails.of(0) == (historical([-0.02], C99),)


@pairs
def test_leaves_its_input_alone(many, single):
    returns = worlds(20, 50)
    before = returns.copy()
    many(returns, LEVELS)
    np.testing.assert_array_equal(returns, before)


@pairs
def test_refuses_rather_than_guess(many, single):
    with pytest.raises(NotFinite):
        many([[0.01, 0.02, 0.03], [0.01, np.nan, 0.02]], LEVELS)
    with pytest.raises(WrongShape):
        many([0.01, 0.02], LEVELS)
    with pytest.raises(TooFewReturns):
        many(np.empty((3, 0)), LEVELS)
    with pytest.raises(BadLevel):
        many(worlds(3, 10), [Fraction(1, 100)])


def test_student_t_of_those_that_can_be_fitted():
    idle = [0.0] * 8 + [0.01]
    returns = np.vstack([worlds(2, 9), [idle], [[0.01] * 9]])
    accepted, tails = student_t_many(returns, LEVELS)
    assert accepted.tolist() == [True, True, False, True]
    for place, row in enumerate([0, 1, 3]):
        assert tails.of(place) == tuple(student_t(returns[row], level) for level in LEVELS)
    with pytest.raises(NoFit):
        student_t(idle, C99)
