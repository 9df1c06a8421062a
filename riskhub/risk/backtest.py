"""Forecasts held against what happened."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.risk.inputs import WrongShape, finite_array


def exceedances(var: ArrayLike, losses: ArrayLike) -> NDArray[np.bool_]:
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
