"""The governor: how much each symbol may risk now, from the state of portfolio and market.

A cycle reads its inputs from Redis (`inputs`), computes a budget per symbol (`budget`, pure) and
writes the budgets back for their consumers (`publish`); `cycle` puts the three together. Who may
trade, and what happens to a position over its budget, is decided by the consumers.
"""

from riskhub.governor.budget import (
    DEFAULT_PARAMETERS,
    FORMULA_VERSION,
    BudgetParameters,
    NoBudget,
    SymbolBudget,
    budget_usd,
    stress_factor,
)
from riskhub.governor.cycle import BudgetCycle, compute_budgets, run_cycle
from riskhub.governor.inputs import GovernorInputs, Input, Policy, PortfolioState, read_inputs
from riskhub.governor.publish import publish
from riskhub.governor.settings import GovernorSettings

__all__ = [
    "DEFAULT_PARAMETERS",
    "FORMULA_VERSION",
    "BudgetCycle",
    "BudgetParameters",
    "GovernorInputs",
    "GovernorSettings",
    "Input",
    "NoBudget",
    "Policy",
    "PortfolioState",
    "SymbolBudget",
    "budget_usd",
    "compute_budgets",
    "publish",
    "read_inputs",
    "run_cycle",
    "stress_factor",
]
