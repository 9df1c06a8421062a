"""The tails of many portfolios at once: each row of (m, n) daily returns is one of them.

Every tail is the one that the function for a single series gives, to the last bit. What is
needed beside the input and the result is bounded by a chunk of rows, not by their number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.risk.cornish_fisher import bent_tail, in_maillard_domain, shapes
from riskhub.risk.ewma import DECAY, filter_rows, variances
from riskhub.risk.inputs import Floats, NotFinite, TooFewReturns, WrongShape, finite_array
from riskhub.risk.levels import Level, rank, tail_mass
from riskhub.risk.student_t import standard_t_tail
from riskhub.risk.t_distribution import checked_degrees
from riskhub.risk.t_likelihood import fittable, most_likely
from riskhub.risk.var import Method, Tail, standard_normal_tail

_AT_ONCE = 1 << 18  # returns in a chunk: 2 MB, to stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """VaR and ES by one method: `var`, `es` are (m, levels), positive losses as in `Tail`.

    `ranks`: the rank of each level. `var_next`: (m, levels) as in `Tail`, None of one return.
    Both are None for the methods with a formula.
    """

    method: Method
    levels: tuple[Level, ...]
    var: Floats
    es: Floats
    ranks: tuple[int, ...] | None = None
    var_next: Floats | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.var).all() and np.isfinite(self.es).all()):
            raise NotFinite(f"a {self.method} VaR or ES is not finite")

    def of(self, row: int) -> tuple[Tail, ...]:
        """The tails of one portfolio, one per level."""
        return tuple(
            Tail(
                method=self.method,
                level=level,
                var=float(self.var[row, i]),
                es=float(self.es[row, i]),
                rank=None if self.ranks is None else self.ranks[i],
                var_next=None if self.var_next is None else float(self.var_next[row, i]),
            )
            for i, level in enumerate(self.levels)
        )


def historical_many(returns: ArrayLike, levels: Sequence[Level]) -> Tails:
    """`historical` of each row of daily returns (m, n), n >= 1, at each level.

    Raises `TooFewReturns`, `NotFinite`, `WrongShape`, `BadLevel`.
    """
    return _historical(_rows(returns, 1), levels, "historical", lambda rows: rows)


def filtered_historical_many(
    returns: ArrayLike, levels: Sequence[Level], decay: float = DECAY
) -> Tails:
    """`filtered_historical` of each row of daily returns (m, n), n >= 1, at each level.

    Raises as `historical_many`, and `NoVolatility`, `BadDecay`.
    """
    return _historical(
        _rows(returns, 1), levels, "filtered_historical", lambda rows: filter_rows(rows, decay)
    )


def normal_many(returns: ArrayLike, levels: Sequence[Level]) -> Tails:
    """`normal` of each row of daily returns (m, n), n >= 2, at each level. Raises as above."""
    mean, sigma = moments_many(returns)
    standard = [standard_normal_tail(level) for level in levels]
    return _scaled("normal", levels, mean, sigma, standard)


def cornish_fisher_many(
    returns: ArrayLike, levels: Sequence[Level]
) -> tuple[NDArray[np.bool_], Tails]:
    """`cornish_fisher` of the rows of daily returns (m, n), n >= 2, that it accepts.

    Gives which rows lie in Maillard's domain, (m,), and the tails of these alone, in their
    order. Raises as above.
    """
    rows = _rows(returns, 2)
    mean, sigma = moments_many(rows)
    parts = [shapes(part) for part in chunks(rows)]
    skewness, kurtosis = (np.concatenate(column) for column in zip(*parts, strict=True))
    accepted = np.array(
        [in_maillard_domain(s, k) for s, k in zip(skewness, kurtosis, strict=True)], dtype=np.bool_
    )
    standard = [bent_tail(skewness[accepted], kurtosis[accepted], level) for level in levels]
    tails = _scaled("cornish_fisher", levels, mean[accepted], sigma[accepted], standard)
    return accepted, tails


def student_t_many(
    returns: ArrayLike, levels: Sequence[Level], degrees: float | None = None
) -> tuple[NDArray[np.bool_], Tails]:
    """`student_t` of the rows of daily returns (m, n), n >= 3, that can be fitted.

    Gives which rows can, (m,), and the tails of these alone, in their order. Raises as above,
    and `BadDegrees`.
    """
    given = None if degrees is None else checked_degrees(degrees)
    rows = _rows(returns, 3)
    accepted = np.concatenate([fittable(part) for part in chunks(rows)])
    location, scale, fitted = most_likely(rows if accepted.all() else rows[accepted], given)
    standard = []
    for level in levels:
        pairs = np.array([standard_t_tail(v, level) for v in fitted.tolist()]).reshape(-1, 2)
        standard.append((pairs[:, 0], pairs[:, 1]))
    return accepted, _scaled("student_t", levels, location, scale, standard)


def ewma_many(returns: ArrayLike, levels: Sequence[Level], decay: float = DECAY) -> Tails:
    """`ewma` of each row of daily returns (m, n), n >= 1, at each level.

    Raises as above, and `BadDecay`.
    """
    rows = _rows(returns, 1)
    with np.errstate(over="ignore"):
        squares = (np.square(part) for part in chunks(rows))
        last = [variances(square, square[:, 0], decay)[:, -1] for square in squares]
    sigma = np.sqrt(np.concatenate(last))
    standard = [standard_normal_tail(level) for level in levels]
    return _scaled("ewma", levels, np.zeros(len(rows)), sigma, standard)


def moments_many(returns: ArrayLike) -> tuple[Floats, Floats]:
    """`moments` of each row of daily returns (m, n), n >= 2: means and deviations, each (m,).

    Raises `TooFewReturns`, `WrongShape`, and `NotFinite` also when the squares overflow.
    """
    rows = _rows(returns, 2)
    mean, variance = np.empty(len(rows)), np.empty(len(rows))
    parts = chunks(rows)
    space = np.empty_like(parts[0])  # for every chunk, for new memory is slower
    start = 0
    for part in parts:
        stop = start + len(part)
        with np.errstate(over="ignore", invalid="ignore"):
            mean[start:stop] = part.mean(axis=1)
            deviation = np.subtract(part, mean[start:stop, np.newaxis], out=space[: len(part)])
            np.square(deviation, out=deviation)
            variance[start:stop] = deviation.sum(axis=1) / (rows.shape[1] - 1)
        start = stop
    if not np.isfinite(variance).all():
        raise NotFinite("returns are too large to have a variance")
    return mean, np.sqrt(variance)


def portfolio_returns_many(asset_returns: ArrayLike, weights: ArrayLike) -> Floats:
    """(m, T) `portfolio_returns` of m portfolios, a row each, over the same days.

    `asset_returns`: (T, N), simple daily. `weights`: (m, N), signed fractions of equity. A BLAS
    product, which is ten times as fast and, alone in this module, not the same to the last bit:
    each is within N 2^-52 of sum_i |w_i r_i|, and may depend on the neighbours and the processor.
    Raises `WrongShape`, and `NotFinite` also when a product overflows.
    """
    matrix = finite_array(asset_returns, 2, "asset returns")
    rows = finite_rows(weights, "weights")
    if matrix.shape[1] != rows.shape[1]:
        raise WrongShape(f"{rows.shape[1]} weights for {matrix.shape[1]} columns of returns")
    with np.errstate(over="ignore", invalid="ignore"):
        returns = rows @ matrix.T
    return finite_rows(returns, "portfolio returns")


def _historical(
    rows: Floats, levels: Sequence[Level], method: Method, prepare: Callable[[Floats], Floats]
) -> Tails:
    n = rows.shape[1]
    ranks = tuple(rank(n, level) for level in levels)
    var, es, following = (np.empty((len(rows), len(levels))) for _ in range(3))
    start = 0
    for part in chunks(rows):
        here = slice(start, start + len(part))
        worst = _worst(prepare(part), max(ranks, default=1))
        for i, (level, k) in enumerate(zip(levels, ranks, strict=True)):
            var[here, i] = 0.0 - worst[:, k - 1]
            with np.errstate(over="ignore"):
                excess = np.ascontiguousarray(worst[:, k - 1 : k] - worst[:, :k]).sum(axis=1)
            es[here, i] = var[here, i] + excess / tail_mass(n, level)
            if n > 1:
                following[here, i] = 0.0 - worst[:, k]
        start += len(part)
    return Tails(method, tuple(levels), var, es, ranks, following if n > 1 else None)


def _worst(rows: Floats, k: int) -> Floats:
    """The k + 1 smallest of each row, or all where there are no more, ascending."""
    if k + 1 >= rows.shape[1]:
        return np.sort(rows, axis=1)
    worst = np.partition(rows, k, axis=1)[:, : k + 1]
    worst.sort(axis=1)
    return worst


def _scaled(
    method: Method,
    levels: Sequence[Level],
    mean: Floats,
    sigma: Floats,
    standard: Sequence[tuple[float | Floats, float | Floats]],
) -> Tails:
    var, es = (np.empty((len(mean), len(levels))) for _ in range(2))
    for i, (quantile, shortfall) in enumerate(standard):
        var[:, i] = sigma * quantile - mean
        es[:, i] = sigma * shortfall - mean
    return Tails(method, tuple(levels), var, es)


def _rows(returns: ArrayLike, at_least: int) -> Floats:
    rows = finite_rows(returns, "returns")
    if rows.shape[1] < at_least:
        raise TooFewReturns(rows.shape[1], at_least)
    return rows


def finite_rows(values: ArrayLike, name: str) -> Floats:
    """`finite_array` of two dimensions, looked through by chunk. Raises as it does."""
    rows = np.asarray(values, dtype=np.float64, order="C")
    for part in chunks(rows) if rows.ndim == 2 else [rows]:
        finite_array(part, 2, name)
    return rows


def chunks(rows: Floats, at_once: int = _AT_ONCE) -> list[Floats]:
    """Views of the rows of (m, n), at most `at_once` numbers or one row each; never no view."""
    size = max(1, at_once // max(1, rows.shape[1]))
    return [rows[start : start + size] for start in range(0, max(len(rows), 1), size)]
