"""VaR and ES of a portfolio by simulation, with the standard error that the simulation leaves.

The draws of one seed are the same to the last bit wherever numpy is the same (NEP 19: numpy may
change a Generator's stream in a new version). No BLAS or LAPACK takes part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
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


_Chunk = tuple[Floats, Floats | None]


@dataclass(frozen=True, slots=True)
class _Standard:
    """Independent normals (t, N), and what turns them into t's, (t,), drawn a chunk at a time."""

    draws: int
    assets: int
    seed: int
    degrees: float | None

    def chunks(self) -> Iterator[_Chunk]:
        """As the seed gives them."""
        if self.draws < 1 or self.seed < 0:
            raise RiskInputError(
                f"{self.draws} draws from seed {self.seed}: at least 1 from 0 upwards needed"
            )
        v = None if self.degrees is None else checked_degrees(self.degrees)
        generator = np.random.Generator(np.random.PCG64(self.seed))
        for start in range(0, self.draws, _AT_ONCE):
            count = min(_AT_ONCE, self.draws - start)
            normals = generator.standard_normal((count, self.assets))
            stretch = None if v is None else np.sqrt((v - 2.0) / generator.chisquare(v, count))
            yield normals, stretch


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Standard draws of `assets` assets at `seed`; what `standard_draws` made."""

    draws: int
    assets: int
    seed: int
    degrees: float | None
    made: tuple[_Chunk, ...] = field(repr=False)

    def chunks(self) -> Iterator[_Chunk]:
        """As they were made."""
        return iter(self.made)


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
    standard = _Standard(draws, len(np.asarray(weights)), seed, degrees)
    return monte_carlo_levels(mean, covariance, weights, [level], standard)[0]


def standard_draws(draws: int, assets: int, seed: int, degrees: float | None = None) -> Draws:
    """What `simulated_returns` draws for any portfolio of so many assets, made once.

    It takes draws times assets floats of memory. Raises `RiskInputError`, `BadDegrees`.
    """
    standard = _Standard(draws, assets, seed, degrees)
    return Draws(draws, assets, seed, degrees, tuple(standard.chunks()))


def monte_carlo_levels(
    mean: ArrayLike,
    covariance: ArrayLike,
    weights: ArrayLike,
    levels: Sequence[Level],
    standard: "Draws | _Standard",
) -> tuple[Simulated, ...]:
    """`monte_carlo` at several levels, of draws that `standard_draws` made. Raises as it does."""
    for level in levels:
        if tail_mass(standard.draws, level) < _TAIL_NEEDED:
            raise TooFewDraws(
                f"{standard.draws} draws leave {tail_mass(standard.draws, level):.3g} in the tail, "
                f"at least {_TAIL_NEEDED} needed"
            )
    centre, exposures = _project(mean, covariance, weights)
    ascending = np.sort(_simulated(centre, exposures, standard))
    with np.errstate(over="ignore"):
        variance = float(np.square(exposures).sum())
    if not isfinite(variance):
        raise NotFinite("the exposures are too large to have a variance")
    sigma = sqrt(variance)
    return tuple(
        _with_errors(
            historical_from_sorted(ascending, level, method="monte_carlo"),
            *(ascending, centre, sigma, standard.seed, standard.degrees),
        )
        for level in levels
    )


def _with_errors(
    tail: Tail, ascending: Floats, centre: float, sigma: float, seed: int, degrees: float | None
) -> Simulated:
    draws, level = len(ascending), float(tail.level)
    if sigma == 0:
        return Simulated(tail, 0.0, 0.0, draws, seed)
    density = _density((tail.var + centre) / sigma, degrees) / sigma
    beyond = ascending[: tail.rank]
    spread = float(beyond.var(ddof=1)) + level * (tail.es - tail.var) ** 2
    return Simulated(
        tail=tail,
        var_error=sqrt(tail_mass(1, tail.level) * level / draws) / density,
        es_error=sqrt(spread / tail_mass(draws, tail.level)),
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
    centre, exposures = _project(mean, covariance, weights)
    return _simulated(centre, exposures, _Standard(draws, len(exposures), seed, degrees))


def _simulated(centre: float, exposures: Floats, standard: "Draws | _Standard") -> Floats:
    if standard.assets != len(exposures):
        raise WrongShape(f"draws of {standard.assets} assets for {len(exposures)} weights")
    result = np.empty(standard.draws)
    start = 0
    for normals, stretch in standard.chunks():
        part = result[start : start + len(normals)]
        np.einsum("tn,n->t", normals, exposures, out=part)
        if stretch is not None:
            part *= stretch
        start += len(normals)
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
