"""The governor: how much each symbol may risk now, from the state of portfolio and market.

A cycle reads its inputs from Redis (`inputs`) and the hub (`hub_inputs`), puts what it remembers in
the place of what is gone (`memory`), computes a budget per symbol and cluster (`budget`, pure) and
writes the budgets back for their consumers (`publish`); `cycle` puts these together. One writer at
a time (`lease`). Whether a position may be as large as it is, is decided by the consumers, of whom
the hub's own gate is one.
"""

from riskhub.governor.budget import (
    DEFAULT_PARAMETERS,
    FORMULA_VERSION,
    BudgetParameters,
    NoBudget,
    SymbolBudget,
    budget_usd,
    contribution_haircut,
    stress_factor,
)
from riskhub.governor.cycle import BudgetCycle, compute_budgets, run_cycle
from riskhub.governor.inputs import GovernorInputs, Input, Policy, PortfolioState, read_inputs
from riskhub.governor.memory import Known, recall
from riskhub.governor.publish import PublishFailed, publish
from riskhub.governor.settings import GovernorSettings

__all__ = [
    "DEFAULT_PARAMETERS",
    "FORMULA_VERSION",
    "BudgetCycle",
    "BudgetParameters",
    "GovernorInputs",
    "GovernorSettings",
    "Input",
    "Known",
    "NoBudget",
    "Policy",
    "PortfolioState",
    "PublishFailed",
    "SymbolBudget",
    "budget_usd",
    "compute_budgets",
    "contribution_haircut",
    "publish",
    "read_inputs",
    "recall",
    "run_cycle",
    "stress_factor",
]
