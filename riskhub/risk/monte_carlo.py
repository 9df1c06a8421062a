"""VaR and ES of a portfolio by simulation, with the standard error that the simulation leaves.

The draws of one seed are the same to the last bit wherever numpy is the same (NEP 19: numpy may
change a Generator's stream in a new version). No BLAS or LAPACK takes part.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import NotPsd, symmetric
from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, WrongShape, finite_array
from riskhub.risk.levels import Level, tail_mass
from riskhub.risk.t_distribution import checked_degrees, t_density
from riskhub.risk.var import Tail, historical_from_sorted

_AT_ONCE = 16_384  # draws; part of the stream's definition where chi-squares are drawn as well
_TAIL_NEEDED = 10


class TooFewDraws(RiskInputError):
    """So few draws lie in the tail that a standard error would say nothing."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated tail; `var_error` and `es_error` are standard errors, in the same unit."""

    tail: Tail
    var_error: float
    es_error: float
    draws: int
    seed: int


def monte_carlo(
    mean: ArrayLike,
    covariance: ArrayLike,
    weights: ArrayLike,
    level: Level,
    draws: int,
    seed: int,
    degrees: float | None = None,
) -> Simulated:
    """VaR and ES of `simulated_returns`, ranked as in `historical`, with their standard errors.

    VaR's is sqrt(c (1 - c) / draws) / f(VaR), f being the density of the portfolio's loss, known
    here: Stuart and Ord, "Kendall's Advanced Theory of Statistics" 1 (1994). ES's
    is sqrt((tail variance + c (ES - VaR)^2) / (draws (1 - c))): Manistre and Hancock, "Variance
    of the CTE estimator", North American Actuarial J. 9 (2005).

    Raises `TooFewDraws` when draws (1 - c) < 10, `BadLevel`, and as `simulated_returns`.
    """
    alpha = tail_mass(1, level)
    if tail_mass(draws, level) < _TAIL_NEEDED:
        raise TooFewDraws(
            f"{draws} draws leave {tail_mass(draws, level):.3g} in the tail, "
            f"at least {_TAIL_NEEDED} needed"
        )
    ascending = np.sort(simulated_returns(mean, covariance, weights, draws, seed, degrees))
    tail = historical_from_sorted(ascending, level, method="monte_carlo")
    centre, exposures = _project(mean, covariance, weights)
    sigma = sqrt(float(np.square(exposures).sum()))
    if sigma == 0:
        return Simulated(tail, 0.0, 0.0, draws, seed)
    density = _density((tail.var + centre) / sigma, degrees) / sigma
    beyond = ascending[: tail.rank]
    spread = float(beyond.var(ddof=1)) + float(level) * (tail.es - tail.var) ** 2
    return Simulated(
        tail=tail,
        var_error=sqrt(alpha * float(level) / draws) / density,
        es_error=sqrt(spread / tail_mass(draws, level)),
        draws=draws,
        seed=seed,
    )


def monte_carlo_var(
    mean: ArrayLike,
    covariance: ArrayLike,
    weights: ArrayLike,
    level: Level,
    draws: int,
    seed: int,
    degrees: float | None = None,
) -> float:
    """The VaR of `monte_carlo`, positive, as a fraction of equity. Raises as it does."""
    return monte_carlo(mean, covariance, weights, level, draws, seed, degrees).tail.var


def simulated_returns(
    mean: ArrayLike,
    covariance: ArrayLike,
    weights: ArrayLike,
    draws: int,
    seed: int,
    degrees: float | None = None,
) -> Floats:
    """(draws,) daily returns of a portfolio of jointly normal or Student-t assets.

    `mean` (N,) and `covariance` (N, N) of daily simple returns; `weights` (N,) signed fractions
    of equity. `degrees`: None for the normal; else, > 2, for the multivariate t that has this
    same covariance (McNeil, Frey and Embrechts, "Quantitative Risk Management" (2015), section
    6.2: normals times sqrt(v / chi-square), here with v - 2 for v). Of numpy's Generator(PCG64)
    at `seed` >= 0, draw by draw, all assets jointly; a longer run begins with the shorter one
    for the normal.

    Raises `NotPsd`, `NotSymmetric`, `BadDegrees`, `WrongShape`, `NotFinite`, and `RiskInputError`
    for no draws or a negative seed.
    """
    if draws < 1 or seed < 0:
        raise RiskInputError(f"{draws} draws from seed {seed}: at least 1 from 0 upwards needed")
    centre, exposures = _project(mean, covariance, weights)
    v = None if degrees is None else checked_degrees(degrees)
    generator = np.random.Generator(np.random.PCG64(seed))
    result = np.empty(draws)
    for start in range(0, draws, _AT_ONCE):
        part = result[start : start + _AT_ONCE]
        normals = generator.standard_normal((len(part), len(exposures)))
        np.einsum("tn,n->t", normals, exposures, out=part)
        if v is not None:
            part *= np.sqrt((v - 2.0) / generator.chisquare(v, len(part)))
    result += centre
    if not np.isfinite(result).all():
        raise NotFinite("the simulated returns overflow")
    return result


def _project(mean: ArrayLike, covariance: ArrayLike, weights: ArrayLike) -> tuple[float, Floats]:
    """The portfolio's mean return, and its exposure to each of N independent normals."""
    mu = finite_array(mean, 1, "means")
    matrix = symmetric(covariance)
    w = finite_array(weights, 1, "weights")
    if not (mu.shape == w.shape and matrix.shape == (len(w), len(w))):
        raise WrongShape(f"{len(mu)} means and covariances {matrix.shape} for {len(w)} weights")
    return float((mu * w).sum()), np.einsum("ij,i->j", _factor(matrix), w)


def _factor(covariance: Floats) -> Floats:
    """L, not triangular, with L L' = covariance: Cholesky with pivots, which bears rank < N.

    Higham, "Analysis of the Cholesky decomposition of a semi-definite matrix" (1990). What is
    left when no pivot stands out of the rounding must be rounding itself, else it is refused.
    """
    n = len(covariance)
    scale = float(np.abs(covariance).max(initial=0.0))
    noise = 100 * max(n, 1) * np.finfo(np.float64).eps * scale
    rest, factor = covariance.copy(), np.zeros((n, n))
    for step in range(n):
        pivot = int(rest.diagonal().argmax())
        if rest[pivot, pivot] <= noise:
            break
        column = rest[:, pivot] / sqrt(float(rest[pivot, pivot]))
        factor[:, step] = column
        rest -= column[:, np.newaxis] * column
        rest[pivot, :] = rest[:, pivot] = 0.0
    # |entry| <= sqrt(product of the diagonals) where the rest is semidefinite
    if (np.abs(rest) > noise).any():
        raise NotPsd("the covariance gives some portfolio a negative variance")
    return factor


def _density(x: float, degrees: float | None) -> float:
    """At x deviations from the mean, of mean 0 and standard deviation 1."""
    if degrees is None:
        return NormalDist().pdf(x)
    stretch = sqrt(degrees / (degrees - 2.0))
    return t_density(x * stretch, degrees) * stretch
