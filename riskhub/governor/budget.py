"""The budget formula, and what a budget is.

    stress = clamp(0.4 heat + 0.4 cluster + 0.2 vol, 0, 1)
    budget = clamp(equity * 0.02 * (1 - stress), 500, 10000)

Pure: no clock, no network, no settings. The formula is that of the deployed portfolio risk governor
(P2.8); its constants are `BudgetParameters`.
"""

from dataclasses import dataclass, fields
from math import isfinite

import numpy as np
import numpy.typing as npt

from riskhub.errors import RiskHubError

FORMULA_VERSION = "p28/1"
"""Changes whenever the same inputs and parameters would give another budget."""

FloatArray = npt.NDArray[np.float64]


class NoBudget(RiskHubError):
    """The equity can't carry a budget. `reason` is `equity_not_finite` or `equity_not_positive`."""

    def __init__(self, reason: str, equity: float) -> None:
        super().__init__(f"no budget from an equity of {equity} USD: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BudgetParameters:
    """The constants of the formula.

    Attributes:
        base_risk_pct: share of the equity that an unstressed symbol may risk (0.02 is 2%).
        heat_weight: weight of the portfolio heat in the stress.
        cluster_weight: weight of the cluster stress in the stress.
        vol_weight: weight of the volatility regime in the stress.
        min_usd: no budget is smaller, USD.
        max_usd: no budget is larger, USD.

    Raises:
        ValueError: one is negative or not finite, or `min_usd` exceeds `max_usd`. A negative
            weight would turn stress into a larger budget.
    """

    base_risk_pct: float = 0.02
    heat_weight: float = 0.4
    cluster_weight: float = 0.4
    vol_weight: float = 0.2
    min_usd: float = 500.0
    max_usd: float = 10_000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"{field.name} must be finite and not negative, not {value}")
        if self.min_usd > self.max_usd:
            raise ValueError(f"min_usd {self.min_usd} exceeds max_usd {self.max_usd}")


DEFAULT_PARAMETERS = BudgetParameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolBudget:
    """What one symbol may risk, with everything it was computed from.

    Attributes:
        symbol: as in the key of its position.
        budget_usd: the budget, USD, >= 0.
        stress_factor: 0 (calm) to 1.
        equity_usd: equity of the whole portfolio, USD.
        portfolio_heat: 0 to 1, as used.
        cluster_stress: 0 to 1, as used.
        vol_regime: 0 (low) to 1 (extreme), as used.
        mode: `shadow` or `enforce`.
        timestamp: when it was computed, unix seconds.
        base_risk_pct: the share of the equity it was computed with.
        policies: for each input, how its value came about; see `riskhub.governor.inputs.Policy`.
        formula_version: which formula.
    """

    symbol: str
    budget_usd: float
    stress_factor: float
    equity_usd: float
    portfolio_heat: float
    cluster_stress: float
    vol_regime: float
    mode: str
    timestamp: int
    base_risk_pct: float
    policies: dict[str, str]
    formula_version: str = FORMULA_VERSION


def stress_factor(
    heat: npt.ArrayLike,
    cluster: npt.ArrayLike,
    vol: npt.ArrayLike,
    parameters: BudgetParameters = DEFAULT_PARAMETERS,
) -> FloatArray:
    """The composite stress of each symbol: ``clamp(0.4 heat + 0.4 cluster + 0.2 vol, 0, 1)``.

    Args:
        heat: portfolio heat, 0 (calm) to 1; a scalar or (symbols,).
        cluster: stress of the symbol's cluster, 0 to 1; a scalar or (symbols,).
        vol: volatility regime, 0 (low) to 1 (extreme); a scalar or (symbols,).
        parameters: the weights.

    Returns:
        Stress in [0, 1], of the broadcast shape.

    Raises:
        ValueError: an input is NaN or infinite, or the shapes don't broadcast.
    """
    return np.clip(
        parameters.heat_weight * _finite("heat", heat)
        + parameters.cluster_weight * _finite("cluster", cluster)
        + parameters.vol_weight * _finite("vol", vol),
        0.0,
        1.0,
    )


def budget_usd(
    equity: float, stress: npt.ArrayLike, parameters: BudgetParameters = DEFAULT_PARAMETERS
) -> FloatArray:
    """The budget of each symbol: ``clamp(equity * 0.02 * (1 - stress), 500, 10000)``.

    Args:
        equity: equity of the whole portfolio, USD, > 0.
        stress: `stress_factor`, a scalar or (symbols,).
        parameters: the base risk and the two bounds.

    Returns:
        USD in [min_usd, max_usd], of the shape of `stress`; never larger for more stress.

    Raises:
        NoBudget: the equity is not finite or <= 0. The lower bound would make a budget of it.
        ValueError: a stress is NaN or infinite.
    """
    if not isfinite(equity):
        raise NoBudget("equity_not_finite", equity)
    if equity <= 0:
        raise NoBudget("equity_not_positive", equity)
    unbounded = equity * parameters.base_risk_pct * (1.0 - _finite("stress", stress))
    return np.clip(unbounded, parameters.min_usd, parameters.max_usd)


def _finite(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array
