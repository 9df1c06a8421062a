"""Exponentially weighted volatility, and the VaR and ES that follow it.

Every forecast is made from returns up to the day before the one it is for, and from no later one.
"""

from math import isfinite

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import Floats, NotFinite, RiskInputError, finite_returns
from riskhub.risk.levels import Level
from riskhub.risk.var import Tail, historical_from_sorted, normal_from_moments

DECAY = 0.94


class BadDecay(RiskInputError):
    """A decay that is not in (0, 1)."""


class NoVolatility(RiskInputError):
    """A return on a day for which no volatility at all was forecast: it cannot be scaled."""


def ewma_volatility(returns: ArrayLike, decay: float = DECAY) -> float:
    """The volatility (>= 0, per day) forecast for the day after daily returns (n,), n >= 1.

    The last of `ewma_volatilities`. Raises as it does.
    """
    return float(ewma_volatilities(returns, decay)[-1])


def ewma_volatilities(returns: ArrayLike, decay: float = DECAY) -> Floats:
    """(n,) one-step forecasts: entry t is for the day after returns[t], made from returns[: t + 1].

    variance(t) = decay variance(t - 1) + (1 - decay) returns[t]^2, with mean zero, as in
    RiskMetrics, Technical Document (1996), section 5.2, whose daily decay is 0.94. The seed is
    the first return's own square: variance(0) = returns[0]^2, as Hull, "Risk Management and
    Financial Institutions", seeds it. It weighs decay^t, 1 % after 75 days at 0.94.

    Raises `TooFewReturns` for n = 0, `BadDecay`, `WrongShape`, and `NotFinite` also when a square
    overflows.
    """
    series = finite_returns(returns)
    with np.errstate(over="ignore"):
        square = np.square(series)
    return np.sqrt(variances(square[np.newaxis], square[:1], decay)[0, 1:])


def ewma(returns: ArrayLike, level: Level, decay: float = DECAY) -> Tail:
    """VaR and ES of N(0, sigma^2), sigma being `ewma_volatility`. Raises as it does, `BadLevel`."""
    return normal_from_moments(0.0, ewma_volatility(returns, decay), level, method="ewma")


def ewma_var(returns: ArrayLike, level: Level, decay: float = DECAY) -> float:
    """The VaR of `ewma`, positive, as a fraction of equity. Raises as it does."""
    return ewma(returns, level, decay).var


def filtered_returns(returns: ArrayLike, decay: float = DECAY) -> Floats:
    """(n,) daily returns, each scaled by tomorrow's volatility forecast over its own day's.

    r_t sigma_{n+1} / sigma_t: Hull and White, "Incorporating volatility updating into the
    historical simulation method for VaR", J. Risk 1 (1998), the filtered historical simulation
    of Barone-Adesi, Bourgoin and Giannopoulos, Risk 11 (1998), without a conditional mean. The
    sigma are those of `ewma_volatilities` but for the seed: the mean square of the n returns
    (Hull's exercises use the sample variance likewise) is the forecast for the first day, since
    a first return near zero would blow up the second. All n were known when tomorrow's VaR is
    made, so nothing looks ahead.

    Raises `NoVolatility` where a forecast vanished in a long calm, `TooFewReturns`, `BadDecay`,
    `NotFinite`, `WrongShape`.
    """
    scaled: Floats = filter_rows(finite_returns(returns)[np.newaxis], decay)[0]
    return scaled


def filtered_historical(returns: ArrayLike, level: Level, decay: float = DECAY) -> Tail:
    """VaR and ES as `historical`, of the `filtered_returns` of daily returns (n,), n >= 1.

    Raises as `filtered_returns`, and `BadLevel`.
    """
    ascending = np.sort(filtered_returns(returns, decay))
    return historical_from_sorted(ascending, level, method="filtered_historical")


def filtered_historical_var(returns: ArrayLike, level: Level, decay: float = DECAY) -> float:
    """The VaR of `filtered_historical`, positive, as a fraction of equity. Raises as it does."""
    return filtered_historical(returns, level, decay).var


def filter_rows(rows: Floats, decay: float) -> Floats:
    """`filtered_returns` of each row of (m, n) finite returns, n >= 1. Raises as it does."""
    # In units of the largest return, so that no square of a small one is lost.
    size = np.abs(rows).max(axis=1, keepdims=True)
    unit = rows / np.where(size > 0, size, 1.0)
    square = np.square(unit)
    sigma = np.sqrt(variances(square, square.mean(axis=1), decay))
    if ((sigma[:, :-1] == 0) & (unit != 0)).any():
        raise NoVolatility("a return follows so long a calm that no volatility was forecast")
    own = np.where(sigma[:, :-1] > 0, sigma[:, :-1], 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Floats = rows * (sigma[:, -1:] / own)
    if not np.isfinite(scaled).all():
        raise NotFinite("scaled by their volatility, the returns overflow")
    return scaled


def variances(squares: Floats, seeds: Floats, decay: float) -> Floats:
    """(m, n + 1) variances of the recursion over (m, n) squared returns, the first being the seed.

    Column t is the forecast for day t. Raises `BadDecay`, `NotFinite`.
    """
    if not (isfinite(decay) and 0 < decay < 1):
        raise BadDecay(f"decay {decay} is not in (0, 1)")
    news = (1.0 - decay) * squares
    if len(squares) == 1:
        forecasts = np.array([_recursion(news[0].tolist(), float(seeds[0]), decay)])
    else:
        forecasts = np.empty((squares.shape[1] + 1, len(squares)))
        forecasts[0] = seeds
        for day, column in enumerate(np.ascontiguousarray(news.T)):
            np.multiply(forecasts[day], decay, out=forecasts[day + 1])
            forecasts[day + 1] += column
        forecasts = np.ascontiguousarray(forecasts.T)
    if not np.isfinite(forecasts).all():
        raise NotFinite("returns are too large to have a variance")
    return forecasts


def _recursion(news: list[float], seed: float, decay: float) -> list[float]:
    forecasts = [seed]
    for square in news:
        forecasts.append(decay * forecasts[-1] + square)
    return forecasts
