"""Stress: what a portfolio would have lost, or would lose, in a given case.

A P&L is signed, a fraction of equity, negative when money is lost; drawdowns and limits are
positive losses. Weights are (N,) signed fractions of equity, and what they leave of 1 is cash that
earns nothing. Which cases there are is data: `riskhub.scenarios`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.concentration import NothingHeld
from riskhub.risk.covariance import (
    covariance_from_correlation,
    fitting,
    portfolio_variance,
    symmetric,
    volatilities,
)
from riskhub.risk.inputs import (
    Floats,
    NotFinite,
    RiskInputError,
    TooFewReturns,
    WrongShape,
    finite_array,
)
from riskhub.risk.levels import Level
from riskhub.risk.var import Tail, normal_from_moments

NET_NEAR_ZERO = 1e-9


@dataclass(frozen=True, slots=True)
class Replay:
    """A portfolio bought before a window of n days and held through it.

    `path`: (n,), read-only, the P&L since the start after each day. `pnl`: the last of them.
    `worst`: the least of them and of the 0 at the start. `max_drawdown`: from the highest equity
    so far, the start included, in [0, 1]; 1 from the day on that takes the whole equity.
    `ruined`: whether there is such a day; the path goes on as if the losses had been funded.
    """

    path: Floats = field(repr=False, compare=False)
    pnl: float
    worst: float
    max_drawdown: float
    ruined: bool


def replay(weights: ArrayLike, returns: ArrayLike) -> Replay:
    """Buy and hold: path_t = sum_i w_i (prod_{s <= t} (1 + r_si) - 1). Nothing is traded.

    `returns`: (n, N), simple daily, oldest first, n >= 1, each >= -1: a price does not fall below
    zero. Raises `TooFewReturns`, `WrongShape`, `NotFinite`, `RiskInputError`.
    """
    return buy_and_hold(weights, cumulative_returns(returns))


def cumulative_returns(returns: ArrayLike) -> Floats:
    """(n, N), read-only: what each asset has returned since the start, after each day.

    What `buy_and_hold` takes, to be made once for many portfolios of these assets. `returns` and
    what it raises: as `replay`; what overflows is told by `buy_and_hold`.
    """
    matrix = finite_array(returns, 2, "asset returns")
    if not len(matrix):
        raise TooFewReturns(0, 1)
    if (matrix < -1.0).any():
        raise RiskInputError("an asset returned less than -100 %")
    with np.errstate(over="ignore"):
        cumulative: Floats = np.cumprod(1.0 + matrix, axis=0, dtype=np.float64) - 1.0
    cumulative.setflags(write=False)
    return cumulative


def buy_and_hold(weights: ArrayLike, cumulative: Floats) -> Replay:
    """`replay`, from `cumulative_returns` (n, N). Raises `WrongShape`, `NotFinite`."""
    vector = finite_array(weights, 1, "weights")
    if cumulative.shape[1] != len(vector):
        raise WrongShape(f"{len(vector)} weights for {cumulative.shape[1]} columns of returns")
    with np.errstate(over="ignore", invalid="ignore"):
        path = cumulative @ vector
    path = finite_array(path, 1, "profits and losses") + 0.0
    equity = 1.0 + path
    peak = np.maximum(np.maximum.accumulate(equity), 1.0)
    depth = np.minimum((peak - equity) / peak, 1.0)
    path.setflags(write=False)
    return Replay(
        path=path,
        pnl=float(path[-1]),
        worst=min(float(path.min()), 0.0),
        max_drawdown=float(depth.max()),
        ruined=bool(equity.min() <= 0.0),
    )


def scaled_covariance(
    covariance: ArrayLike, volatility: float = 1.0, toward_one: float = 0.0
) -> Floats:
    """(N, N) covariance with each sigma times `volatility` (> 0) and each correlation moved to
    rho + t (1 - rho), t = `toward_one` in [0, 1].

    A mean of a correlation matrix and of all ones stays PSD. With shorts, correlations toward one
    can lower the risk: hedges then work better than they did.

    Raises `RiskInputError` for other parameters, `NoVariance` for a negative variance, and as
    `symmetric`.
    """
    _refuse_other_shifts(volatility, toward_one)
    matrix = symmetric(covariance)
    together = covariance_from_correlation(np.ones_like(matrix), volatilities(matrix))
    with np.errstate(over="ignore"):
        stressed = ((1 - toward_one) * matrix + toward_one * together) * (volatility * volatility)
    return finite_array(stressed, 2, "covariances")


def stressed_tail(
    weights: ArrayLike,
    covariance: ArrayLike,
    level: Level,
    volatility: float = 1.0,
    toward_one: float = 0.0,
) -> Tail:
    """Normal VaR and ES at mean zero under `scaled_covariance`; unscaled they are those before.

    Raises as `scaled_covariance` and `portfolio_volatility`, and `BadLevel`.
    """
    (tail,) = stressed_tails(weights, covariance, level, [(volatility, toward_one)])
    return tail


def stressed_tails(
    weights: ArrayLike,
    covariance: ArrayLike,
    level: Level,
    shifts: Sequence[tuple[float, float]],
) -> list[Tail]:
    """`stressed_tail` for several shifts, each (volatility, toward_one), of one covariance.

    Without a matrix for each: with s_i the sigmas, the variance of weights w under
    `scaled_covariance` is volatility^2 ((1 - t) w' C w + t (sum_i w_i s_i)^2).
    """
    vector, matrix = fitting(weights, covariance)
    variance, _ = portfolio_variance(vector, matrix)
    together = float(vector @ volatilities(matrix))
    tails = []
    for volatility, toward_one in shifts:
        _refuse_other_shifts(volatility, toward_one)
        shifted = sqrt((1 - toward_one) * variance + toward_one * together * together)
        tails.append(normal_from_moments(0.0, volatility * shifted, level))
    return tails


def _refuse_other_shifts(volatility: float, toward_one: float) -> None:
    if not (isfinite(volatility) and volatility > 0 and 0 <= toward_one <= 1):
        raise RiskInputError(
            f"volatility times {volatility} or correlation {toward_one} toward one is out of range"
        )


@dataclass(frozen=True, slots=True)
class Shock:
    """A jump of prices. `moves`: (N,), read-only, simple returns. `pnl`: what it does."""

    moves: Floats = field(repr=False, compare=False)
    pnl: float


def gap(weights: ArrayLike, size: float, count: int = 1) -> Shock:
    """The `count` largest positions, long or short, each gap by `size` against their holder.

    A long falls by `size`, in (0, 1], and a short rises by it: the loss is size times the sum of
    these |w|. With count 1 and size 0.5 it is the single name that halves. Positions of one size
    are taken in their order; positions of zero do not move.

    Raises `RiskInputError` for another size or count < 1, `NotFinite`, `WrongShape`.
    """
    vector = finite_array(weights, 1, "weights")
    if not 0 < size <= 1 or count < 1:
        raise RiskInputError(f"no gap of {count} positions by {size}")
    moves = np.zeros_like(vector)
    largest = np.argsort(-np.abs(vector), kind="stable")[:count]
    moves[largest] = -size * np.sign(vector[largest]) + 0.0
    return _shock(vector, moves)


def betas(returns: ArrayLike, market: ArrayLike) -> Floats:
    """(N,) slopes of daily asset returns (n, N) on the market's (n,), with intercept; n >= 2.

    Cov(r_i, m) / Var(m). Raises `RiskInputError` when the market did not move, `TooFewReturns`,
    `WrongShape`, `NotFinite`.
    """
    matrix = finite_array(returns, 2, "asset returns")
    series = finite_array(market, 1, "market returns")
    if len(matrix) != len(series):
        raise WrongShape(f"{len(matrix)} days of returns for {len(series)} of the market")
    if len(series) < 2:
        raise TooFewReturns(len(series), 2)
    with np.errstate(over="ignore", invalid="ignore"):
        centred = series - series.mean()
        variation = float(centred @ centred)
        slopes = centred @ (matrix - matrix.mean(axis=0))
    if variation == 0 or not isfinite(variation):
        raise RiskInputError("the market did not move, or too far: there are no betas to it")
    return finite_array(slopes / variation, 1, "betas")


def beta_shock(weights: ArrayLike, beta: ArrayLike, market_move: float) -> Shock:
    """A market move mapped to each asset by its beta: r_i = max(beta_i times the move, -1).

    `beta`: (N,). `market_move`: a simple return, > -1, such as -0.2047. A model's answer, and to
    be labelled so: no price of that day enters. Raises `RiskInputError`, `WrongShape`,
    `NotFinite`.
    """
    vector = finite_array(weights, 1, "weights")
    slopes = finite_array(beta, 1, "betas")
    if len(vector) != len(slopes):
        raise WrongShape(f"{len(vector)} weights for {len(slopes)} betas")
    if not (isfinite(market_move) and market_move > -1):
        raise RiskInputError(f"a market does not return {market_move}")
    return _shock(vector, np.maximum(slopes * market_move, -1.0) + 0.0)


def _shock(weights: Floats, moves: Floats) -> Shock:
    pnl = float(weights @ moves) + 0.0
    if not isfinite(pnl):
        raise NotFinite("the shock's P&L overflows")
    moves.setflags(write=False)
    return Shock(moves, pnl)


@dataclass(frozen=True, slots=True)
class ReverseStress:
    """The smallest uniform shocks whose loss reaches `limit`; any larger one breaks it.

    `against`: every position moves against its holder by this fraction: longs fall (by no more
    than 1), shorts rise. `market`: every price moves by this signed fraction, > 0 for a rise.
    None: no such shock loses that much.
    """

    limit: float
    against: float | None
    market: float | None


def reverse_stress(weights: ArrayLike, limit: float) -> ReverseStress:
    """Two uniform shocks that lose `limit`, a positive fraction of equity.

    Against the holder, by x: the loss is long min(x, 1) + short x, with long and short the sums
    of the sizes; so x = limit / gross up to x = 1, and above it (limit - long) / short. A common
    move s of all prices, s >= -1: the loss is -s net, so s = -limit / net. A net within 1e-9 of
    gross counts as zero: no common move is known to hurt it, and nothing is divided by it.

    Raises `NothingHeld`, `RiskInputError` for a limit that is not positive, `NotFinite`,
    `WrongShape`.
    """
    vector = finite_array(weights, 1, "weights")
    if not (isfinite(limit) and limit > 0):
        raise RiskInputError(f"a loss limit is positive, not {limit}")
    with np.errstate(over="ignore", invalid="ignore"):
        gross, net = float(np.abs(vector).sum()), float(vector.sum())
        short = float(-vector[vector < 0].sum())
    if gross == 0:
        raise NothingHeld("every weight is zero")
    if not isfinite(gross):
        raise NotFinite("the gross exposure overflows")
    against: float | None = limit / gross
    if limit > gross:
        against = (limit - (gross - short)) / short if short > 0 else None
    market = None if abs(net) <= NET_NEAR_ZERO * gross else -limit / net
    if market is not None and market < -1:
        market = None
    return ReverseStress(limit, against, market)
