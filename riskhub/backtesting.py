"""How good each model's VaR has been: stored outcomes against the forecasts that they met.

Two ways to the same tests of `riskhub.risk.backtest`. `backtests_of` gives all of them for one
world over any days, on the fly. `RollingBacktest` gives what is stored for every day: the few
numbers that a traffic light and its checks need, over the last 250 outcomes.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from math import fsum, isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskhub.metrics import CODE_VERSION
from riskhub.outcomes import LEVEL, Outcomes, outcomes_by_method
from riskhub.risk import Level, format_level
from riskhub.risk.backtest import (
    Backtest,
    TrafficLight,
    Zone,
    backtest,
    christoffersen,
    exact_alpha,
    exceedances,
    kupiec,
    traffic_light,
)
from riskhub.store import Store

WINDOW = 250  # outcomes, as Basel counts them
ZONES: tuple[Zone, ...] = ("green", "yellow", "red")

Series = tuple[str, str, str]  # world, stage and method


@dataclass(frozen=True, slots=True)
class Backtested:
    """One method's forecasts of a world, what they met, and every test of them."""

    world_id: str
    stage: str
    method: str
    outcomes: Outcomes
    tests: Backtest

    @property
    def zones(self) -> list[Zone | None]:
        """The light on each day of `outcomes`; None before the window is full."""
        full = [str(zone) for zone in self.tests.rolling.zones]
        missing: list[Zone | None] = [None] * (len(self.outcomes.days) - len(full))
        return missing + [zone for each in full for zone in ZONES if zone == each]


def backtests_of(
    store: Store,
    world_id: str,
    *,
    stage: str,
    methods: Collection[str] | None = None,
    level: Level = LEVEL,
    first: date = date.min,
    last: date = date.max,
    window: int = WINDOW,
) -> dict[str, Backtested]:
    """Every test of each method's forecasts, from the stored outcomes of the days; by method.

    The methods (None is every one) that have two outcomes or more. The multinomial test is there
    where all forecasts have the levels 95, 97.5 and 99 %. A method that had no forecast for some
    days is tested on the days that it had one for: neighbours in its series may be further apart.

    Raises `StoreUnavailable`; `BadLevel` for a level that is none or that no decimal gives exactly.
    """
    met = outcomes_by_method(
        store, world_id, stage=stage, methods=methods, level=level, first=first, last=last
    )
    return {
        method: Backtested(
            world_id=world_id,
            stage=stage,
            method=method,
            outcomes=found,
            tests=backtest(
                found.var,
                found.es,
                found.losses,
                level,
                window,
                ladder=found.ladder if len(found.ladder) > 1 else None,
            ),
        )
        for method, found in met.items()
        if len(found.days) >= 2
    }


# -- what is stored for every day ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Light:
    """A model on one day: the last `observations` outcomes up to it, at most a window of them.

    `exceeded`: on this very day. `kupiec_p` and `christoffersen_p` (of independence) are exact; the
    latter is 1, which is no evidence, where the data say nothing. `multiplier` is Basel's, None
    where it defines none. `z2`: None where an ES of the window is not positive or below its VaR.
    """

    observations: int
    exceedances: int
    exceeded: bool
    zone: Zone
    multiplier: float | None
    kupiec_p: float
    christoffersen_p: float
    z2: float | None


@dataclass(frozen=True, slots=True)
class _Days:
    """n days of one model. `multiples`: of the ES, how large the loss was on days that exceeded."""

    hits: NDArray[np.bool_]
    multiples: NDArray[np.float64]
    testable: NDArray[np.bool_]  # the ES is one

    @classmethod
    def of(cls, losses: ArrayLike, var: ArrayLike, es: ArrayLike) -> "_Days":
        loss, value, shortfall = (np.asarray(each, dtype=float) for each in (losses, var, es))
        hits = exceedances(value, loss)
        testable = (shortfall > 0) & (shortfall >= value)
        with np.errstate(over="ignore"):
            multiples = np.divide(loss, shortfall, out=np.zeros_like(loss), where=hits & testable)
        return cls(hits, multiples, testable)

    def followed_by(self, later: "_Days") -> "_Days":
        return _Days(
            np.concatenate((self.hits, later.hits)),
            np.concatenate((self.multiples, later.multiples)),
            np.concatenate((self.testable, later.testable)),
        )

    def last(self, count: int) -> "_Days":
        start = max(0, len(self.hits) - count)
        return _Days(self.hits[start:], self.multiples[start:], self.testable[start:])


