"""The stored backtests: what they say of each day is what the tests say of its window."""

from datetime import date
from fractions import Fraction

import numpy as np
import pytest

from riskhub.backtesting import WINDOW, Light, RollingBacktest
from riskhub.risk.backtest import (
    BadShortfall,
    acerbi_szekely,
    christoffersen,
    exceedances,
    kupiec,
    traffic_light,
)

ALPHA = Fraction(1, 100)


def series(seed: int, n: int, *, hit_share: float = 0.03) -> tuple[np.ndarray, ...]:
    """Losses with clusters, VaR and ES of n days."""
    draws = np.random.default_rng(seed)
    calm = np.repeat(draws.choice([0.5, 2.0], n // 10 + 1), 10)[:n]
    losses = 0.01 * calm * draws.standard_t(4, n)
    var = np.quantile(losses, 1 - hit_share) * draws.uniform(0.8, 1.2, n)
    return losses, var, var * draws.uniform(1.0, 1.5, n)


def by_the_functions(losses: np.ndarray, var: np.ndarray, es: np.ndarray) -> Light:
    """The last day's light, from the whole window at once."""
    hits = exceedances(var, losses)
    n, x = len(hits), int(hits.sum())
    light = traffic_light(n, x, ALPHA)
    try:
        z2 = acerbi_szekely(var, es, losses, ALPHA, simulations=1).z2.statistic
    except BadShortfall:
        z2 = None
    return Light(
        observations=n,
        exceedances=x,
        exceeded=bool(hits[-1]),
        zone=light.zone,
        multiplier=light.multiplier,
        kupiec_p=kupiec(n, x, ALPHA).p_value_exact,
        christoffersen_p=christoffersen(hits).p_value_exact if n > 1 else 1.0,
        z2=z2,
    )


@pytest.mark.parametrize("hit_share", [0.002, 0.03, 0.3])
def test_every_day_has_the_numbers_of_its_own_window(hit_share: float) -> None:
    n = 700
    losses, var, es = series(7, n, hit_share=hit_share)
    es[400] = var[400] / 2  # an ES that is none: Z2 is not there while a window holds it

    lights = RollingBacktest().advance("model", losses, var, es)

    assert len(lights) == n
    for end in [1, 2, 3, 40, 249, 250, 251, 400, 401, 402, 650, 651, 700]:
        window = slice(max(0, end - WINDOW), end)
        assert lights[end - 1] == by_the_functions(losses[window], var[window], es[window]), end
    assert [lights[day].z2 is None for day in (399, 400, 649, 650)] == [False, True, True, False]


def test_a_multiplier_is_there_once_the_window_is_full() -> None:
    losses, var, es = series(3, 260)

    lights = RollingBacktest().advance("model", losses, var, es)

    assert {light.multiplier for light in lights[:249]} == {None}
    assert all(light.multiplier is not None and light.multiplier >= 3 for light in lights[249:])


@pytest.mark.parametrize("cuts", [(1, 2, 3), (100, 350), (249, 250, 251, 599)])
def test_it_does_not_matter_how_the_days_are_cut_nor_who_else_is_tested(
    cuts: tuple[int, ...],
) -> None:
    ours, others = series(1, 600), series(2, 600)
    whole = RollingBacktest().advance("ours", *ours)

    rolling, pieces = RollingBacktest(), []
    for part in np.split(np.arange(600), cuts):
        rolling.advance("others", *(each[part] for each in others))
        pieces += rolling.advance("ours", *(each[part] for each in ours))

    assert pieces == whole


def test_what_came_before_is_as_good_as_having_gone_through_it() -> None:
    losses, var, es = series(5, 600)
    whole = RollingBacktest().advance("model", losses, var, es)

    rolling = RollingBacktest()
    rolling.begin("model", losses[:400], var[:400], es[:400])

    assert rolling.advance("model", losses[400:], var[400:], es[400:]) == whole[400:]


def test_a_loss_as_large_as_the_value_at_risk_does_not_exceed_it() -> None:
    (light,) = RollingBacktest().advance("model", [0.02], [0.02], [0.03])

    assert (light.exceedances, light.exceeded, light.z2) == (0, False, 1.0)


@pytest.mark.parametrize(
    ("exceedances", "zone", "multiplier"),
    [(4, "green", 3.0), (5, "yellow", 3.4), (9, "yellow", 3.85), (10, "red", 4.0)],
)
def test_the_zones_and_multipliers_are_those_that_basel_published(
    exceedances: int, zone: str, multiplier: float
) -> None:
    losses = [0.05] * exceedances + [0.0] * (250 - exceedances)

    last = RollingBacktest().advance("model", losses, [0.02] * 250, [0.03] * 250)[-1]

    assert (last.exceedances, last.zone, last.multiplier) == (exceedances, zone, multiplier)


def test_days_that_were_left_out_make_it_forget() -> None:
    days = [date(2026, 1, day) for day in range(1, 8)]
    rolling = RollingBacktest()
    rolling.reach(days[:2])
    rolling.begin("model", [0.05], [0.02], [0.03])

    rolling.reach(days[2:4])
    assert rolling.knows("model")
    rolling.reach(days[5:])
    assert not rolling.knows("model")
