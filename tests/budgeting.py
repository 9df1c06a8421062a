"""Rows of the governor's history to vary."""

from datetime import datetime
from typing import Any

from builders import NOW


def cycle(computed_at: datetime = NOW, **row: Any) -> dict[str, Any]:
    return {
        "computed_at": computed_at,
        "writer": "governor on host, process 7 (0a)",
        "no_budget_reason": None,
        "symbols": 2,
        "complete": True,
        "equity_usd": 100_000.0,
        "portfolio_policy": "last_known_good",
        "portfolio_age_sec": 45.5,
        "heat": 0.25,
        "heat_policy": "held",
        "heat_age_sec": 12.5,
        "mode": "shadow",
        "formula_version": "p28/1",
    } | row


def budget(symbol: str, computed_at: datetime = NOW, **row: Any) -> dict[str, Any]:
    numbers = ["stress_factor", "portfolio_heat", "cluster_stress", "vol_regime", "base_risk_pct"]
    return {
        "computed_at": computed_at,
        "symbol": symbol,
        "budget_usd": 1000.0,
        "equity_usd": 100_000.0,
        **dict.fromkeys(numbers, 0.25),
        "mode": "shadow",
        "policies": {"portfolio_state": "last_known_good"},
        "formula_version": "p28/1",
        "haircut": 0.125,
        "portfolio_age_sec": 45.5,
        "share": None,
        "ages": {"portfolio_state": 45.5, "portfolio_heat": None},
    } | row
