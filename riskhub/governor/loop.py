"""The governor as a process: a cycle on every beat while it holds the lease, standing by otherwise.

What can be expected to fail (Redis, the database, a lease that went to another) is told, counted
and tried again; nothing of it ends the loop. Told is what changed, not each beat.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import redis

from riskhub.errors import RiskHubError
from riskhub.governor.counters import REDIS_WRITE_FAIL, Tally, add
from riskhub.governor.cycle import BudgetCycle
from riskhub.governor.history import History, Record, receipt
from riskhub.governor.lease import Lease, LeaseLost

LOOK_SEC = 1.0
"""How soon who does not write looks again. When the writer dies, budgets are then at most as old as
the lease, one look and a cycle: under 15 s by default."""

_NAMED = 20
# A wait that ends a little early has waited for its beat, and not for one before it.
_EARLY_SEC = 0.1

_logger = logging.getLogger(__name__)

Clock = Callable[[], float]


class Tell(Protocol):
    """Takes a line for the log: what happened, and its figures."""

    def __call__(self, event: str, **fields: object) -> None:
        """Tell it."""


class Governor:
    """One process's part in governing. For one thread."""

    def __init__(
        self,
        lease: Lease,
        cycle: Callable[[float], BudgetCycle],
        history: History,
        *,
        clock: Clock,
        tell: Tell,
    ) -> None:
        """Write nothing yet.

        Args:
            lease: the right to write.
            cycle: computes and writes the budgets of an instant (unix seconds) under the lease.
            history: keeps what it came to.
            clock: unix seconds.
            tell: is told what changed.
        """
        self._lease = lease
        self._cycle = cycle
        self._history = history
        self._clock = clock
        self._tell = tell
        self._tally = Tally()
        self._told: object = None
        self._failure: str | None = None
        self._failures = 0
        self._wrote = False

    def beat(self) -> bool:
        """Take or keep the lease, and with it compute and write; whether that came about."""
        self._wrote = False
        try:
            if not self._lease.take():
                self._recovered()
                self._stands_by(self._lease.holder())
                return False
            now = self._clock()
            cycle = self._cycle(now)
            self._bring_counts()
            self._recovered()
            self._writes(cycle)
            self._history.offer(cycle, writer=self._lease.owner, now=now)
            self._wrote = True
            return True
        except redis.RedisError as error:
            self._tally.count(REDIS_WRITE_FAIL)
            self._failed(error)
        except (RiskHubError, OSError) as error:
            self._failed(error)
        except Exception as error:
            if self._failed(error):
                _logger.exception("a cycle of the governor failed")
            self.release()  # another process may do better
        return False

    def leave(self) -> None:
        """Let another write, once ours are as young as can be: it may have to be started first."""
        if self._wrote:
            self.beat()
        self.release()

    def release(self) -> None:
        """Let another write at once; when Redis is away, the lease runs out by itself."""
        with suppress(redis.RedisError):
            self._lease.release()

    def _bring_counts(self) -> None:
        if not self._tally:
            return
        taken = self._tally.take()
        try:
            with self._lease.transaction() as transaction:
                add(transaction, taken)
        except (redis.RedisError, LeaseLost):
            self._tally.give_back(taken)
            raise

    def _writes(self, cycle: BudgetCycle) -> None:
        inputs, counts = cycle.inputs, _policies(cycle)
        refused = inputs.refused if inputs else ()
        # Which policies there are, not of how many symbols: of thousands that changes every time.
        found = {name: set(of_input) for name, of_input in counts.items()}
        if (state := (cycle.no_budget_reason, found, refused)) == self._told:
            return
        self._told = state
        policies = {name: _as_text(of_input) for name, of_input in counts.items()}
        if refused:
            policies["refused_symbols"] = " ".join(refused[:_NAMED])
        portfolio = inputs.portfolio if inputs else None
        figures: dict[str, object] = {
            "symbols": len(cycle.budgets),
            "total_usd": round(sum(budget.budget_usd for budget in cycle.budgets), 2),
            "equity_usd": portfolio.value.equity_usd if portfolio and portfolio.value else None,
            "portfolio_age_sec": _rounded(portfolio.age_sec if portfolio else None),
        }
        if cycle.no_budget_reason is None:
            self._tell("budgets", **figures, **policies)
        else:
            self._tell("no budgets", reason=cycle.no_budget_reason, **policies)

    def _stands_by(self, holder: str | None) -> None:
        if (state := ("stands by", holder)) != self._told:
            self._told = state
            self._tell("stands by", writer=holder)

    def _failed(self, error: Exception) -> bool:
        """Count it, and tell it when the one before was another; whether it was told."""
        self._failures += 1
        name = type(error).__name__
        if name == self._failure:
            return False
        self._failure = name
        self._tell("failed", error=name, why=str(error), again_in_sec=LOOK_SEC)
        return True

    def _recovered(self) -> None:
        if self._failures:
            self._tell("recovered", failures=self._failures)
        self._failure, self._failures = None, 0


