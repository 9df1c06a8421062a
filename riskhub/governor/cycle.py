"""One cycle of the governor: read, judge, recall, compute, publish."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import httpx
import numpy as np
from redis import Redis

from riskhub.governor import counters
from riskhub.governor.budget import (
    FloatArray,
    NoBudget,
    SymbolBudget,
    budget_usd,
    contribution_haircut,
    stress_factor,
)
from riskhub.governor.hub_inputs import with_hub
from riskhub.governor.inputs import GovernorInputs, Input, read_inputs
from riskhub.governor.memory import recall, remembered
from riskhub.governor.publish import Writer, publish
from riskhub.governor.settings import GovernorSettings

if TYPE_CHECKING:  # who only wants settings does not wait for SQLAlchemy
    from riskhub.store import Store


class HasStore(Protocol):
    """A hub, as far as it matters here."""

    @property
    def store(self) -> "Store": ...


@dataclass(frozen=True, slots=True)
class BudgetCycle:
    """What one cycle came to: budgets, or the reason why there are none. Never both, never neither.

    Reasons: `no_positions`; `portfolio_` with a policy: `too_old`, `stale`, `missing`, `malformed`,
    `out_of_range`; and those of `NoBudget`.

    Attributes:
        budgets: of symbols, by symbol.
        no_budget_reason: None when there are budgets.
        cluster_budgets: of the clusters that these symbols are in, by id, which is their `symbol`.
        inputs: as they were used, with what was remembered.
        judged: as they were found, each by itself.
        writer: who wrote them; None when nobody was asked.
    """

    budgets: tuple[SymbolBudget, ...] = ()
    no_budget_reason: str | None = None
    cluster_budgets: tuple[SymbolBudget, ...] = ()
    inputs: GovernorInputs | None = None
    judged: GovernorInputs | None = None
    writer: str | None = None


def compute_budgets(inputs: GovernorInputs, settings: GovernorSettings, now: float) -> BudgetCycle:
    """The budget of each symbol and cluster, from inputs as they are to be used. Pure.

    The stress of a cluster is that of a symbol in it whose volatility is the highest of them; its
    budget is the formula's, without a haircut for contribution.

    Args:
        inputs: of this cycle, recalled.
        settings: mode, clusters, haircuts and the parameters of the formula.
        now: unix seconds, which each budget carries as whole seconds.
    """
    portfolio, symbols = inputs.portfolio, inputs.symbols
    if portfolio.value is None or portfolio.policy not in {"fresh", "last_known_good"}:
        return BudgetCycle(no_budget_reason=f"portfolio_{portfolio.policy}", inputs=inputs)
    if not symbols:
        return BudgetCycle(no_budget_reason="no_positions", inputs=inputs)

    cluster_ids = [settings.cluster_of(symbol) for symbol in symbols]
    worst: dict[str, Input[float]] = {}
    for symbol, cluster_id in zip(symbols, cluster_ids, strict=True):
        regime = inputs.regimes[symbol]
        if cluster_id not in worst or regime.value > worst[cluster_id].value:
            worst[cluster_id] = regime

    by_age_and_drawdown = _portfolio_haircut(inputs, settings)
    shares = [inputs.shares.value.get(symbol) for symbol in symbols]
    by_contribution = contribution_haircut(
        [share or 0.0 for share in shares], max(len(inputs.shares.value), 1)
    )
    try:
        budgets = _budgets(
            symbols,
            cluster_ids,
            [inputs.regimes[symbol] for symbol in symbols],
            1.0 - (1.0 - by_age_and_drawdown) * (1.0 - by_contribution),
            inputs=inputs,
            settings=settings,
            now=now,
        )
        clusters = sorted(worst)
        cluster_budgets = _budgets(
            clusters,
            clusters,
            [worst[cluster_id] for cluster_id in clusters],
            np.full(len(clusters), by_age_and_drawdown),
            inputs=inputs,
            settings=settings,
            now=now,
        )
    except NoBudget as no_budget:
        return BudgetCycle(no_budget_reason=no_budget.reason, inputs=inputs)
    if inputs.shares.policy != "not_configured":
        budgets = [
            replace(
                budget,
                share=share,
                policies=budget.policies | {"contribution": inputs.shares.policy},
                ages=budget.ages | {"contribution": inputs.shares.age_sec},
            )
            for budget, share in zip(budgets, shares, strict=True)
        ]
    return BudgetCycle(tuple(budgets), None, tuple(cluster_budgets), inputs)


def run_cycle(
    redis: Redis,
    settings: GovernorSettings,
    now: float,
    http: httpx.Client | None = None,
    hub: HasStore | None = None,
    lease: Writer | None = None,
) -> BudgetCycle:
    """Read the inputs, compute the budgets, write them, and say what was written.

    Without budgets none is written: those of earlier cycles live out their time to live, and then
    consumers find none and let trades pass (fail-open).

    Args:
        redis: where the inputs are and the budgets go.
        settings: of the governor.
        now: unix seconds.
        http: what the heat page is fetched with; None opens a connection for this call.
        hub: where heat and shares come from, if the settings name a world.
        lease: who may write; None asks nobody.

    Raises:
        PublishFailed: a write failed; a `redis.RedisError`. To count it is left to the caller, for
            Redis may be away.
        LeaseLost: the lease is another's.
        redis.RedisError: Redis is out of reach.
    """
    read = read_inputs(redis, now=now, settings=settings, http=http)
    judged = with_hub(read.inputs, hub.store if hub else None, settings, now)
    inputs, changes = recall(judged, remembered(read.memory), now, settings)
    cycle = replace(
        compute_budgets(inputs, settings, now), judged=judged, writer=lease.owner if lease else None
    )
    publish(
        redis,
        cycle.budgets,
        ttl_sec=settings.budget_ttl_sec,
        cluster_budgets=cycle.cluster_budgets,
        memory=changes,
        counts=counters.counts_of_cycle(
            cycle.budgets,
            portfolio_policy=inputs.portfolio.policy,
            symbols=len(inputs.symbols),
        ),
        lease=lease,
    )
    return cycle


def _portfolio_haircut(inputs: GovernorInputs, settings: GovernorSettings) -> float:
    """For the age of a portfolio state that is not fresh, and for its drawdown."""
    by_age = 0.0
    if inputs.portfolio.policy == "last_known_good":
        limit = settings.lkg_max_sec
        aged = min(inputs.portfolio.unfresh_sec / limit, 1.0) if limit else 1.0
        by_age = settings.age_haircut * aged
    by_drawdown = settings.drawdown_haircut * inputs.drawdown.value
    return 1.0 - (1.0 - by_age) * (1.0 - by_drawdown)


def _budgets(
    names: Sequence[str],
    cluster_ids: Sequence[str],
    regimes: Sequence[Input[float]],
    haircuts: FloatArray,
    *,
    inputs: GovernorInputs,
    settings: GovernorSettings,
    now: float,
) -> list[SymbolBudget]:
    """The formula, for all at once; the portfolio's value is there."""
    portfolio, parameters = inputs.portfolio, settings.parameters
    assert portfolio.value is not None  # noqa: S101
    equity = portfolio.value.equity_usd
    clusters = [inputs.clusters[cluster_id] for cluster_id in cluster_ids]
    stress = stress_factor(
        inputs.heat.value,
        [cluster.value for cluster in clusters],
        [regime.value for regime in regimes],
        parameters,
    )
    budgets = budget_usd(equity, stress, parameters, haircuts)
    policies = {"portfolio_state": portfolio.policy, "portfolio_heat": inputs.heat.policy}
    ages = {"portfolio_state": portfolio.age_sec, "portfolio_heat": inputs.heat.age_sec}
    if settings.drawdown_haircut:
        policies["drawdown"] = inputs.drawdown.policy
        ages["drawdown"] = inputs.drawdown.age_sec
    return [
        SymbolBudget(
            symbol=name,
            budget_usd=usd,
            stress_factor=factor,
            equity_usd=equity,
            portfolio_heat=inputs.heat.value,
            cluster_stress=cluster.value,
            vol_regime=regime.value,
            mode=settings.mode,
            timestamp=int(now),
            base_risk_pct=parameters.base_risk_pct,
            policies=policies
            | {"cluster_stress": cluster.policy, "vol_regime": regime.policy},
            ages=ages | {"cluster_stress": cluster.age_sec, "vol_regime": regime.age_sec},
            portfolio_age_sec=portfolio.age_sec,
            haircut=haircut,
        )
        for name, usd, factor, haircut, cluster, regime in zip(
            names, budgets.tolist(), stress.tolist(), haircuts.tolist(), clusters, regimes,
            strict=True,
        )
    ]  # fmt: skip
