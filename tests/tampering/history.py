"""The governor's history: cycles and budgets; and what else it makes of other inputs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from auditing import CYCLE, INPUTS, Break, sql

from riskhub.blobs import BlobStore
from riskhub.governor import GovernorSettings, Input
from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.tables import budget_cycles, symbol_budgets

ALTERED = ("budgets", "altered")


def of(symbol: str, number: int | None = 0, **values: Any) -> Break:
    """Alter a symbol's budget of a cycle, or of all."""

    def do(store: Store, _: BlobStore | None = None) -> None:
        query = sa.update(symbol_budgets).where(symbol_budgets.c.symbol == symbol)
        if number is not None:
            query = query.where(symbol_budgets.c.computed_at == CYCLE + timedelta(minutes=number))
        with writing(store.engine) as connection:
            assert connection.execute(query.values(values)).rowcount

    return do


def about_all(**values: Any) -> Break:
    def do(store: Store, _: BlobStore | None = None) -> None:
        with writing(store.engine) as connection:
            connection.execute(sa.update(budget_cycles).values(values))

    return do


BREAKS: dict[str, tuple[Break, tuple[str, str]]] = {
    "a budget is lost": (
        sql("DELETE FROM symbol_budgets WHERE symbol = 'NVDA'"),
        ("budgets", "missing"),
    ),
    "a budget is of another equity": (of("NVDA", equity_usd=1.0), ALTERED),
    "a budget too many": (about_all(symbols=1), ("budgets", "extra")),
    "a cycle is lost": (
        sql("DELETE FROM budget_cycles WHERE complete"),
        ("budgets", "extra"),
    ),
    "a cycle has budgets and a reason for none": (
        about_all(no_budget_reason="no_positions"),
        ("cycles", "altered"),
    ),
    "a cycle has budgets of a portfolio that is too old": (
        about_all(portfolio_policy="too_old"),
        ("cycles", "altered"),
    ),
    "a budget is raised": (of("NVDA", budget_usd=1_900.0), ALTERED),
    "a budget is lowered": (of("NVDA", budget_usd=1_000.0), ALTERED),
    "a budget is raised by the last digit": (
        of("AMD", budget_usd=symbol_budgets.c.budget_usd + 1e-6),
        ALTERED,
    ),
    "a stress is another": (of("NVDA", stress_factor=0.1), ALTERED),
    "an input is another": (of("NVDA", cluster_stress=0.1), ALTERED),
    "a stress and its budget are others": (
        of("NVDA", stress_factor=0.0, budget_usd=2_000.0),
        ALTERED,
    ),
    "what is broken is not taken as the worst": (of("SPY", vol_regime=0.5), ALTERED),
    "a stress is none": (of("NVDA", stress_factor=-0.5), ALTERED),
    "a base risk is none": (of("NVDA", base_risk_pct=-0.02), ALTERED),
    "policies are none": (of("NVDA", policies=["fresh"]), ALTERED),
    "a haircut that nothing asks for": (of("NVDA", haircut=0.1), ALTERED),
}

CASES: dict[str, dict[str, Any]] = {
    "aged and drawn down": {
        "settings": GovernorSettings(age_haircut=0.3, drawdown_haircut=0.5),
        "portfolio": replace(
            INPUTS.portfolio, policy="last_known_good", age_sec=300.0, unfresh_sec=301.0
        ),
        "drawdown": Input(0.123, "held", 301.0, 301.0),
    },
    "by contribution": {
        "settings": GovernorSettings(contribution_world="w"),
        "shares": Input({"AMD": 0.7, "NVDA": 0.5, "SPY": -0.2}, "fresh", 5.0),
    },
    "nothing is known": {
        "heat": Input(0.0, "not_configured"),
        "clusters": {"default": Input(0.0, "missing")},
        "regimes": dict.fromkeys(INPUTS.symbols, Input(0.33, "missing")),
    },
    "everything is at its worst": {
        "heat": Input(1.0, "missing"),
        "clusters": {"default": Input(1.0, "out_of_range")},
        "regimes": dict.fromkeys(INPUTS.symbols, Input(1.0, "fresh")),
    },
    "little equity": {
        "portfolio": replace(
            INPUTS.portfolio,
            value=replace(INPUTS.portfolio.value, equity_usd=30_000.07),  # type: ignore[type-var]
        ),
    },
    "much equity": {
        "portfolio": replace(
            INPUTS.portfolio,
            value=replace(INPUTS.portfolio.value, equity_usd=1e9 / 3),  # type: ignore[type-var]
        ),
    },
    "no positions": {"symbols": ()},
    "no portfolio": {"portfolio": Input(None, "too_old", 901.0)},
}
