"""The nearest correlation matrix, and what a covariance that is none would be after repair.

A repair is evidence of how wrong a covariance is. It does not replace what was landed.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import (
    correlation_from_covariance,
    covariance_from_correlation,
    is_psd,
    smallest_eigenvalue,
    symmetric,
    volatilities,
)
from riskhub.risk.inputs import Floats, RiskInputError

NEAREST_TOLERANCE = 1e-10
_ABSURD = 1e6
_NEWTON_STEPS = 200
_HALVINGS = 40
_SUFFICIENT_DECREASE = 1e-4


class NotConverged(RiskInputError):
    """The nearest correlation matrix was not found to its tolerance."""


@dataclass(frozen=True, slots=True)
class NearestCorrelation:
    """The correlation matrix nearest to a given symmetric one.

    `matrix`: (N, N), read-only, with a diagonal of exact ones, entries in [-1, 1] and PSD within
    `PSD_TOLERANCE`. `distance`: between the two, in the Frobenius norm; 0.0 when the given one was
    a correlation matrix already, which is then given back as it was. `smallest_before`,
    `smallest_after`: the smallest eigenvalues of the two. `iterations`: Newton's steps.
    """

    matrix: Floats = field(repr=False, compare=False)
    distance: float
    smallest_before: float
    smallest_after: float
    iterations: int


@dataclass(frozen=True, slots=True)
class RepairedCovariance:
    """What the nearest correlation matrix makes of a covariance; its variances are kept.

    `covariance`: (N, N), read-only, PSD. `distance`: between the two covariances, in the Frobenius
    norm. `relative_distance`: as a fraction of the norm of the given one. `correlation_distance`:
    between the correlations, where Higham's problem is posed. `smallest_before`,
    `smallest_after`: the smallest eigenvalues of the two covariances. `unvaried`: the positions
    of the symbols whose variance is zero; their covariances became zero.
    """

    covariance: Floats = field(repr=False, compare=False)
    distance: float
    relative_distance: float
    correlation_distance: float
    smallest_before: float
    smallest_after: float
    unvaried: tuple[int, ...]


def nearest_correlation(matrix: ArrayLike) -> NearestCorrelation:
    """The X nearest to a symmetric (N, N) matrix A, N >= 1, that is PSD with a unit diagonal.

    Minimises ||A - X||_F, the problem of Higham, "Computing the nearest correlation matrix: a
    problem from finance", IMA J. Numer. Anal. 22 (2002). Solved by Newton's method on its dual,
    min 0.5 ||(A + diag y)_+||^2 - sum y, of which X = (A + diag y)_+ and the gradient is
    diag X - 1: Qi and Sun, SIAM J. Matrix Anal. Appl. 28 (2006); alternating projections find the
    same X, by hundreds of steps. It has converged when no entry of diag X is further from 1 than
    1e-10 times the larger of 1 and the largest |eigenvalue| of A; X is then scaled to a diagonal
    of exact ones, which keeps it PSD.

    Raises `RiskInputError` for entries beyond 1e6, which are nowhere near a correlation,
    `NotConverged`, `NotSymmetric`, `WrongShape`, `NotFinite`.
    """
    given = symmetric(matrix, "correlations")
    if np.abs(given).max(initial=0.0) > _ABSURD:
        raise RiskInputError(f"correlations reach {np.abs(given).max():g}")
    smallest = smallest_eigenvalue(given)
    if _is_correlation(given):
        return NearestCorrelation(_frozen(given), 0.0, smallest, smallest, 0)
    projected, steps = _newton(given)
    scale = np.sqrt(projected.diagonal())
    nearest = projected / scale / scale[:, np.newaxis]
    nearest = np.clip((nearest + nearest.T) / 2, -1.0, 1.0)
    np.fill_diagonal(nearest, 1.0)
    distance = float(np.linalg.norm(given - nearest))
    after = smallest_eigenvalue(nearest)
    return NearestCorrelation(_frozen(nearest), distance, smallest, after, steps)


def repaired(covariance: ArrayLike) -> RepairedCovariance:
    """A covariance (N, N) with the nearest correlation matrix in place of its own.

    A symbol whose variance is zero has no correlation and is left out of the search; a covariance
    with it can only be zero. Raises `NoVariance` for a negative variance, and as
    `nearest_correlation`.
    """
    given = symmetric(covariance)
    smallest = smallest_eigenvalue(given)
    sigma = volatilities(given)
    varied = np.flatnonzero(sigma)
    result = np.zeros_like(given)
    correlation_distance = 0.0
    if len(varied):
        block = np.ix_(varied, varied)
        nearest = nearest_correlation(correlation_from_covariance(given[block]))
        correlation_distance = nearest.distance
        sound = nearest.distance == 0.0  # then it is kept, to the last bit
        result[block] = (
            given[block] if sound else covariance_from_correlation(nearest.matrix, sigma[varied])
        )
    norm, distance = float(np.linalg.norm(given)), float(np.linalg.norm(given - result))
    return RepairedCovariance(
        covariance=_frozen(result),
        distance=distance,
        relative_distance=distance / norm if norm > 0 else 0.0,
        correlation_distance=correlation_distance,
        smallest_before=smallest,
        smallest_after=smallest_eigenvalue(result),
        unvaried=tuple(np.flatnonzero(sigma == 0).tolist()),
    )


def _is_correlation(matrix: Floats) -> bool:
    ones = bool((matrix.diagonal() == 1.0).all())
    return ones and float(np.abs(matrix).max()) <= 1.0 and is_psd(matrix)


def _frozen(matrix: Floats) -> Floats:
    matrix.setflags(write=False)
    return matrix


def _newton(given: Floats) -> tuple[Floats, int]:
    """(A + diag y)_+ at the y that makes its diagonal 1, and the steps taken to it."""
    tolerance = NEAREST_TOLERANCE * max(1.0, float(np.abs(np.linalg.eigvalsh(given)).max()))
    y = 1.0 - given.diagonal()
    values, vectors, dual = _decompose(given, y)
    for step in range(_NEWTON_STEPS):
        projected = (vectors * np.maximum(values, 0.0)) @ vectors.T
        gradient = projected.diagonal() - 1.0
        if np.abs(gradient).max() <= tolerance:
            return projected, step
        direction = _direction(values, vectors, gradient)
        slope = float(gradient @ direction)
        for halving in range(_HALVINGS):
            length = 0.5**halving
            trial = y + length * direction
            values, vectors, lower = _decompose(given, trial)
            # Near the minimum the decrease is lost in the rounding of the dual itself.
            slack = 1e-14 * max(1.0, abs(dual)) * len(given)
            if lower <= dual + _SUFFICIENT_DECREASE * length * slope + slack:
                break
        y, dual = trial, lower
    raise NotConverged(f"no correlation matrix within {tolerance:g} after {_NEWTON_STEPS} steps")


def _decompose(given: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    """Eigenvalues and eigenvectors of A + diag y, and the dual function there."""
    values, vectors = np.linalg.eigh(given + np.diag(y))
    positive = np.maximum(values, 0.0)
    return values, vectors, float(positive @ positive / 2 - y.sum())


def _direction(values: Floats, vectors: Floats, gradient: Floats) -> Floats:
    """Newton's direction: -V^-1 gradient, by conjugate gradients.

    V h = diag(P (W o (P' diag(h) P)) P') with W_ij = (max(l_i, 0) - max(l_j, 0)) / (l_i - l_j).
    """
    positive = values > 0
    clipped = np.where(positive, values, 0.0)
    gap = values[:, np.newaxis] - values
    both = positive[:, np.newaxis] & positive
    mixed = positive[:, np.newaxis] ^ positive
    rise = clipped[:, np.newaxis] - clipped
    slope = np.where(mixed, np.divide(rise, gap, out=np.zeros_like(gap), where=mixed), both)

    def applied(h: Floats) -> Floats:
        inner = slope * (vectors.T @ (h[:, np.newaxis] * vectors))
        product: Floats = np.einsum("ij,jk,ik->i", vectors, inner, vectors, optimize=True)
        return product + ridge * h

    size = float(np.linalg.norm(gradient))
    ridge = min(1e-3, 1e-2 * size)  # V is singular where no eigenvalue is positive
    direction = np.zeros_like(gradient)
    residual = -gradient
    search = residual
    for _ in range(2 * len(gradient) + 10):
        curved = applied(search)
        squared = float(residual @ residual)
        length = squared / float(search @ curved)
        direction = direction + length * search
        residual = residual - length * curved
        if np.linalg.norm(residual) <= min(1e-2, size) * size:
            break
        search = residual + float(residual @ residual) / squared * search
    return direction
