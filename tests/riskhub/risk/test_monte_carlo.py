from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import (
    BadDegrees,
    BadLevel,
    NotFinite,
    NotPsd,
    NotSymmetric,
    RiskInputError,
    StudentT,
    TooFewDraws,
    WrongShape,
    monte_carlo,
    monte_carlo_var,
    normal_from_moments,
    simulated_returns,
    student_t_from_fit,
)

C95, C99 = Fraction(95, 100), Fraction(99, 100)
MEAN = np.array([0.0005, 0.0002, 0.0001])
COVARIANCE = np.array([[4.0, 1.0, 0.5], [1.0, 2.0, -0.3], [0.5, -0.3, 1.0]]) * 1e-4
WEIGHTS = np.array([0.8, -0.4, 0.5])
BOOK = (MEAN, COVARIANCE, WEIGHTS)


def exact(level, degrees):
    mean, sigma = float(MEAN @ WEIGHTS), sqrt(WEIGHTS @ COVARIANCE @ WEIGHTS)
    if degrees is None:
        return normal_from_moments(mean, sigma, level)
    return student_t_from_fit(StudentT(mean, sigma * sqrt((degrees - 2) / degrees), degrees), level)


@pytest.mark.parametrize("level", [C95, C99])
@pytest.mark.parametrize("degrees", [None, 6.0])
def test_the_truth_lies_as_far_off_as_the_standard_error_says(level, degrees):
    truth = exact(level, degrees)
    runs = [monte_carlo(*BOOK, level, 4000, seed, degrees) for seed in range(200)]
    for errors in (
        [(run.tail.var - truth.var) / run.var_error for run in runs],
        [(run.tail.es - truth.es) / run.es_error for run in runs],
    ):
        # The bias of order 1/draws that a quantile of draws has is small beside the error.
        assert abs(np.mean(errors)) < 0.35
        low, high = np.sqrt(stats.chi2(199).ppf([1e-4, 1 - 1e-4]) / 199)
        assert 0.93 * low < np.std(errors, ddof=1) < 1.12 * high


@pytest.mark.parametrize("degrees", [None, 6.0])
def test_the_draws_have_the_moments_asked_for(degrees):
    draws = simulated_returns(*BOOK, 400_000, 3, degrees)
    assert draws.mean() == pytest.approx(MEAN @ WEIGHTS, abs=1e-4)
    assert draws.std() == pytest.approx(sqrt(WEIGHTS @ COVARIANCE @ WEIGHTS), rel=0.01)


def test_a_seed_gives_the_same_bits():
    first, second = (monte_carlo(*BOOK, C99, 20_000, 7, 5.0) for _ in range(2))
    assert first == second
    assert first.tail.var == monte_carlo_var(*BOOK, C99, 20_000, 7, 5.0)
    assert (first.draws, first.seed, first.tail.method) == (20_000, 7, "monte_carlo")
    assert monte_carlo(*BOOK, C99, 20_000, 8, 5.0).tail != first.tail


def test_the_stream_is_numpys_pcg64():
    normals = np.random.Generator(np.random.PCG64(11)).standard_normal(1000)
    draws = simulated_returns([0.001], [[4e-4]], [0.5], 1000, 11)
    np.testing.assert_allclose(draws, 0.5 * (0.001 + 0.02 * normals), rtol=1e-9, atol=1e-12)


def test_a_longer_run_begins_with_the_shorter():
    short, long = (simulated_returns(*BOOK, draws, 1) for draws in (1000, 40_000))
    assert long[:1000].tolist() == short.tolist()


@given(st.integers(0, 2**32), st.sampled_from([C95, C99]), st.floats(0.1, 10))
def test_es_is_never_below_var_and_scales(seed, level, scale):
    before = monte_carlo(MEAN, COVARIANCE, WEIGHTS, level, 1000, seed)
    after = monte_carlo(MEAN, COVARIANCE, scale * WEIGHTS, level, 1000, seed)
    assert before.tail.es >= before.tail.var
    assert after.tail.var == pytest.approx(scale * before.tail.var, rel=1e-9)
    assert after.tail.es == pytest.approx(scale * before.tail.es, rel=1e-9)
    assert after.var_error == pytest.approx(scale * before.var_error, rel=1e-6)
    assert after.es_error == pytest.approx(scale * before.es_error, rel=1e-6)


def test_rank_and_next_are_those_of_the_draws():
    tail = monte_carlo(*BOOK, C99, 2000, 5).tail
    worst = np.sort(simulated_returns(*BOOK, 2000, 5))
    assert (tail.rank, tail.var, tail.var_next) == (20, -worst[19], -worst[20])


class TestCovariance:
    @given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 1000))
    def test_of_less_than_full_rank_is_borne(self, n, rank, seed):
        rng = np.random.default_rng(seed)
        root = rng.normal(0, 0.01, (n, min(rank, n)))
        weights = rng.normal(0, 1, n)
        draws = simulated_returns(np.zeros(n), root @ root.T, weights, 20_000, 1)
        sigma = float(np.linalg.norm(root.T @ weights))
        assert draws.std() == pytest.approx(sigma, rel=0.05, abs=1e-8)

    def test_of_zero_leaves_the_mean(self):
        run = monte_carlo(MEAN, np.zeros((3, 3)), WEIGHTS, C99, 1000, 1)
        assert run.tail.var == run.tail.es == pytest.approx(-(MEAN @ WEIGHTS), rel=1e-15)
        assert run.var_error == run.es_error == 0.0

    @pytest.mark.parametrize(
        "matrix",
        [
            [[1.0, 2.0], [2.0, 1.0]],
            [[0.0, 0.1], [0.1, 0.0]],
            [[-1.0, 0.0], [0.0, 1.0]],
            [[1.0, 0.9], [0.9, 0.8]],
        ],
    )
    def test_of_no_distribution_is_refused(self, matrix):
        with pytest.raises(NotPsd):
            monte_carlo([0, 0], matrix, [0.5, 0.5], C99, 1000, 1)

    def test_that_is_not_symmetric_is_refused(self):
        with pytest.raises(NotSymmetric):
            monte_carlo([0, 0], [[1.0, 0.2], [0.1, 1.0]], [0.5, 0.5], C99, 1000, 1)


def test_refuses_rather_than_guess():
    with pytest.raises(TooFewDraws, match="999 draws"):
        monte_carlo(*BOOK, C99, 999, 1)
    with pytest.raises(RiskInputError):
        monte_carlo(*BOOK, C99, 1000, -1)
    with pytest.raises(RiskInputError):
        simulated_returns(*BOOK, 0, 1)
    with pytest.raises(BadDegrees):
        monte_carlo(*BOOK, C99, 1000, 1, 2.0)
    with pytest.raises(BadLevel):
        monte_carlo(*BOOK, Fraction(1, 100), 1000, 1)
    with pytest.raises(WrongShape):
        monte_carlo(MEAN[:2], COVARIANCE, WEIGHTS, C99, 1000, 1)
    with pytest.raises(NotFinite):
        monte_carlo(MEAN * np.nan, COVARIANCE, WEIGHTS, C99, 1000, 1)
