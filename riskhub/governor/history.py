"""What is kept of the governor's cycles: each as a receipt, and how often.

Ten thousand symbols every ten seconds would drown the table. So a whole cycle is kept every
`history_sec`, and whenever something about all symbols changes (the reason why there are no
budgets, a policy of the portfolio); between these, of a cycle only the symbols whose policies
changed. A cycle that differs in numbers or ages alone is not kept.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from riskhub.governor.budget import FORMULA_VERSION, SymbolBudget
from riskhub.governor.cycle import BudgetCycle

# A beat that comes a moment before a cycle is due has come for it.
_EARLY_SEC = 0.5

Row = dict[str, Any]
Record = Callable[[Row, Sequence[Row]], None]
"""Takes a row of `budget_cycles` and its rows of `symbol_budgets`: `Store.add_cycle`."""


def receipt(
    cycle: BudgetCycle,
    *,
    writer: str,
    mode: str,
    now: float,
    symbols: Sequence[SymbolBudget] | None = None,
) -> tuple[Row, list[Row]]:
    """A cycle as the rows of `budget_cycles` and `symbol_budgets`. Pure.

    Args:
        cycle: with its inputs.
        writer: who wrote its budgets.
        mode: of the settings; a cycle without budgets says none.
        now: when it was computed, unix seconds.
        symbols: only these of its budgets; None is all, and makes it complete.
    """
    at = datetime.fromtimestamp(now, UTC)
    inputs = cycle.inputs
    portfolio = inputs.portfolio if inputs else None
    state = portfolio.value if portfolio else None
    row = {
        "computed_at": at,
        "writer": writer,
        "no_budget_reason": cycle.no_budget_reason,
        "symbols": len(cycle.budgets),
        "complete": symbols is None,
        "equity_usd": state.equity_usd if state else None,
        "portfolio_policy": portfolio.policy if portfolio else "missing",
        "portfolio_age_sec": portfolio.age_sec if portfolio else None,
        "heat": inputs.heat.value if inputs else None,
        "heat_policy": inputs.heat.policy if inputs else None,
        "heat_age_sec": inputs.heat.age_sec if inputs else None,
        "mode": mode,
        "formula_version": FORMULA_VERSION,
    }
    kept = cycle.budgets if symbols is None else symbols
    return row, [_budget_row(budget, at) for budget in kept]


class History:
    """Keeps one process's cycles, aside of its beats: a busy database must not delay a budget.

    While one is being written the next ones are not kept; what has changed meanwhile is seen by the
    first after it. One that could not be written is lost, and the next one is then kept whole. Told
    is the first that is lost, and how many were when there is one that is not.
    """

    def __init__(
        self,
        record: Record,
        *,
        mode: str,
        every_sec: float,
        aside: Executor,
        monotonic: Callable[[], float],
        failed: Callable[[Exception], None],
        back: Callable[[int], None],
    ) -> None:
        """Keep nothing yet.

        Args:
            record: writes it.
            mode: of the settings.
            every_sec: whole cycles are so far apart, if nothing about all symbols changes.
            aside: where it is written.
            monotonic: seconds that never go back.
            failed: told why one was lost, unless that is why the one before it was.
            back: told how many were lost, when one is written again.
        """
        self._record = record
        self._mode = mode
        self._every_sec = every_sec
        self._aside = aside
        self._monotonic = monotonic
        self._failed = failed
        self._back = back
        self._failure: str | None = None
        self._lost = 0
        self._writing: Future[None] | None = None
        self._about_all: object = None
        self._policies: Mapping[str, Mapping[str, str]] = {}
        self._whole_at: float | None = None

    def offer(self, cycle: BudgetCycle, *, writer: str, now: float) -> None:
        """Keep a cycle if it is due or differs; see the head of this module.

        Args:
            cycle: the newest.
            writer: who wrote its budgets.
            now: when it was computed, unix seconds.
        """
        if not self._is_free():
            return
        monotonic = self._monotonic()
        about_all = _about_all(cycle)
        policies = {budget.symbol: budget.policies for budget in cycle.budgets}
        changed: list[SymbolBudget] | None = None  # all
        if (
            self._whole_at is not None
            and monotonic - self._whole_at < self._every_sec - _EARLY_SEC
            and about_all == self._about_all
        ):
            changed = [
                budget
                for budget in cycle.budgets
                if budget.policies != self._policies.get(budget.symbol)
            ]
            if not changed:
                return
        else:
            self._whole_at = monotonic
        self._about_all, self._policies = about_all, policies
        rows = receipt(cycle, writer=writer, mode=self._mode, now=now, symbols=changed)
        self._writing = self._aside.submit(self._record, *rows)

    def close(self) -> None:
        """Wait for the one that is being written."""
        if self._writing is not None:
            wait([self._writing])
            self._is_free()

    def _is_free(self) -> bool:
        """Whether the last one is written, or lost."""
        if self._writing is None:
            return True
        if not self._writing.done():
            return False
        error = self._writing.exception()
        self._writing = None
        if error is None:
            if self._lost:
                self._back(self._lost)
            self._failure, self._lost = None, 0
            return True
        if not isinstance(error, Exception):
            raise error
        self._whole_at = None
        self._lost += 1
        if (name := type(error).__name__) != self._failure:
            self._failure = name
            self._failed(error)
        return True


def _about_all(cycle: BudgetCycle) -> object:
    inputs = cycle.inputs
    policies = (inputs.portfolio.policy, inputs.heat.policy) if inputs else None
    return cycle.no_budget_reason, policies


def _budget_row(budget: SymbolBudget, at: datetime) -> Row:
    row = asdict(budget)
    del row["timestamp"]  # whole seconds, for consumers; the history has the instant
    return row | {"computed_at": at}
