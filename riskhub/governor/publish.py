"""Writing budgets to Redis, where their consumers look for them."""

from collections.abc import Sequence

import redis

from riskhub.governor.budget import SymbolBudget

BUDGET_PREFIX = "quantum:portfolio:budget:"
FIELDS = (
    "symbol",
    "budget_usd",
    "stress_factor",
    "equity_usd",
    "portfolio_heat",
    "cluster_stress",
    "vol_regime",
    "mode",
    "timestamp",
    "base_risk_pct",
)
"""The fields of a budget hash, all of them."""

# Redis serves nobody else during an EXEC, so a transaction must stay short.
_BUDGETS_PER_TRANSACTION = 500


def publish(redis: redis.Redis, budgets: Sequence[SymbolBudget], *, ttl_sec: int) -> None:
    """Write each budget as hash ``quantum:portfolio:budget:{symbol}``, replacing what was there.

    A reader sees the old hash or the new one with its time to live, never half of either: 500
    budgets are one transaction and one round trip.

    Args:
        redis: where to.
        budgets: in any order; an empty sequence writes nothing.
        ttl_sec: how long each lives, seconds.

    Raises:
        redis.RedisError: a write failed. The transactions before it stand, the later ones were
            not tried; writing the same budgets again is safe.
    """
    for start in range(0, len(budgets), _BUDGETS_PER_TRANSACTION):
        transaction = redis.pipeline(transaction=True)
        for budget in budgets[start : start + _BUDGETS_PER_TRANSACTION]:
            key = BUDGET_PREFIX + budget.symbol
            transaction.delete(key)
            transaction.hset(key, mapping={field: getattr(budget, field) for field in FIELDS})
            transaction.expire(key, ttl_sec)
        transaction.execute()
