"""From inputs to budgets."""

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.governor import (
    FORMULA_VERSION,
    BudgetParameters,
    GovernorInputs,
    GovernorSettings,
    Input,
    PortfolioState,
    compute_budgets,
    contribution_haircut,
)
from riskhub.governor.inputs import cluster_input, heat_input, regime_input

NOW = 1_738_000_000.75
SETTINGS = GovernorSettings(clusters={"BTCUSDT": "majors"})
INPUTS = GovernorInputs(
    portfolio=Input(PortfolioState(100_000.0, 0.1, NOW - 1), "fresh", 1.0),
    symbols=("BTCUSDT", "ETHUSDT"),
    heat=Input(0.5, "fresh"),
    clusters={"majors": Input(0.25, "fresh"), "default": Input(1.0, "malformed")},
    regimes={"BTCUSDT": Input(0.33, "missing"), "ETHUSDT": Input(1.0, "fresh")},
)


def test_each_symbol_has_a_budget_and_what_it_was_computed_from() -> None:
    cycle = compute_budgets(INPUTS, SETTINGS, NOW)

    assert cycle.no_budget_reason is None
    bitcoin, ether = cycle.budgets
    assert bitcoin.symbol == "BTCUSDT"
    assert bitcoin.stress_factor == pytest.approx(0.366)
    assert bitcoin.budget_usd == pytest.approx(1_268.0)
    assert (bitcoin.equity_usd, bitcoin.base_risk_pct) == (100_000.0, 0.02)
    assert (bitcoin.portfolio_heat, bitcoin.cluster_stress, bitcoin.vol_regime) == (0.5, 0.25, 0.33)
    assert (bitcoin.mode, bitcoin.timestamp) == ("shadow", 1_738_000_000)
    assert bitcoin.formula_version == FORMULA_VERSION == "p28/2"
    assert bitcoin.policies == {
        "portfolio_state": "fresh",
        "portfolio_heat": "fresh",
        "cluster_stress": "fresh",
        "vol_regime": "missing",
    }
    assert ether.budget_usd == 500.0  # 100,000 * 0.02 * 0.2 below the floor
    assert ether.policies["cluster_stress"] == "malformed"


def test_settings_reach_the_formula() -> None:
    settings = GovernorSettings(mode="enforce", parameters=BudgetParameters(min_usd=1.0))

    cycle = compute_budgets(INPUTS, settings, NOW)

    assert [budget.mode for budget in cycle.budgets] == ["enforce", "enforce"]
    assert cycle.budgets[1].budget_usd == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("portfolio", "reason"),
    [
        (Input(None, "missing"), "portfolio_missing"),
        (Input(None, "malformed"), "portfolio_malformed"),
        (Input(None, "out_of_range"), "portfolio_out_of_range"),
        (Input(PortfolioState(1e5, None, NOW - 31), "stale", 31.0), "portfolio_stale"),
        (Input(PortfolioState(0.0, None, NOW), "fresh", 0.0), "equity_not_positive"),
        (Input(PortfolioState(math.nan, None, NOW), "fresh", 0.0), "equity_not_finite"),
    ],
)
def test_a_portfolio_that_gives_no_budget(
    portfolio: Input[PortfolioState | None], reason: str
) -> None:
    cycle = compute_budgets(replace(INPUTS, portfolio=portfolio), SETTINGS, NOW)

    assert (cycle.budgets, cycle.cluster_budgets) == ((), ())
    assert cycle.no_budget_reason == reason


def test_the_worked_example_to_the_cent() -> None:
    inputs = replace(
        INPUTS,
        symbols=("BTCUSDT",),
        heat=Input(0.0, "fresh"),
        clusters={"majors": Input(0.0, "fresh")},
        regimes={"BTCUSDT": regime_input(["NORMAL_VOL", None])},
    )

    (budget,) = compute_budgets(inputs, SETTINGS, NOW).budgets

    assert Decimal(repr(budget.stress_factor)) == Decimal("0.066")
    assert Decimal(repr(budget.budget_usd)) == Decimal("1868.00")