class RollingBacktest:
    """The light of many models day after day, each over its own last `window` outcomes.

    What a number depends on is counts alone, and they come back all the time: each is computed
    once, by the function of `riskhub.risk.backtest` that it is the result of. Keeps a window of
    each model that it was told of, whatever the number of days.
    """

    def __init__(self, level: Level = LEVEL, window: int = WINDOW) -> None:
        self.level = level
        self.window = window
        self._alpha = exact_alpha(1 - level)
        self._recent: dict[Hashable, _Days] = {}
        self._reached: date | None = None
        self._lights: dict[tuple[int, int], tuple[TrafficLight, float]] = {}
        self._independence: dict[tuple[int, int, int, int, int], float] = {}

    def knows(self, model: Hashable) -> bool:
        """Whether it was told of a model."""
        return model in self._recent

    def begin(self, model: Hashable, losses: ArrayLike, var: ArrayLike, es: ArrayLike) -> None:
        """Say what came before: the last `window` - 1 outcomes of a model or more, oldest first."""
        self._recent[model] = _Days.of(losses, var, es).last(self.window - 1)

    def reach(self, days: Sequence[date]) -> None:
        """Say which days come next. If others lie between, what it knows is not what came before.

        Only then, and at the beginning, a model has to `begin`.
        """
        if self._reached != days[0] - timedelta(days=1):
            self._recent.clear()
        self._reached = days[-1]

    def advance(
        self, model: Hashable, losses: ArrayLike, var: ArrayLike, es: ArrayLike
    ) -> list[Light]:
        """The light on each of the next days of a model, (n,) each, oldest first."""
        new = _Days.of(losses, var, es)
        before = self._recent.get(model)
        known = before.followed_by(new) if before else new
        self._recent[model] = known.last(self.window - 1)
        return list(self._last_lights(known, len(new.hits)))

    def _last_lights(self, days: _Days, count: int) -> Iterable[Light]:
        hits = days.hits
        pairs = _running(hits[1:] & hits[:-1])
        hits_up_to, untestable = _running(hits), _running(~days.testable)
        where = np.flatnonzero(hits)
        for end in range(len(hits) - count + 1, len(hits) + 1):
            start = max(0, end - self.window)
            n, x = end - start, int(hits_up_to[end] - hits_up_to[start])
            light, kupiec_p = self._light(n, x)
            n11 = int(pairs[end - 1] - pairs[start])
            after, before = x - int(hits[start]), x - int(hits[end - 1])
            own = where[hits_up_to[start] : hits_up_to[end]]
            yield Light(
                observations=n,
                exceedances=x,
                exceeded=bool(hits[end - 1]),
                zone=light.zone,
                multiplier=light.multiplier,
                kupiec_p=kupiec_p,
                christoffersen_p=self._independent(
                    (n, x, after - n11, before - n11, n11), hits[start:end]
                ),
                z2=_z2(days.multiples[own], n * self._alpha)
                if untestable[end] == untestable[start]
                else None,
            )

    def _light(self, n: int, x: int) -> tuple[TrafficLight, float]:
        if (n, x) not in self._lights:
            tested = kupiec(n, x, self._alpha).p_value_exact
            self._lights[n, x] = traffic_light(n, x, self._alpha), tested
        return self._lights[n, x]

    def _independent(
        self, transitions: tuple[int, int, int, int, int], hits: NDArray[np.bool_]
    ) -> float:
        """By n, x and how often which kind of day follows which: the test knows no more."""
        if len(hits) < 2:
            return 1.0
        if transitions not in self._independence:
            self._independence[transitions] = christoffersen(hits).p_value_exact
        return self._independence[transitions]


def _running(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n + 1,) how many of the first 0, 1, ..., n are true."""
    return np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))


def _z2(multiples: NDArray[np.float64], expected: Fraction) -> float | None:
    """Acerbi and Szekely's second statistic, as `acerbi_szekely` has it; None if it overflows."""
    statistic = 1.0 - fsum(multiples.tolist()) / float(expected)
    return statistic if isfinite(statistic) else None


def backtest_rows(
    store: Store,
    rolling: RollingBacktest,
    days: Sequence[date],
    *,
    worlds: Collection[str] | None,
) -> list[dict[str, Any]]:
    """Rows of `var_backtests` for consecutive days, read from what is stored up to the last.

    `rolling` goes on where the days before these ended, or begins here. Raises `StoreUnavailable`.
    """
    rolling.reach(days)
    level = format_level(rolling.level)
    series: dict[Series, list[tuple[date, float, float, float]]] = {}
    for world_id, stage, day, method, loss, var, es in store.met_on(
        days[0], days[-1], level=level, worlds=worlds
    ):
        series.setdefault((world_id, stage, method), []).append((day, loss, var, es))
    rows = []
    for (world_id, stage, method), met in sorted(series.items()):
        model = world_id, stage, method
        if not rolling.knows(model):
            before = store.met_before(
                days[0],
                rolling.window - 1,
                world_id=world_id,
                stage=stage,
                method=method,
                level=level,
            )
            rolling.begin(model, *_columns(before))
        lights = rolling.advance(model, *_columns([each[1:] for each in met]))
        rows += [
            {
                "world_id": world_id,
                "stage": stage,
                "method": method,
                "level": level,
                "day": day,
                "window": rolling.window,
                "observations": light.observations,
                "exceedances": light.exceedances,
                "exceeded": light.exceeded,
                "zone": light.zone,
                "multiplier": light.multiplier,
                "kupiec_p": light.kupiec_p,
                "christoffersen_p": light.christoffersen_p,
                "z2": light.z2,
                "code_version": CODE_VERSION,
            }
            for (day, *_), light in zip(met, lights, strict=True)
        ]
    return rows


def _columns(rows: Sequence[tuple[float, float, float]]) -> NDArray[np.float64]:
    """(3, n)"""
    return np.array(rows, dtype=float).reshape(len(rows), 3).T
