"""One cycle of the governor: read, compute, publish."""

from dataclasses import dataclass

import httpx
import redis

from riskhub.governor.budget import NoBudget, SymbolBudget, budget_usd, stress_factor
from riskhub.governor.inputs import GovernorInputs, read_inputs
from riskhub.governor.publish import publish
from riskhub.governor.settings import GovernorSettings


@dataclass(frozen=True, slots=True)
class BudgetCycle:
    """What one cycle came to: budgets, or the reason why there are none. Never both, never neither.

    Reasons: `no_positions`; `portfolio_stale`, `portfolio_missing`, `portfolio_malformed`,
    `portfolio_out_of_range`; and those of `NoBudget`.
    """

    budgets: tuple[SymbolBudget, ...] = ()
    no_budget_reason: str | None = None


def compute_budgets(inputs: GovernorInputs, settings: GovernorSettings, now: float) -> BudgetCycle:
    """The budget of each symbol, from inputs already judged. Pure.

    Args:
        inputs: of this cycle.
        settings: mode, clusters and the parameters of the formula.
        now: unix seconds, which each budget carries as whole seconds.
    """
    portfolio, symbols = inputs.portfolio, inputs.symbols
    if portfolio.value is None or portfolio.policy != "fresh":
        return BudgetCycle(no_budget_reason=f"portfolio_{portfolio.policy}")
    if not symbols:
        return BudgetCycle(no_budget_reason="no_positions")

    equity = portfolio.value.equity_usd
    clusters = [inputs.clusters[settings.cluster_of(symbol)] for symbol in symbols]
    regimes = [inputs.regimes[symbol] for symbol in symbols]
    parameters = settings.parameters
    stress = stress_factor(
        inputs.heat.value,
        [cluster.value for cluster in clusters],
        [regime.value for regime in regimes],
        parameters,
    )
    try:
        budgets = budget_usd(equity, stress, parameters)
    except NoBudget as no_budget:
        return BudgetCycle(no_budget_reason=no_budget.reason)

    return BudgetCycle(
        tuple(
            SymbolBudget(
                symbol=symbol,
                budget_usd=usd,
                stress_factor=factor,
                equity_usd=equity,
                portfolio_heat=inputs.heat.value,
                cluster_stress=cluster.value,
                vol_regime=regime.value,
                mode=settings.mode,
                timestamp=int(now),
                base_risk_pct=parameters.base_risk_pct,
                policies={
                    "portfolio_state": portfolio.policy,
                    "portfolio_heat": inputs.heat.policy,
                    "cluster_stress": cluster.policy,
                    "vol_regime": regime.policy,
                },
            )
            for symbol, usd, factor, cluster, regime in zip(
                symbols, budgets.tolist(), stress.tolist(), clusters, regimes, strict=True
            )
        )
    )


def run_cycle(
    redis: redis.Redis, settings: GovernorSettings, now: float, http: httpx.Client | None = None
) -> BudgetCycle:
    """Read the inputs, compute the budgets, write them, and say what was written.

    Without budgets nothing is written: those of earlier cycles live out their time to live, and
    then consumers find none and let trades pass (fail-open).

    Args:
        redis: where the inputs are and the budgets go.
        settings: of the governor.
        now: unix seconds.
        http: what the heat page is fetched with; None opens a connection for this call.

    Raises:
        redis.RedisError: Redis is out of reach, or a write failed.
    """
    cycle = compute_budgets(
        read_inputs(redis, now=now, settings=settings, http=http), settings, now
    )
    publish(redis, cycle.budgets, ttl_sec=settings.budget_ttl_sec)
    return cycle