def once(
    lease: Lease,
    cycle: Callable[[float], BudgetCycle],
    record: Record,
    *,
    mode: str,
    now: float,
) -> BudgetCycle | None:
    """One cycle under the lease, which is then given back; it is kept whole in the history.

    One that Redis did not take is counted, if it takes as much as that.

    Args:
        lease: the right to write.
        cycle: as of `Governor`.
        record: keeps it.
        mode: of the settings.
        now: unix seconds.

    Returns:
        The cycle; None when another holds the lease, or took it in the middle.

    Raises:
        redis.RedisError: Redis is out of reach, or did not take a write.
        StoreUnavailable: the budgets are written, and not on record.
    """
    if not lease.take():
        return None
    try:
        computed = cycle(now)
    except LeaseLost:
        return None
    except redis.RedisError:
        with suppress(redis.RedisError, LeaseLost), lease.transaction() as transaction:
            add(transaction, {REDIS_WRITE_FAIL: 1})
        raise
    finally:
        with suppress(redis.RedisError):
            lease.release()
    record(*receipt(computed, writer=lease.owner, mode=mode, now=now))
    return computed


def run(
    beat: Callable[[], bool],
    *,
    interval_sec: float,
    monotonic: Clock,
    wait: Callable[[float], bool],
) -> None:
    """Beat until told to stop, every `interval_sec` counted from the first.

    A beat that took longer makes those that it missed fall away. After one that did not write the
    next comes in `LOOK_SEC`, if that is sooner.

    Args:
        beat: `Governor.beat`.
        interval_sec: > 0.
        monotonic: seconds that never go back.
        wait: waits so many seconds or until told to stop; gives whether it was told:
            `threading.Event.wait`.
    """
    due = monotonic()
    while True:
        writes = beat()
        now = monotonic()
        while due <= now + _EARLY_SEC:
            due += interval_sec
        if wait(due - now if writes else min(due - now, LOOK_SEC)):
            return


def _policies(cycle: BudgetCycle) -> dict[str, Counter[str]]:
    """By input: of how many symbols it came about how; without budgets, what was asked first."""
    if not cycle.budgets and cycle.inputs is not None:
        inputs = cycle.inputs
        return {
            "portfolio_state": Counter([inputs.portfolio.policy]),
            "portfolio_heat": Counter([inputs.heat.policy]),
        }
    counts: dict[str, Counter[str]] = {}
    for budget in cycle.budgets:
        for name, policy in budget.policies.items():
            counts.setdefault(name, Counter())[policy] += 1
    return counts


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _as_text(policies: Counter[str]) -> str:
    """``fresh`` where all are, else as in ``fresh:18 held:2``."""
    if len(policies) == 1:
        return next(iter(policies))
    return " ".join(f"{policy}:{count}" for policy, count in sorted(policies.items()))
