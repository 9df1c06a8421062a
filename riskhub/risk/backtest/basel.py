"""The Basel Committee's traffic light: how many exceedances are too many, and what they cost.

Basel Committee on Banking Supervision, "Supervisory framework for the use of 'backtesting' in
conjunction with the internal models approach to market risk capital requirements" (1996).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.risk.backtest.distributions import binomial_quantiles, binomial_tails
from riskhub.risk.backtest.hits import hit_series
from riskhub.risk.backtest.inputs import Alpha, counted, exact_alpha, whole

Zone = Literal["green", "yellow", "red"]

BASEL_WINDOW = 250
BASEL_ALPHA = Fraction(1, 100)

_ZONES: tuple[Zone, ...] = ("green", "yellow", "red")
_BEGINNINGS = (Fraction(95, 100), Fraction(9999, 10000))
_YELLOW_MULTIPLIERS = {5: 3.40, 6: 3.50, 7: 3.65, 8: 3.75, 9: 3.85}


@dataclass(frozen=True, slots=True)
class TrafficLight:
    """The zone of a number of exceedances.

    `yellow_from`, `red_from`: the smallest counts of these zones. `cumulative_probability`:
    P(this many or fewer) under a right VaR, the column of the published table. `multiplier`: the
    scaling factor, 3 to 4, for 250 days at 1 %; None elsewhere, where Basel defines none.
    `statistic`: the number of exceedances. `p_value`: P(this many or more). `reject`: the zone is
    red, where the Committee presumes that the model is wrong; yellow only asks for an explanation.
    """

    observations: int
    exceedances: int
    alpha: Fraction
    zone: Zone
    yellow_from: int
    red_from: int
    cumulative_probability: float
    multiplier: float | None
    p_value: float

    @property
    def statistic(self) -> int:
        """The number of exceedances."""
        return self.exceedances

    @property
    def reject(self) -> bool:
        """Whether the zone is red."""
        return self.zone == "red"


@dataclass(frozen=True, slots=True, eq=False)
class RollingTrafficLight:
    """The traffic light of every full window.

    `counts`, `zones`: (n - window + 1,), read-only, the i-th of days i to i + window - 1; empty
    when n < window.
    """

    window: int
    alpha: Fraction
    yellow_from: int
    red_from: int
    counts: NDArray[np.int64]
    zones: NDArray[np.str_]


def traffic_light(
    observations: SupportsIndex, exceedances: SupportsIndex, alpha: Alpha
) -> TrafficLight:
    """Yellow begins where P(X <= x) reaches 95 %, red where it reaches 99.99 %, X binomial.

    For 250 days at 1 %: green 0-4, yellow 5-9, red from 10. Decided in exact integers, for any
    number of days and any alpha. No exceedance at all is always green: with five days at 1 % the
    rule by its letter would call it yellow.

    Raises `BadAlpha`, `BadCount`, `TooFewObservations`.
    """
    days, hits = counted(observations, exceedances)
    tail = exact_alpha(alpha)
    yellow_from, red_from = _zones_begin(days, tail)
    at_most, at_least = binomial_tails(days, hits, tail)
    return TrafficLight(
        observations=days,
        exceedances=hits,
        alpha=tail,
        zone=_ZONES[(hits >= yellow_from) + (hits >= red_from)],
        yellow_from=yellow_from,
        red_from=red_from,
        cumulative_probability=at_most,
        multiplier=_multiplier(hits) if (days, tail) == (BASEL_WINDOW, BASEL_ALPHA) else None,
        p_value=at_least,
    )


def rolling_traffic_light(
    hits: ArrayLike, alpha: Alpha, window: SupportsIndex = BASEL_WINDOW
) -> RollingTrafficLight:
    """The traffic light over the last `window` days, on each day that has that many.

    `hits`: (n,) as for `christoffersen`, n >= 0. One pass, whatever the window.
    Raises `BadAlpha`, `BadCount`, `NotHits`, `WrongShape`.
    """
    series = hit_series(hits)
    tail = exact_alpha(alpha)
    days = whole(window, "window", at_least=1)
    yellow_from, red_from = _zones_begin(days, tail)
    cumulative = np.concatenate(([0], np.cumsum(series, dtype=np.int64)))
    counts = cumulative[days:] - cumulative[: max(0, len(cumulative) - days)]
    zones = np.array(_ZONES)[(counts >= yellow_from).astype(int) + (counts >= red_from)]
    counts.setflags(write=False)
    zones.setflags(write=False)
    return RollingTrafficLight(days, tail, yellow_from, red_from, counts, zones)


def _zones_begin(days: int, alpha: Fraction) -> tuple[int, int]:
    yellow, red = binomial_quantiles(days, alpha, _BEGINNINGS)
    return max(1, yellow), max(1, red)


def _multiplier(exceedances: int) -> float:
    if exceedances < 5:
        return 3.0
    return _YELLOW_MULTIPLIERS.get(exceedances, 4.0)
