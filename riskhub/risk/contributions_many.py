"""Euler contributions of many portfolios that share one covariance.

BLAS adds up a matrix product in another order than a product with one vector, so a number may
differ from the single function's in its last bits: by less than 1e-12 of itself, unless positions
hedge each other and the sums it is made from cancel; then by 1e-12 of what they were before. A
portfolio that is hedged to within the last bits of `NoRisk` may be refused by one and not by the
other. What is needed beside the input and the result is bounded by a chunk of portfolios, not by
their number.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.risk.contributions import Contributions
from riskhub.risk.covariance import PSD_TOLERANCE, NotPsd, symmetric
from riskhub.risk.inputs import Floats, NotFinite, WrongShape, finite_array
from riskhub.risk.levels import Level
from riskhub.risk.many import Tails, chunks, finite_rows
from riskhub.risk.var import standard_normal_tail

_AT_ONCE = 1 << 17  # weights in a chunk: 1 MB, and as much again for each product


@dataclass(frozen=True, slots=True, eq=False)
class ContributionsMany:
    """`Contributions` of m portfolios: `tails` at one level, arrays (m, N), read-only."""

    tails: Tails
    marginal_var: Floats = field(repr=False)
    marginal_es: Floats = field(repr=False)
    component_var: Floats = field(repr=False)
    component_es: Floats = field(repr=False)

    def of(self, row: int) -> Contributions:
        """The contributions to one portfolio's VaR and ES."""
        return Contributions(
            self.tails.of(row)[0],
            self.marginal_var[row],
            self.marginal_es[row],
            self.component_var[row],
            self.component_es[row],
        )


def euler_contributions_many(
    weights: ArrayLike, covariance: ArrayLike, level: Level, means: ArrayLike | None = None
) -> tuple[NDArray[np.bool_], ContributionsMany]:
    """`euler_contributions` of the rows of weights (m, N) that have risk.

    Gives which rows have, (m,): those that the single function does not refuse as `NoRisk`; and
    the contributions of these alone, in their order.

    Args:
        weights: (m, N), signed fractions of equity, a portfolio per row.
        covariance: (N, N), daily, the same for all.
        level: exact.
        means: (N,) mean returns per day, the same for all; None is zero.

    Raises:
        NotPsd: the variance of one of the portfolios is negative.
        RiskInputError: `NotFinite`, `WrongShape`, `NotSymmetric`, `BadLevel`.
    """
    rows = finite_rows(weights, "weights")
    matrix = symmetric(covariance)
    if rows.shape[1] != len(matrix):
        raise WrongShape(f"{rows.shape[1]} weights for a covariance of {len(matrix)} symbols")
    mean = np.zeros(len(matrix)) if means is None else finite_array(means, 1, "means")
    if len(mean) != len(matrix):
        raise WrongShape(f"{len(mean)} means for {len(matrix)} weights")
    units = standard_normal_tail(level)
    accepted = np.empty(len(rows), dtype=np.bool_)
    totals = np.empty((2, len(rows), 1))
    # One block, for which the system has large pages sooner than for four.
    arrays = np.empty((4, *rows.shape))
    start = filled = 0
    for part in chunks(rows, _AT_ONCE):
        risky, sigma, slope = _derivatives(part, matrix)
        accepted[start : start + len(part)] = risky
        start += len(part)
        kept = part if risky.all() else part[risky]
        here = slice(filled, filled + len(kept))
        filled += len(kept)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = kept @ mean
            for i, unit in enumerate(units):
                totals[i, here, 0] = sigma * unit - expected
                by_weight = np.multiply(slope, unit, out=arrays[i, here])
                by_weight -= mean
                product = np.multiply(kept, by_weight, out=arrays[i + 2, here])
                product += 0.0  # leaves no -0.0
                # Says the same of `by_weight`: nothing times a NaN or an infinity is finite.
                finite_array(product, 2, "contributions")
    arrays.setflags(write=False)
    tails = Tails("normal", (level,), totals[0, :filled], totals[1, :filled])
    return accepted, ContributionsMany(tails, *arrays[:, :filled])


def _derivatives(weights: Floats, covariance: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Which rows of weights (m, N) have risk, and of these the deviations sigma (count,) and their
    derivatives C w / sigma, (count, N). Raises `NotPsd`, `NotFinite`; the arrays are not checked.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = weights @ covariance
        variance = np.einsum("mn,mn->m", product, weights)
        rounding = _rounding(variance, weights, covariance)
    if not np.isfinite(rounding).all():
        raise NotFinite("a portfolio's variance overflows")
    negative = variance < -rounding
    if negative.any():
        raise NotPsd(f"a portfolio's variance is {variance[negative].min():g}")
    risky = variance > rounding
    if not risky.all():
        product, variance = product[risky], variance[risky]
    sigma = np.sqrt(variance)
    with np.errstate(over="ignore"):
        product /= sigma[:, np.newaxis]
    return risky, sigma, product


def _rounding(variance: Floats, weights: Floats, covariance: Floats) -> Floats:
    """(m,) 1e-10 of |w|' |C| |w|, or more than that where the variance is larger still."""
    size, sizes = np.abs(weights), np.abs(covariance)
    # No sum exceeds this one, and it spares nearly every portfolio a second matrix product.
    bound: Floats = PSD_TOLERANCE * sizes.max(initial=0.0) * np.square(size.sum(axis=1))
    close = ~(variance > bound)
    if close.any():
        near = size[close]
        bound[close] = PSD_TOLERANCE * np.einsum("mn,mn->m", near @ sizes, near)
    return bound
