"""What the numbers accept, and the names of their refusals. No risk number is computed here."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.errors import RiskHubError

Floats = NDArray[np.float64]


class RiskInputError(RiskHubError, ValueError):
    """A risk number cannot be computed from what was given."""


class NotFinite(RiskInputError):
    """A NaN or an infinity, given or reached by overflow."""


class WrongShape(RiskInputError):
    """An array with the wrong number of dimensions, or two that do not fit each other."""


class TooFewReturns(RiskInputError):
    """Fewer returns than the number needs to be defined."""

    def __init__(self, n: int, needed: int) -> None:
        super().__init__(f"{n} returns given, at least {needed} needed")
        self.n = n
        self.needed = needed


def finite_array(values: ArrayLike, ndim: int, name: str) -> Floats:
    """`values` as a C-ordered float array of `ndim` dimensions. Raises `WrongShape`, `NotFinite`.

    `name` is what the refusal calls them.
    """
    array = np.asarray(values, dtype=np.float64, order="C")
    if array.ndim != ndim:
        raise WrongShape(f"{name} must have {ndim} dimension(s), not the shape {array.shape}")
    if not np.isfinite(array).all():
        raise NotFinite(f"{name} hold a NaN or an infinity")
    return array


def finite_returns(returns: ArrayLike, at_least: int = 1) -> Floats:
    """A series of returns, shape (n,). Raises `TooFewReturns` when n < at_least, and as above."""
    array = finite_array(returns, 1, "returns")
    if len(array) < at_least:
        raise TooFewReturns(len(array), at_least)
    return array
