"""Every test of one model's forecasts at one level, in one call."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.backtest.basel import (
    BASEL_WINDOW,
    RollingTrafficLight,
    TrafficLight,
    rolling_traffic_light,
    traffic_light,
)
from riskhub.risk.backtest.coverage import Kupiec, kupiec
from riskhub.risk.backtest.expected_shortfall import (
    SIMULATIONS,
    AcerbiSzekely,
    BadShortfall,
    acerbi_szekely,
)
from riskhub.risk.backtest.hits import Hits, exceedances
from riskhub.risk.backtest.independence import Christoffersen, christoffersen
from riskhub.risk.backtest.inputs import SIGNIFICANCE, exact_alpha, whole
from riskhub.risk.backtest.several_levels import CrossedLevels, Multinomial, multinomial
from riskhub.risk.inputs import Floats, WrongShape, finite_array
from riskhub.risk.levels import Level, tail_mass


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """The tests of n forecasts at `level`.

    `hits`: (n,), read-only, which days exceeded. `traffic_light`: of the last `window` days, or of
    all when there are fewer; `rolling`: of every full window. `acerbi_szekely` and `multinomial`
    are None where they could not be computed. `untested`: what is missing and why, one sentence
    each, also where a test is there but the data say nothing.
    """

    level: Level
    observations: int
    exceedances: int
    hits: Hits
    kupiec: Kupiec
    christoffersen: Christoffersen
    traffic_light: TrafficLight
    rolling: RollingTrafficLight
    acerbi_szekely: AcerbiSzekely | None
    multinomial: Multinomial | None
    untested: tuple[str, ...]


def backtest(
    var: ArrayLike,
    es: ArrayLike | None,
    losses: ArrayLike,
    level: Level,
    window: SupportsIndex = BASEL_WINDOW,
    *,
    ladder: Mapping[Level, ArrayLike] | None = None,
    degrees_of_freedom: float | None = None,
    significance: float = SIGNIFICANCE,
    simulations: SupportsIndex = SIMULATIONS,
    seed: SupportsIndex = 0,
) -> Backtest:
    """One model's forecasts against its outcomes, oldest first, one day after the other.

    `var`, `es`, `losses`: (n,), n >= 2, as for `exceedances`: var[i] and es[i] were made from data
    up to the day before losses[i]; that is the caller's to see to. `es` None: the model has none.
    `ladder`: the same model's values at risk (n,) at several levels, for the multinomial test.
    An ES that cannot be tested, or a ladder that crosses, is said in `untested`; what is wrong
    with the VaR or the losses is raised. The other arguments are those of the tests.

    Raises `WrongShape`, `NotFinite`, `TooFewObservations`, `BadLevel`, `BadAlpha`,
    `BadSignificance`, `BadCount`.
    """
    alpha = _alpha(level)
    hits = exceedances(var, losses)
    hits.setflags(write=False)
    n, recent = len(hits), hits[-whole(window, "window", at_least=1) :]
    independence = christoffersen(hits, alpha, significance=significance)
    untested = [f"christoffersen: {independence.undefined}"] if independence.undefined else []

    shortfall: AcerbiSzekely | None = None
    if es is None:
        untested.append("acerbi_szekely: no expected shortfall is given")
    else:
        try:
            shortfall = acerbi_szekely(
                var,
                es,
                losses,
                alpha,
                degrees_of_freedom=degrees_of_freedom,
                significance=significance,
                simulations=simulations,
                seed=seed,
            )
        except BadShortfall as error:
            untested.append(f"acerbi_szekely: {error}")
    if shortfall is not None and shortfall.undefined:
        untested.append(f"acerbi_szekely: {shortfall.undefined}")

    together: Multinomial | None = None
    if not ladder:
        untested.append("multinomial: values at risk at several levels are not given")
    else:
        try:
            together = multinomial(
                _columns(ladder, n),
                losses,
                [_alpha(rung) for rung in sorted(ladder)],
                significance=significance,
                simulations=simulations,
                seed=seed,
            )
        except CrossedLevels as error:
            untested.append(f"multinomial: {error}")

    return Backtest(
        level=level,
        observations=n,
        exceedances=int(hits.sum()),
        hits=hits,
        kupiec=kupiec(n, int(hits.sum()), alpha, significance=significance),
        christoffersen=independence,
        traffic_light=traffic_light(len(recent), int(recent.sum()), alpha),
        rolling=rolling_traffic_light(hits, alpha, window),
        acerbi_szekely=shortfall,
        multinomial=together,
        untested=tuple(untested),
    )


def _alpha(level: Level) -> Fraction:
    tail_mass(1, level)  # refuses what is no level
    return exact_alpha(1 - level)


def _columns(ladder: Mapping[Level, ArrayLike], n: int) -> Floats:
    rungs = [finite_array(ladder[level], 1, "values at risk") for level in sorted(ladder)]
    if any(len(rung) != n for rung in rungs):
        raise WrongShape(f"a ladder of {[len(rung) for rung in rungs]} days for {n} losses")
    return np.column_stack(rungs)
