from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import (
    NotFinite,
    NotSymmetric,
    NoVariance,
    RiskInputError,
    WrongShape,
    is_psd,
    nearest_correlation,
    repaired,
)

PATH = np.array([[2.0, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 2]])
BROKEN = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])


@st.composite
def symmetric_matrices(draw, largest=3.0):
    n = draw(st.integers(1, 7))
    entry = st.floats(-largest, largest, allow_subnormal=False)
    flat = draw(st.lists(entry, min_size=n * n, max_size=n * n))
    upper = np.triu(np.reshape(flat, (n, n)))
    return upper + np.triu(upper, 1).T


def alternating_projections(matrix, steps):
    """Higham (2002), algorithm 3.3, word by word: projections with Dykstra's correction."""
    y, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(steps):
        r = y - correction
        values, vectors = np.linalg.eigh(r)
        x = (vectors * np.maximum(values, 0)) @ vectors.T
        correction = x - r
        y = x.copy()
        np.fill_diagonal(y, 1.0)
    return y


class TestNearestCorrelation:
    def test_highams_matrix_of_three(self):
        # Higham (2002), section 4: printed as 0.7607, 0.1573.
        result = nearest_correlation(BROKEN)
        expected = [[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]]
        np.testing.assert_allclose(result.matrix, expected, atol=5e-5)
        assert result.distance == pytest.approx(0.5278, abs=5e-5)
        assert result.smallest_before == pytest.approx(1 - sqrt(2), rel=1e-12)
        assert result.smallest_after == pytest.approx(0.0, abs=1e-12)

    def test_highams_matrix_of_four_as_nag_publishes_it(self):
        # NAG Library Manual, Mark 27.2, g02aa example results; distance in those of g02aac.
        result = nearest_correlation(PATH)
        a, b, c, d = (
            -8.084124981489e-01,
            1.915875018502e-01,
            1.067750490255e-01,
            -6.562326948064e-01,
        )
        expected = [[1, a, b, c], [a, 1, d, b], [b, d, 1, a], [c, b, a, 1]]
        np.testing.assert_allclose(result.matrix, expected, atol=1e-9)
        assert result.distance == pytest.approx(2.134, abs=5e-4)

    @pytest.mark.parametrize("n", [2, 3, 10, 60])
    def test_equal_correlations_that_are_too_low_become_the_lowest_possible(self, n):
        # By symmetry the nearest has one correlation, and that is at least -1 / (n - 1).
        matrix = np.full((n, n), -1.5)
        result = nearest_correlation(matrix)
        expected = np.full((n, n), -1 / (n - 1))
        np.fill_diagonal(expected, 1.0)
        np.testing.assert_allclose(result.matrix, expected, atol=1e-9)

    @pytest.mark.parametrize("rho", [1.0001, 2.0, 1000.0])
    def test_a_correlation_beyond_one_becomes_one(self, rho):
        result = nearest_correlation([[1.0, rho], [rho, 1.0]])
        np.testing.assert_allclose(result.matrix, np.ones((2, 2)), atol=1e-9)
        assert result.distance == pytest.approx(sqrt(2) * (rho - 1), rel=1e-9)

    @pytest.mark.parametrize("seed", range(8))
    def test_agrees_with_alternating_projections(self, seed):
        generator = np.random.default_rng(seed)
        n = 3 + seed
        matrix = generator.uniform(-1, 1, (n, n))
        matrix = (matrix + matrix.T) / 2
        np.fill_diagonal(matrix, 1.0)
        expected = alternating_projections(matrix, 2000)
        np.testing.assert_allclose(nearest_correlation(matrix).matrix, expected, atol=1e-7)

    @given(symmetric_matrices())
    def test_is_a_correlation_matrix(self, matrix):
        result = nearest_correlation(matrix)
        assert result.matrix.diagonal().tolist() == [1.0] * len(matrix)
        assert (result.matrix == result.matrix.T).all()
        assert np.abs(result.matrix).max() <= 1.0
        assert is_psd(result.matrix)
        assert result.smallest_after >= -1e-12 * len(matrix)
        gap = np.linalg.norm(result.matrix - matrix)
        assert result.distance == pytest.approx(gap, rel=1e-12, abs=1e-12)

    @given(symmetric_matrices())
    def test_twice_is_once(self, matrix):
        once = nearest_correlation(matrix)
        twice = nearest_correlation(once.matrix)
        assert (twice.distance, twice.iterations) == (0.0, 0)
        assert twice.matrix.tolist() == once.matrix.tolist()

    @given(symmetric_matrices(), st.integers(0, 2**32 - 1))
    def test_no_other_correlation_matrix_is_nearer(self, matrix, seed):
        # Of a projection on a convex set: <A - X, Z - X> <= 0 for every Z in it.
        nearest = nearest_correlation(matrix).matrix
        factor = np.random.default_rng(seed).normal(0, 1, matrix.shape)
        other = factor @ factor.T
        scale = np.sqrt(other.diagonal())
        other = other / scale / scale[:, np.newaxis]
        for rival in (other, (other + nearest) / 2, np.eye(len(matrix))):
            assert ((matrix - nearest) * (rival - nearest)).sum() <= 1e-7

    @given(symmetric_matrices(), st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_of_symbols(self, matrix, random):
        order = np.ix_(*[random.sample(range(len(matrix)), len(matrix))] * 2)
        np.testing.assert_allclose(
            nearest_correlation(matrix[order]).matrix,
            nearest_correlation(matrix).matrix[order],
            atol=1e-8,
        )

    def test_leaves_its_input_alone_and_its_result_can_not_be_changed(self):
        before = BROKEN.copy()
        result = nearest_correlation(BROKEN)
        np.testing.assert_array_equal(BROKEN, before)
        with pytest.raises(ValueError, match="read-only"):
            result.matrix[0, 1] = 0.0

    @pytest.mark.parametrize(
        ("matrix", "refusal"),
        [
            ([[1.0, np.nan], [np.nan, 1.0]], NotFinite),
            ([[1.0, 0.5], [0.3, 1.0]], NotSymmetric),
            (np.ones((2, 3)), WrongShape),
            (np.empty((0, 0)), WrongShape),
            ([[1.0, 1e7], [1e7, 1.0]], RiskInputError),
        ],
    )
    def test_refuses_what_is_no_symmetric_matrix(self, matrix, refusal):
        with pytest.raises(refusal):
            nearest_correlation(matrix)


class TestRepaired:
    def test_keeps_the_variances_and_says_how_far_it_went(self):
        sigma = np.array([0.01, 0.02, 0.03])
        given = BROKEN * np.outer(sigma, sigma)
        evidence = repaired(given)
        expected = nearest_correlation(BROKEN)
        np.testing.assert_allclose(
            evidence.covariance, expected.matrix * np.outer(sigma, sigma), atol=1e-14
        )
        assert evidence.correlation_distance == pytest.approx(expected.distance, rel=1e-9)
        distance = np.linalg.norm(given - evidence.covariance)
        assert evidence.distance == pytest.approx(distance, rel=1e-12)
        assert evidence.relative_distance == pytest.approx(distance / np.linalg.norm(given))
        assert evidence.smallest_before == pytest.approx(np.linalg.eigvalsh(given)[0], rel=1e-12)
        assert evidence.smallest_before < 0
        assert evidence.smallest_after == pytest.approx(0.0, abs=1e-17)
        assert evidence.unvaried == ()

    def test_what_is_sound_is_kept_to_the_last_bit(self):
        factor = np.random.default_rng(2).normal(0, 0.01, (6, 6))
        given = factor @ factor.T
        given = (given + given.T) / 2
        evidence = repaired(given)
        assert evidence.covariance.tolist() == given.tolist()
        assert evidence.distance == evidence.relative_distance == 0.0

    def test_a_constant_covaries_with_nothing(self):
        evidence = repaired([[0.0, 0.3], [0.3, 4.0]])
        assert evidence.covariance.tolist() == [[0.0, 0.0], [0.0, 4.0]]
        assert evidence.distance == pytest.approx(0.3 * sqrt(2), rel=1e-12)
        assert evidence.unvaried == (0,)
        assert repaired(np.zeros((2, 2))).relative_distance == 0.0

    @given(symmetric_matrices())
    def test_is_psd_and_its_own_repair(self, matrix):
        np.fill_diagonal(matrix, np.abs(matrix.diagonal()) + 0.1)
        evidence = repaired(matrix)
        assert is_psd(evidence.covariance)
        np.testing.assert_allclose(evidence.covariance.diagonal(), matrix.diagonal(), rtol=1e-12)
        again = repaired(evidence.covariance)
        assert again.relative_distance <= 1e-9

    def test_refuses_a_negative_variance(self):
        with pytest.raises(NoVariance):
            repaired([[-1.0, 0.0], [0.0, 1.0]])
