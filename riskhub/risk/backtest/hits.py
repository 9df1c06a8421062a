"""Which days exceeded their VaR."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.risk.inputs import RiskInputError, WrongShape, finite_array

Hits = NDArray[np.bool_]


class NotHits(RiskInputError):
    """A series of something other than exceeded and not exceeded."""


def exceedances(var: ArrayLike, losses: ArrayLike) -> Hits:
    """(n,) True on each day whose loss was strictly greater than its value at risk.

    `var`: (n,) positive losses as fractions of equity, var[i] made from data up to the day before
    losses[i] and no later; the pairing is the caller's. `losses`: (n,) L = -r, same unit. A loss
    equal to the VaR is within it. Raises `NotFinite`: a day without a forecast is left out by the
    caller, for a NaN compares as no exceedance. Raises `WrongShape`.
    """
    forecast = finite_array(var, 1, "values at risk")
    actual = finite_array(losses, 1, "losses")
    if forecast.shape != actual.shape:
        raise WrongShape(f"{len(forecast)} values at risk for {len(actual)} losses")
    return actual > forecast


def hit_series(hits: ArrayLike) -> Hits:
    """(n,) booleans, from booleans or from zeros and ones, oldest first.

    Raises `NotHits`, `WrongShape`.
    """
    array = np.asarray(hits)
    if array.ndim != 1:
        raise WrongShape(f"hits must have 1 dimension, not the shape {array.shape}")
    series: Hits = array == 1
    if not (series | (array == 0)).all():
        raise NotHits("hits must be booleans, or zeros and ones")
    return series