def test_a_cluster_has_the_budget_of_its_wildest_symbol() -> None:
    settings = GovernorSettings(clusters={"BTC": "majors", "ETH": "majors", "DOGE": "memes"})
    inputs = replace(
        INPUTS,
        symbols=("BTC", "DOGE", "ETH"),
        heat=Input(0.25, "fresh"),
        clusters={"majors": Input(0.5, "held", 7.0, 7.0), "memes": Input(0.0, "missing")},
        regimes={
            "BTC": Input(0.67, "malformed"),
            "DOGE": Input(0.0, "fresh"),
            "ETH": Input(0.33, "fresh"),
        },
    )

    majors, memes = compute_budgets(inputs, settings, NOW).cluster_budgets

    assert (majors.symbol, memes.symbol) == ("majors", "memes")
    assert majors.stress_factor == pytest.approx(0.4 * 0.25 + 0.4 * 0.5 + 0.2 * 0.67)
    assert majors.budget_usd == pytest.approx(2_000 * (1 - 0.434))
    assert (majors.vol_regime, majors.cluster_stress) == (0.67, 0.5)
    assert majors.policies["vol_regime"] == "malformed"
    assert majors.policies["cluster_stress"] == "held"
    assert memes.budget_usd == pytest.approx(2_000 * 0.9)


def aged(unfresh_sec: float) -> Input[PortfolioState | None]:
    state = PortfolioState(100_000.0, 0.1, NOW - unfresh_sec - 20)
    return Input(state, "last_known_good", unfresh_sec + 20, unfresh_sec)


@pytest.mark.parametrize(
    ("portfolio", "drawdown", "haircuts", "haircut"),
    [
        (aged(450.0), 0.5, {}, 0.0),  # none is asked for
        (aged(450.0), 0.5, {"age_haircut": 0.4}, 0.2),
        (aged(900.0), 0.5, {"age_haircut": 0.4}, 0.4),
        (INPUTS.portfolio, 0.5, {"age_haircut": 0.4}, 0.0),  # fresh, though a second old
        (INPUTS.portfolio, 0.5, {"drawdown_haircut": 0.4}, 0.2),
        (INPUTS.portfolio, 1.0, {"drawdown_haircut": 1.0}, 1.0),
        (aged(450.0), 0.5, {"age_haircut": 0.4, "drawdown_haircut": 0.4}, 0.36),
        (aged(0.0), 0.0, {"age_haircut": 1.0, "lkg_max_sec": 0}, 1.0),
    ],
)
def test_haircuts(
    portfolio: Input[PortfolioState | None],
    drawdown: float,
    haircuts: dict[str, float],
    haircut: float,
) -> None:
    settings = GovernorSettings.model_validate({"parameters": {"min_usd": 0}} | haircuts)
    inputs = replace(
        INPUTS,
        portfolio=portfolio,
        symbols=("ETHUSDT",),
        heat=Input(0.0, "fresh"),
        clusters={"default": Input(0.0, "fresh")},
        regimes={"ETHUSDT": Input(0.5, "fresh")},
        drawdown=Input(drawdown, "held"),
    )

    cycle = compute_budgets(inputs, settings, NOW)

    for budget in (*cycle.budgets, *cycle.cluster_budgets):
        assert budget.haircut == pytest.approx(haircut)
        assert budget.budget_usd == pytest.approx(2_000 * 0.9 * (1 - haircut))
        assert budget.portfolio_age_sec == portfolio.age_sec
        assert budget.policies.get("drawdown") == (
            "held" if "drawdown_haircut" in haircuts else None
        )


def test_a_haircut_comes_before_the_bounds() -> None:
    inputs = replace(INPUTS, portfolio=aged(900.0), heat=Input(0.0, "fresh"))
    rich = replace(inputs.portfolio, value=PortfolioState(1e7, None, NOW - 920))
    settings = GovernorSettings(age_haircut=0.5, clusters={"BTCUSDT": "majors"})

    assert compute_budgets(inputs, settings, NOW).budgets[1].budget_usd == 500.0
    rich_cycle = compute_budgets(replace(inputs, portfolio=rich), settings, NOW)
    assert rich_cycle.budgets[0].budget_usd == 10_000.0


