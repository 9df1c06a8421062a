"""The budget formula, and what a budget is.

    stress = clamp(0.4 heat + 0.4 cluster + 0.2 vol, 0, 1)
    budget = clamp(equity * 0.02 * (1 - stress) * (1 - haircut), 500, 10000)

The haircut is 0 unless the settings ask for one. Pure: no clock, no network, no settings. The
formula is that of the deployed portfolio risk governor (P2.8); its constants are
`BudgetParameters`.
"""

from dataclasses import dataclass, field, fields
from math import isfinite

import numpy as np
import numpy.typing as npt

from riskhub.errors import RiskHubError

FORMULA_VERSION = "p28/2"
"""Changes whenever the same inputs and parameters would give another budget.

1: the formula. 2: rounded to `DECIMALS`, with a haircut where one is asked for.
"""

DECIMALS = 6
"""Of a budget in USD. In binary 2,000 * (1 - 0.066) is 1867.9999999999998, and a position of
exactly 1,868.00 would be over it."""

CONTRIBUTION_FLOOR = 0.25
"""A symbol keeps this part of its budget, however much of the expected shortfall it carries."""

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
        for one in fields(self):
            value = getattr(self, one.name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"{one.name} must be finite and not negative, not {value}")
        if self.min_usd > self.max_usd:
            raise ValueError(f"min_usd {self.min_usd} exceeds max_usd {self.max_usd}")


DEFAULT_PARAMETERS = BudgetParameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolBudget:
    """What one symbol may risk, with everything it was computed from.

    Attributes:
        symbol: as in the key of its position; of a cluster's budget its id.
        budget_usd: the budget, USD, >= 0.
        stress_factor: 0 (calm) to 1.
        equity_usd: equity of the whole portfolio, USD.
        portfolio_heat: 0 to 1, as used.
        cluster_stress: 0 to 1, as used.
        vol_regime: 0 (low) to 1 (extreme), as used; of a cluster the highest of its symbols.
        mode: `shadow` or `enforce`.
        timestamp: when it was computed, unix seconds.
        base_risk_pct: the share of the equity it was computed with.
        policies: for each input, how its value came about; see `riskhub.governor.inputs.Policy`.
        ages: for each of these inputs, how old its value was, seconds: `Input.age_sec`.
        formula_version: which formula.
        portfolio_age_sec: how old the portfolio state was, seconds.
        haircut: the part, 0 to 1, that was taken off before the bounds: for the age of the
            portfolio state, its drawdown and the symbol's contribution together.
        share: the symbol's share of the world's expected shortfall, as used; None where budgets
            don't go by contribution, or the world has none of this symbol.
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
    ages: dict[str, float | None] = field(default_factory=dict)
    formula_version: str = FORMULA_VERSION
    portfolio_age_sec: float | None = None
    haircut: float = 0.0
    share: float | None = None


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
    equity: float,
    stress: npt.ArrayLike,
    parameters: BudgetParameters = DEFAULT_PARAMETERS,
    haircut: npt.ArrayLike = 0.0,
) -> FloatArray:
    """``clamp(equity * 0.02 * (1 - stress) * (1 - haircut), 500, 10000)``, of each symbol.

    Args:
        equity: equity of the whole portfolio, USD, > 0.
        stress: `stress_factor`, a scalar or (symbols,).
        parameters: the base risk and the two bounds.
        haircut: the part that is taken off before the bounds, 0 to 1; a scalar or (symbols,).

    Returns:
        USD in [min_usd, max_usd], rounded to `DECIMALS`, of the broadcast shape; never larger for
        more stress or haircut, or less equity.

    Raises:
        NoBudget: the equity is not finite or <= 0. The lower bound would make a budget of it.
        ValueError: a stress or haircut is NaN or infinite.
    """
    if not isfinite(equity):
        raise NoBudget("equity_not_finite", equity)
    if equity <= 0:
        raise NoBudget("equity_not_positive", equity)
    kept = (1.0 - _finite("stress", stress)) * (1.0 - _finite("haircut", haircut))
    bounds = (parameters.min_usd, parameters.max_usd)
    with np.errstate(over="ignore"):  # of an equity that no portfolio has; max_usd bounds it
        rounded = np.round(np.clip(equity * parameters.base_risk_pct * kept, *bounds), DECIMALS)
    return np.clip(rounded, *bounds)


def contribution_haircut(shares: npt.ArrayLike, count: int) -> FloatArray:
    """What a symbol that carries more than its part loses: ``1 - clamp(1 / (n share), 0.25, 1)``.

    With a part of 1/n of the expected shortfall, or less, it loses nothing; with k times that part
    it keeps 1/k.

    Args:
        shares: of the world's expected shortfall, by symbol; of a hedge negative. A scalar or
            (symbols,).
        count: n, of the symbols in the world, > 0.

    Returns:
        The haircut in [0, 0.75], of the shape of `shares`.

    Raises:
        ValueError: a share is NaN or infinite.
    """
    times = np.maximum(count * _finite("shares", shares), 1.0)
    return 1.0 - np.maximum(1.0 / times, CONTRIBUTION_FLOOR)


def _finite(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array
