"""From asset returns to a portfolio's returns, and what a return series says by itself.

Returns are simple and daily, as fractions: 0.01 is one per cent. Weights are signed fractions of
equity; what they leave of 1 is cash that earns nothing.
"""

from math import isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import (
    Floats,
    NotFinite,
    RiskInputError,
    WrongShape,
    finite_array,
    finite_returns,
)

TRADING_DAYS = 252


class Ruin(RiskInputError):
    """The day's loss took the whole equity or more: no weights are left to speak of."""


def portfolio_returns(asset_returns: ArrayLike, weights: ArrayLike) -> Floats:
    """(T,) returns of a portfolio that is rebalanced to the same weights every day.

    `asset_returns`: (T, N), simple daily. `weights`: (N,), signed fractions of equity.
    Raises `WrongShape`, `NotFinite`.
    """
    matrix = finite_array(asset_returns, 2, "asset returns")
    vector = finite_array(weights, 1, "weights")
    if matrix.shape[1] != len(vector):
        raise WrongShape(f"{len(vector)} weights for {matrix.shape[1]} columns of returns")
    # Not `@`: BLAS sums a row differently by where it stands in the matrix. Here a day has the
    # same return to the last bit in every window that holds it.
    result: Floats = np.einsum("tn,n->t", matrix, vector)
    return result


def drift(weights: ArrayLike, asset_returns_row: ArrayLike) -> Floats:
    """(N,) weights after a day on which nothing was traded: w_i (1 + r_i) / (1 + sum_j w_j r_j).

    `weights`: (N,), signed fractions of equity before the day. `asset_returns_row`: (N,), simple.
    Raises `Ruin` when the day leaves no equity, `WrongShape`, `NotFinite`.
    """
    before = finite_array(weights, 1, "weights")
    returns = finite_array(asset_returns_row, 1, "asset returns")
    growth = 1.0 + portfolio_returns(returns[np.newaxis], before)[0]
    if growth <= 0:
        raise Ruin(f"the portfolio lost {1.0 - growth:.2%} of its equity in a day")
    after: Floats = before * (1.0 + returns) / growth
    return after


def moments(returns: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation (ddof=1) of daily returns (n,), n >= 2, per day.

    Raises `TooFewReturns`, `WrongShape`, and `NotFinite` also when the squares overflow.
    """
    series = finite_returns(returns, at_least=2)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(series.mean())
        deviation = series - mean
        variance = float(np.square(deviation).sum()) / (len(series) - 1)
    if not isfinite(variance):
        raise NotFinite("returns are too large to have a variance")
    return mean, sqrt(variance)


def volatility(returns: ArrayLike) -> float:
    """Standard deviation (ddof=1) of daily returns (n,), n >= 2, per day. Raises as `moments`."""
    return moments(returns)[1]


def annualised(daily_volatility: float) -> float:
    """A daily volatility per year of 252 days, by the square root of time (days uncorrelated)."""
    return daily_volatility * sqrt(TRADING_DAYS)


def drawdowns(returns: ArrayLike) -> Floats:
    """(n,) how far compounded wealth stands below its peak so far, after each day, in [0, 1].

    Wealth starts at 1, and that start is the first peak. A day of -100 % or worse is ruin: the
    drawdown is 1 from then on. Raises `TooFewReturns` for n = 0, `NotFinite`, `WrongShape`.
    """
    series = finite_returns(returns)
    with np.errstate(divide="ignore"):  # log1p(-1) = -inf is what ruin looks like
        # In logarithms, because the product of a long series overflows.
        log_wealth = np.log1p(np.maximum(series, -1.0)).cumsum()
    log_peak = np.maximum(np.maximum.accumulate(log_wealth), 0.0)
    depth: Floats = 0.0 - np.expm1(log_wealth - log_peak)  # `0.0 -` leaves no -0.0
    return depth


def max_drawdown(returns: ArrayLike) -> float:
    """The deepest of `drawdowns`, a positive fraction of the peak. Raises as `drawdowns`."""
    return float(drawdowns(returns).max())


def current_drawdown(returns: ArrayLike) -> float:
    """The last of `drawdowns`, a positive fraction of the peak. Raises as `drawdowns`."""
    return float(drawdowns(returns)[-1])
