"""The formula against numbers worked out by hand, and what must hold whatever the numbers are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from riskhub.governor.budget import (
    BudgetParameters,
    NoBudget,
    budget_usd,
    contribution_haircut,
    stress_factor,
)

unit = st.floats(0, 1)
equities = st.floats(min_value=1e-6, max_value=1e12)


@st.composite
def parameters(draw: st.DrawFn) -> BudgetParameters:
    weight = st.floats(0, 2)
    low, high = sorted((draw(st.floats(0, 1e6)), draw(st.floats(0, 1e6))))
    return BudgetParameters(
        base_risk_pct=draw(st.floats(0, 1)),
        heat_weight=draw(weight),
        cluster_weight=draw(weight),
        vol_weight=draw(weight),
        min_usd=low,
        max_usd=high,
    )


@pytest.mark.parametrize(
    ("heat", "cluster", "vol", "stress"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.5, 0.25, 0.33, 0.366),  # 0.2 + 0.1 + 0.066
        (1.0, 0.0, 0.0, 0.4),
        (0.0, 1.0, 0.0, 0.4),
        (0.0, 0.0, 1.0, 0.2),
        (1.0, 1.0, 1.0, 1.0),
        (3.0, 0.0, 0.0, 1.0),
        (-1.0, 0.0, 0.5, 0.0),
    ],
)
def test_stress_by_hand(heat: float, cluster: float, vol: float, stress: float) -> None:
    assert_allclose(stress_factor(heat, cluster, vol), stress, rtol=1e-12)


@pytest.mark.parametrize(
    ("equity", "stress", "usd"),
    [
        (100_000.0, 0.0, 2_000.0),
        (100_000.0, 0.366, 1_268.0),
        (100_000.0, 0.75, 500.0),
        (100_000.0, 0.76, 500.0),  # 480 below the floor
        (600_000.0, 0.1, 10_000.0),  # 10,800 above the ceiling
        (1e-9, 0.0, 500.0),
    ],
)
def test_budget_by_hand(equity: float, stress: float, usd: float) -> None:
    assert_allclose(budget_usd(equity, stress), usd, rtol=1e-12)


def test_symbols_are_computed_at_once() -> None:
    stress = stress_factor(0.5, np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.33, 1.0]))

    assert_allclose(stress, [0.2, 0.366, 0.8], rtol=1e-12)
    assert_allclose(budget_usd(100_000, stress), [1_600.0, 1_268.0, 500.0], rtol=1e-12)


def test_each_parameter_has_its_place() -> None:
    changed = BudgetParameters(
        base_risk_pct=0.1,
        heat_weight=0.5,
        cluster_weight=0.25,
        vol_weight=0.125,
        min_usd=10,
        max_usd=90,
    )

    stress = stress_factor([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], changed)

    assert stress.tolist() == [0.5, 0.25, 0.125, 0.0]
    assert_allclose(budget_usd(1_000, stress, changed), [50, 75, 87.5, 90])
    assert_allclose(budget_usd(50, stress, changed), 10)


def test_binary_fractions_decide_nothing() -> None:
    assert 100_000 * 0.02 * (1 - 0.2 * 0.33) != 1_868.0
    assert budget_usd(100_000, stress_factor(0, 0, 0.33)) == 1_868.0
    bounds = BudgetParameters(min_usd=0.123_456_2, max_usd=0.987_654_7)
    assert budget_usd(1e-9, 0.0, bounds) == 0.123_456_2  # rounding leaves no bound
    assert budget_usd(1e300, 0.0, bounds) == 0.987_654_7
    assert budget_usd(1e308, 0.0, BudgetParameters(max_usd=1e307)) == 1e307


def test_a_haircut_is_taken_off_before_the_bounds() -> None:
    budgets = budget_usd(100_000, 0.25, haircut=np.array([0.0, 0.5, 0.9, 1.0]))

    assert_allclose(budgets, [1_500.0, 750.0, 500.0, 500.0], rtol=1e-12)
    assert_allclose(budget_usd(1e6, 0.0, haircut=0.25), 10_000.0)


@given(equities, unit, unit, unit, parameters())
def test_more_haircut_or_less_equity_never_gives_a_larger_budget(
    equity: float, less: float, one: float, other: float, chosen: BudgetParameters
) -> None:
    whole, cut = budget_usd(equity, 0.3, chosen, sorted((one, other)))

    assert cut <= whole
    assert budget_usd(max(equity * less, 1e-9), 0.3, chosen, one) <= budget_usd(
        max(equity, 1e-9), 0.3, chosen, one
    )


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=20), st.integers(1, 100))
def test_a_larger_share_never_gives_a_smaller_haircut(shares: list[float], count: int) -> None:
    haircuts = contribution_haircut(sorted(shares), count)

    assert (np.diff(haircuts) >= 0).all()
    assert ((haircuts >= 0) & (haircuts <= 0.75)).all()


@given(equities, unit, unit, parameters())
def test_more_stress_never_gives_a_larger_budget(
    equity: float, one: float, other: float, chosen: BudgetParameters
) -> None:
    calm, stressed = budget_usd(equity, sorted((one, other)), chosen)

    assert stressed <= calm


@given(unit, unit, unit, unit, parameters())
def test_more_of_any_input_never_gives_less_stress(
    heat: float, cluster: float, vol: float, more: float, chosen: BudgetParameters
) -> None:
    base = stress_factor(heat, cluster, vol, chosen)

    assert stress_factor(max(heat, more), cluster, vol, chosen) >= base
    assert stress_factor(heat, max(cluster, more), vol, chosen) >= base
    assert stress_factor(heat, cluster, max(vol, more), chosen) >= base


@given(equities, st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10), parameters())
def test_stress_and_budget_stay_in_bounds(
    equity: float, heat: float, cluster: float, vol: float, chosen: BudgetParameters
) -> None:
    stress = stress_factor(heat, cluster, vol, chosen)

    assert 0 <= stress <= 1
    assert chosen.min_usd <= budget_usd(equity, stress, chosen) <= chosen.max_usd


@pytest.mark.parametrize(
    ("equity", "reason"),
    [
        (0.0, "equity_not_positive"),
        (-1.0, "equity_not_positive"),
        (math.nan, "equity_not_finite"),
        (math.inf, "equity_not_finite"),
        (-math.inf, "equity_not_finite"),
    ],
)
def test_equity_that_carries_no_budget(equity: float, reason: str) -> None:
    with pytest.raises(NoBudget) as refused:
        budget_usd(equity, 0.5)

    assert refused.value.reason == reason


@pytest.mark.parametrize("broken", [math.nan, math.inf, [0.1, math.nan]])
def test_no_input_may_be_nan(broken: float | list[float]) -> None:
    with pytest.raises(ValueError, match="heat"):
        stress_factor(broken, 0, 0)
    with pytest.raises(ValueError, match="cluster"):
        stress_factor(0, broken, 0)
    with pytest.raises(ValueError, match="vol"):
        stress_factor(0, 0, broken)
    with pytest.raises(ValueError, match="stress"):
        budget_usd(1_000, broken)
    with pytest.raises(ValueError, match="haircut"):
        budget_usd(1_000, 0.5, haircut=broken)
    with pytest.raises(ValueError, match="shares"):
        contribution_haircut(broken, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heat_weight": -0.1},
        {"base_risk_pct": math.nan},
        {"max_usd": math.inf},
        {"min_usd": 2, "max_usd": 1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BudgetParameters(**wrong)
