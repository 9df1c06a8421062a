"""How much of a portfolio sits in how few names.

Weights are (N,) signed fractions of equity. Long and short count alike towards concentration.
"""

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import RiskInputError, finite_array


class NothingHeld(RiskInputError):
    """Every weight is zero, so nothing is concentrated in anything."""


def gross(weights: ArrayLike) -> float:
    """sum |w|: gross exposure as a fraction of equity, >= 0. Raises `NotFinite`, `WrongShape`."""
    return float(np.abs(finite_array(weights, 1, "weights")).sum())


def net(weights: ArrayLike) -> float:
    """sum w: net exposure as a signed fraction of equity. Raises `NotFinite`, `WrongShape`."""
    return float(finite_array(weights, 1, "weights").sum())


def largest(weights: ArrayLike) -> float:
    """max |w|: the largest position, long or short, as a fraction of equity, >= 0.

    Raises `NotFinite`, `WrongShape`.
    """
    return float(np.abs(finite_array(weights, 1, "weights")).max(initial=0.0))


def herfindahl(weights: ArrayLike) -> float:
    """sum (|w_i| / sum |w|)^2, in [1/N, 1]: 1/N for equal sizes, 1 for a single name.

    The Herfindahl-Hirschman index of gross exposure. Raises `NothingHeld`, `NotFinite`,
    `WrongShape`.
    """
    size = np.abs(finite_array(weights, 1, "weights"))
    total = size.sum()
    if total == 0:
        raise NothingHeld("every weight is zero")
    return float(np.square(size / total).sum())


def effective_names(weights: ArrayLike) -> float:
    """1 / herfindahl, in [1, N]: how many equal positions would be as concentrated.

    Raises as `herfindahl`.
    """
    return 1.0 / herfindahl(weights)
