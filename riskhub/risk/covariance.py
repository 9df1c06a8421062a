"""Covariance matrices: from the contract's pairs, from returns, from one configured guess.

Daily, of simple returns, in fractions squared: (N, N), in the order of the symbols asked for.
Nothing is filled in: a pair that is missing is a refusal, not a zero.
"""

from collections.abc import Mapping, Sequence
from math import isclose, isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import (
    Floats,
    NotFinite,
    RiskInputError,
    TooFewReturns,
    WrongShape,
    finite_array,
)

SYMMETRY_TOLERANCE = 1e-9
PSD_TOLERANCE = 1e-10


class MissingPairs(RiskInputError):
    """A covariance does not cover the symbols asked for.

    `symbols`: those without a variance, as good as absent. `pairs`: the other pairs without one.
    """

    def __init__(self, symbols: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        self.symbols = tuple(symbols)
        self.pairs = tuple(pairs)
        absent = [*self.symbols, *(",".join(pair) for pair in self.pairs)]
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        super().__init__(f"no covariance of {'; '.join(absent[:5])}{more}")


class NotSymmetric(RiskInputError):
    """Two mirrored entries of a covariance or a correlation differ."""


class NotPsd(RiskInputError):
    """A covariance gives a portfolio a negative variance: it is no covariance of anything."""


class NoRisk(RiskInputError):
    """A portfolio's variance is zero but for rounding: nothing can be divided by it."""


class NoVariance(RiskInputError):
    """A variance is zero or negative, so a correlation with it is not defined."""


def covariance_from_pairs(pairs: Mapping[str, float], symbols: Sequence[str]) -> Floats:
    """(N, N) covariance of `symbols`, in their order, from pairs such as `{"A,B": 0.0001}`.

    `pairs`: as the contract has them: each variance, and each covariance under one of its two
    keys or under both; of both the mean is taken, for they may differ by 1e-9 of themselves.
    Pairs of other symbols are left aside.

    Raises `MissingPairs` with all that is missing, `NotSymmetric`, `NotFinite`, and
    `RiskInputError` for a symbol asked for twice.
    """
    if len(set(symbols)) != len(symbols):
        raise RiskInputError("a symbol is asked for twice")
    matrix = np.empty((len(symbols), len(symbols)))
    missing: list[tuple[str, str]] = []
    for row, first in enumerate(symbols):
        for column, second in enumerate(symbols[: row + 1]):
            value = _pair(pairs, first, second)
            if value is None:
                missing.append((second, first))
            else:
                matrix[row, column] = matrix[column, row] = value
    if missing:
        absent = [first for first, second in missing if first == second]
        raise MissingPairs(absent, [pair for pair in missing if not set(pair) & set(absent)])
    return finite_array(matrix, 2, "covariances")


def _pair(pairs: Mapping[str, float], first: str, second: str) -> float | None:
    value, mirrored = pairs.get(f"{first},{second}"), pairs.get(f"{second},{first}")
    if value is None or mirrored is None or value == mirrored:
        return mirrored if value is None else value
    if not (isfinite(value) and isfinite(mirrored)):
        raise NotFinite(f"the covariance of {first} and {second} is a NaN or an infinity")
    if not isclose(value, mirrored, rel_tol=SYMMETRY_TOLERANCE):
        raise NotSymmetric(f"{first},{second} is {value} and {second},{first} is {mirrored}")
    return value / 2 + mirrored / 2


def symmetric(matrix: ArrayLike, name: str = "covariances") -> Floats:
    """`matrix` as a symmetric (N, N) array: the mean of it and its transpose.

    Raises `NotSymmetric` where the two differ by more than 1e-9 of the largest entry,
    `WrongShape`, `NotFinite`.
    """
    array = finite_array(matrix, 2, name)
    if array.shape[0] != array.shape[1]:
        raise WrongShape(f"{name} must be square, not of the shape {array.shape}")
    halves = array / 2
    largest = float(np.abs(halves).max(initial=0.0))
    if np.abs(halves - halves.T).max(initial=0.0) > SYMMETRY_TOLERANCE * largest:
        raise NotSymmetric(f"{name} are not symmetric")
    result: Floats = halves + halves.T
    return result


def volatilities(covariance: ArrayLike) -> Floats:
    """(N,) standard deviations, per day. Raises `NoVariance` for a negative variance, and as
    `symmetric`.
    """
    variances = symmetric(covariance).diagonal()
    if (variances < 0).any():
        raise NoVariance(f"a variance is {variances.min():g}")
    result: Floats = np.sqrt(variances)
    return result


def correlation_from_covariance(covariance: ArrayLike) -> Floats:
    """(N, N) correlations of a covariance: c_ij / (sigma_i sigma_j), with a diagonal of exact ones.

    Entries beyond [-1, 1] are left as they are: they show that the covariance is none. Raises
    `NoVariance` where a variance is not positive, and as `symmetric`.
    """
    matrix = symmetric(covariance)
    sigma = volatilities(matrix)
    if (sigma == 0).any():
        raise NoVariance("a variance is zero, and nothing correlates with a constant")
    with np.errstate(over="ignore"):
        scaled = matrix / sigma / sigma[:, np.newaxis]
    correlation = finite_array(scaled / 2 + scaled.T / 2, 2, "correlations")
    np.fill_diagonal(correlation, 1.0)
    return correlation


def covariance_from_correlation(correlation: ArrayLike, sigmas: ArrayLike) -> Floats:
    """(N, N) covariance: rho_ij sigma_i sigma_j. `sigmas`: (N,), >= 0, per day.

    Raises `RiskInputError` for a negative sigma, `WrongShape`, and as `symmetric`.
    """
    matrix = symmetric(correlation, "correlations")
    sigma = finite_array(sigmas, 1, "sigmas")
    if len(sigma) != len(matrix):
        raise WrongShape(f"{len(sigma)} sigmas for {len(matrix)} correlated symbols")
    if (sigma < 0).any():
        raise RiskInputError("a sigma is negative")
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = matrix * np.outer(sigma, sigma)
    return finite_array(covariance, 2, "covariances")


def smallest_eigenvalue(matrix: ArrayLike) -> float:
    """Of a symmetric (N, N) matrix, N >= 1, in its units. Raises as `symmetric`."""
    return float(_eigenvalues(matrix)[0])


def is_psd(matrix: ArrayLike, tolerance: float = PSD_TOLERANCE) -> bool:
    """Whether a symmetric (N, N) matrix has no eigenvalue below -tolerance times the largest |one|.

    Relative, so that the answer is the same in per cent and in fractions. Raises as `symmetric`.
    """
    values = _eigenvalues(matrix)
    return bool(values[0] >= -tolerance * np.abs(values).max())


def _eigenvalues(matrix: ArrayLike) -> Floats:
    array = symmetric(matrix, "the entries of a matrix")
    if not len(array):
        raise WrongShape("a matrix without entries has no eigenvalues")
    return finite_array(np.linalg.eigvalsh(array), 1, "eigenvalues")


def sample_covariance(returns: ArrayLike, ddof: int = 1) -> Floats:
    """(N, N) covariance of daily returns (T, N) about their means, over T - ddof, T > ddof.

    Raises `TooFewReturns`, `WrongShape`, and `NotFinite` also when the squares overflow.
    """
    matrix = finite_array(returns, 2, "asset returns")
    if len(matrix) <= ddof:
        raise TooFewReturns(len(matrix), ddof + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        centred = matrix - matrix.mean(axis=0)
        covariance = centred.T @ centred / (len(matrix) - ddof)
    return symmetric(finite_array(covariance, 2, "covariances"))


def fallback_covariance(weights: ArrayLike, sigma: float, correlation: float) -> Floats:
    """(N, N) covariance of a portfolio whose symbols nothing is known of; conservative.

    Each symbol has the deviation `sigma` per day (>= 0). Two on the same side correlate by
    `correlation`, in [0, 1]; a long and a short by its negative, because an unknown hedge is no
    hedge. The portfolio's variance is then sigma^2 ((1 - rho) sum w^2 + rho (sum |w|)^2), that of
    the same positions all held long. `weights`: (N,), of which the signs count.

    Raises `RiskInputError` for other parameters, `WrongShape`, `NotFinite`.
    """
    if not (isfinite(sigma) and sigma >= 0 and 0 <= correlation <= 1):
        raise RiskInputError(f"sigma {sigma} or correlation {correlation} is out of range")
    side = np.where(finite_array(weights, 1, "weights") < 0, -1.0, 1.0)
    matrix: Floats = correlation * np.outer(side, side)
    np.fill_diagonal(matrix, 1.0)
    return covariance_from_correlation(matrix, np.full(len(side), sigma))


def portfolio_volatility(weights: ArrayLike, covariance: ArrayLike) -> float:
    """sqrt(w' C w), per day, >= 0, of weights (N,) and a covariance (N, N).

    A variance that is negative by no more than rounding (1e-10 of |w|' |C| |w|) is zero; beyond
    that raises `NotPsd`. Raises `WrongShape`, and as `symmetric`.
    """
    variance, _ = portfolio_variance(*fitting(weights, covariance))
    return sqrt(variance)


def portfolio_variance(weights: Floats, covariance: Floats) -> tuple[float, float]:
    """w' C w >= 0, and |w|' |C| |w|: what it would be, did nothing in the sum cancel.

    The second is the scale of the rounding errors of the first. Raises `NotPsd` as
    `portfolio_volatility`, `NotFinite`; the arrays are not checked.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        variance = float(weights @ covariance @ weights)
        size = np.abs(weights)
        uncancelled = float(size @ np.abs(covariance) @ size)
    if not isfinite(uncancelled):
        raise NotFinite("the portfolio's variance overflows")
    if variance < -PSD_TOLERANCE * uncancelled:
        raise NotPsd(f"the portfolio's variance is {variance:g}")
    return max(variance, 0.0), uncancelled


def fitting(weights: ArrayLike, covariance: ArrayLike) -> tuple[Floats, Floats]:
    """Weights (N,) and a symmetric covariance (N, N) of one N, checked. Raises as `symmetric`."""
    vector = finite_array(weights, 1, "weights")
    matrix = symmetric(covariance)
    if len(vector) != len(matrix):
        raise WrongShape(f"{len(vector)} weights for a covariance of {len(matrix)} symbols")
    return vector, matrix


def risky_volatility(weights: Floats, covariance: Floats) -> float:
    """sqrt(w' C w), per day, > 0, where it is more than what rounding leaves of a perfect hedge.

    Raises `NoRisk` when the variance is within 1e-10 of |w|' |C| |w|, and as
    `portfolio_variance`.
    """
    variance, uncancelled = portfolio_variance(weights, covariance)
    if variance <= PSD_TOLERANCE * uncancelled:
        raise NoRisk(f"the portfolio's daily variance is {variance:g}: nothing is at risk")
    return sqrt(variance)