def test_who_carries_more_of_the_shortfall_gets_less() -> None:
    shares = {"A": 0.5, "B": 0.25, "C": 0.35, "D": -0.1, "E": 0.0}  # of 5: 0.2 is its part
    symbols = (*shares, "F")  # which the world doesn't hold
    inputs = replace(
        INPUTS,
        symbols=symbols,
        heat=Input(0.0, "fresh"),
        clusters={"default": Input(0.0, "fresh")},
        regimes=dict.fromkeys(symbols, Input(0.0, "fresh")),
        shares=Input(shares, "held", 30.0, 30.0),
    )

    cycle = compute_budgets(inputs, GovernorSettings(contribution_world="w"), NOW)

    assert {budget.symbol: budget.budget_usd for budget in cycle.budgets} == pytest.approx(
        {"A": 800.0, "B": 1_600.0, "C": 2_000 / 1.75, "D": 2_000.0, "E": 2_000.0, "F": 2_000.0}
    )
    assert [budget.share for budget in cycle.budgets] == [0.5, 0.25, 0.35, -0.1, 0.0, None]
    assert cycle.budgets[0].haircut == pytest.approx(0.6)
    assert {budget.policies["contribution"] for budget in cycle.budgets} == {"held"}
    assert cycle.cluster_budgets[0].budget_usd == 2_000.0
    assert cycle.cluster_budgets[0].share is None


def test_a_symbol_keeps_a_quarter_whatever_it_carries() -> None:
    assert contribution_haircut([0.9, 1.5, 0.01], 100).tolist() == [0.75, 0.75, 0.0]


def test_no_position_needs_no_budget() -> None:
    cycle = compute_budgets(replace(INPUTS, symbols=()), SETTINGS, NOW)

    assert (cycle.budgets, cycle.cluster_budgets) == ((), ())
    assert cycle.no_budget_reason == "no_positions"


# --- broken input never raises a budget ------------------------------------------------------

unit = st.floats(0, 1)
broken_numbers = st.one_of(
    st.sampled_from(["", "nan", "inf", "-0.001", "1.001", "x", "1e999"]), st.text(max_size=8)
).filter(lambda raw: cluster_input([raw]).policy != "fresh")
broken_heats = st.sampled_from(["NaN", "+Inf", "-0.001", "1.001", "x", "0,5", "1_0"])
good_regimes = st.one_of(
    st.tuples(st.sampled_from(["LOW_VOL", "NORMAL_VOL", "HIGH_VOL", "EXTREME_VOL"]), st.none()),
    st.tuples(st.none(), unit.map(repr)),
    st.just((None, None)),
)


def budget_of(
    heat: Input[float], cluster: Input[float], regime: Input[float], equity: float
) -> float:
    inputs = GovernorInputs(
        portfolio=Input(PortfolioState(equity, None, NOW), "fresh", 0.0),
        symbols=("BTCUSDT",),
        heat=heat,
        clusters={"default": cluster},
        regimes={"BTCUSDT": regime},
    )
    return compute_budgets(inputs, GovernorSettings(), NOW).budgets[0].budget_usd


@given(
    broken=broken_numbers,
    broken_heat=broken_heats,
    good=unit,
    others=st.tuples(unit, unit),
    regime=good_regimes,
    equity=st.floats(1, 1e7),
)
def test_broken_input_never_raises_a_budget(
    broken: str,
    broken_heat: str,
    good: float,
    others: tuple[float, float],
    regime: tuple[str | None, str | None],
    equity: float,
) -> None:
    first, second = (Input(value, "fresh") for value in others)

    as_cluster = budget_of(first, cluster_input([broken]), second, equity)
    assert as_cluster <= budget_of(first, cluster_input([repr(good)]), second, equity)
    assert as_cluster <= budget_of(first, cluster_input([None]), second, equity)

    as_regime = budget_of(first, second, regime_input([broken, None]), equity)
    assert as_regime <= budget_of(first, second, regime_input(regime), equity)

    as_heat = budget_of(heat_input(f"p26_heat_value {broken_heat}"), first, second, equity)
    assert as_heat <= budget_of(heat_input(f"p26_heat_value {good!r}"), first, second, equity)
    assert as_heat <= budget_of(Input(0.0, "not_configured"), first, second, equity)
