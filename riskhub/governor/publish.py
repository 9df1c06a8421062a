"""Writing what a cycle came to: budgets for their consumers, and what the governor remembers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from redis import Redis, RedisError
from redis.client import Pipeline

from riskhub.errors import RiskHubError
from riskhub.governor import counters
from riskhub.governor.budget import SymbolBudget
from riskhub.governor.inputs import CLUSTER_MARK, MEMORY_KEY
from riskhub.governor.memory import Known, written

BUDGET_PREFIX = "quantum:portfolio:budget:"
CLUSTER_BUDGET_PREFIX = BUDGET_PREFIX + CLUSTER_MARK
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


class Writer(Protocol):
    """Whoever may write budgets now: `riskhub.governor.lease.Lease`."""

    owner: str

    def transaction(self) -> AbstractContextManager[Pipeline]:
        """A transaction that is executed when the block ends, if its owner still may."""


class PublishFailed(RiskHubError, RedisError):
    """Redis did not take a write; the text says of what. Writing the same again is safe."""


def publish(
    redis: Redis,
    budgets: Sequence[SymbolBudget],
    *,
    ttl_sec: int,
    cluster_budgets: Sequence[SymbolBudget] = (),
    memory: Mapping[str, Known | None] | None = None,
    counts: Mapping[str, int] | None = None,
    lease: Writer | None = None,
) -> None:
    """Write each budget as hash ``quantum:portfolio:budget:{symbol}``, replacing what was there.

    All of it is one transaction: a reader sees the old hash or the new one with its time to live,
    never half of either, and no budget is there whose inputs could be forgotten. So the round trips
    don't grow with the symbols; the time that Redis has for nobody else does (7 ms for 1,000).
    Nothing else is removed: other budgets live out their time.

    Args:
        redis: where to; not used with a `lease`, which has its own.
        budgets: of symbols, in any order.
        ttl_sec: how long each lives, seconds.
        cluster_budgets: of clusters, as ``quantum:portfolio:budget:cluster:{id}``.
        memory: what changes of it; None is to be forgotten.
        counts: to add to the counters, by field.
        lease: who writes; the transaction is refused once it is another's. None asks nobody.

    Raises:
        PublishFailed: nothing was written, or the answer was lost and all may be. Only where a key
            of our own is another's, of another type, is the rest written.
        LeaseLost: the lease is another's; as above, without being a failure.
    """
    keyed = [(BUDGET_PREFIX + budget.symbol, budget) for budget in budgets]
    keyed += [(CLUSTER_BUDGET_PREFIX + budget.symbol, budget) for budget in cluster_budgets]
    try:
        with lease.transaction() if lease else _plain_transaction(redis) as transaction:
            # Also without budgets there is something to remember and to count.
            _remember(transaction, memory or {})
            _write(transaction, keyed, ttl_sec)
            counters.add(transaction, counts or {})
    except RedisError as error:
        what = f"{len(keyed)} budgets" if keyed else "what the governor remembers and counts"
        raise PublishFailed(f"writing {what} failed: {error or type(error).__name__}") from error


@contextmanager
def _plain_transaction(redis: Redis) -> Iterator[Pipeline]:
    with redis.pipeline(transaction=True) as transaction:
        yield transaction
        transaction.execute()


def _remember(transaction: Pipeline, memory: Mapping[str, Known | None]) -> None:
    kept: dict[Any, Any] = {
        name: written(known) for name, known in memory.items() if known is not None
    }
    if kept:
        transaction.hset(MEMORY_KEY, mapping=kept)
    if forgotten := [name for name, known in memory.items() if known is None]:
        transaction.hdel(MEMORY_KEY, *forgotten)


def _write(transaction: Pipeline, keyed: Sequence[tuple[str, SymbolBudget]], ttl_sec: int) -> None:
    if keyed:
        transaction.delete(*(key for key, _ in keyed))
    for key, budget in keyed:
        transaction.hset(key, mapping={name: getattr(budget, name) for name in FIELDS})
        transaction.expire(key, ttl_sec)
