"""What the governor and the gate count, where all of them can add to it: one Redis hash.

A run of Dagster lives for seconds, the loop may move to another machine, and the API has several
workers: a counter in one process's memory would be wrong in each. A field of the hash is the name
of a metric, with the value of its label behind a bar: ``p28_stale_input_total|portfolio_state``.
The API's `/metrics` shows the hash; whoever counts adds to it in a pipeline that it sends anyway,
or keeps a `Tally` that is brought over now and then.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from riskhub.governor.budget import SymbolBudget

COUNTERS_KEY = "riskhub:governor:counters"

CYCLES = "p28_cycles_total"
BUDGET_COMPUTED = "p28_budget_computed_total"
LKG_CACHE_USED = "p28_lkg_cache_used_total"
PORTFOLIO_TOO_OLD = "p28_portfolio_too_old_total"
REDIS_WRITE_FAIL = "p28_redis_write_fail_total"
BUDGET_BLOCKS = "p28_budget_blocks_total"
BUDGET_ALLOW = "p28_budget_allow_total"
BUDGET_VIOLATIONS = "p28_budget_violations_total"
VIOLATION_ROWS_LOST = "p28_violation_rows_lost_total"


def stale_input(input_type: str) -> str:
    """The field that counts an input which was not fresh; `input_type` as in a budget's policies.

    One for each budget that was, or would have been, made of it.
    """
    return f"p28_stale_input_total|{input_type}"


def fail_open(reason: str) -> str:
    """The field that counts checks which were let through because there was no budget to ask."""
    return f"p28_budget_fail_open_total|{reason}"


@dataclass(frozen=True, slots=True)
class Described:
    """A counter as the page has it: what it is, its label, and which values the label always has.

    A counter that is there at 0 before it counts for the first time can be alerted on.
    """

    about: str
    label: str | None = None
    always: tuple[str, ...] = ()


DESCRIBED: Mapping[str, Described] = {
    CYCLES: Described("Cycles of the governor, also those that came to no budget."),
    BUDGET_COMPUTED: Described("Symbol budgets that were computed and written."),
    LKG_CACHE_USED: Described("Symbol budgets made of the last known good portfolio state."),
    PORTFOLIO_TOO_OLD: Described(
        "Symbols left without a budget because the portfolio state was too old."
    ),
    "p28_stale_input_total": Described(
        "Symbol budgets that were, or would have been, made of an input that was not fresh.",
        "input_type",
        ("portfolio_state", "portfolio_heat", "cluster_stress", "vol_regime"),
    ),
    REDIS_WRITE_FAIL: Described("Writes of budgets, events or counts that Redis did not take."),
    BUDGET_BLOCKS: Described("Checks answered with: not allowed."),
    BUDGET_ALLOW: Described("Checks answered with: allowed."),
    BUDGET_VIOLATIONS: Described("Checked positions over their budget, blocked or not."),
    "p28_budget_fail_open_total": Described(
        "Checks allowed because there was no budget to hold them against.",
        "reason",
        ("no_budget", "budget_stale", "budget_malformed", "redis_unavailable"),
    ),
    VIOLATION_ROWS_LOST: Described(
        "Violations that the database did not take; the stream and the log have them."
    ),
}
"""Every counter there is."""

_UP_TO_DATE = frozenset({"fresh", "not_configured"})


def counts_of_cycle(
    budgets: Sequence[SymbolBudget], *, portfolio_policy: str, symbols: int
) -> dict[str, int]:
    """What one cycle adds, by field. The portfolio counts once for each symbol, as all inputs do.

    Args:
        budgets: of symbols, not of clusters; empty when the cycle came to none.
        portfolio_policy: how the portfolio state came about.
        symbols: how many were active.
    """
    counts: Counter[str] = Counter({CYCLES: 1, BUDGET_COMPUTED: len(budgets)})
    if portfolio_policy == "last_known_good":
        counts[LKG_CACHE_USED] = len(budgets)
    elif portfolio_policy == "too_old":
        counts[PORTFOLIO_TOO_OLD] = symbols
    if portfolio_policy != "fresh":
        counts[stale_input("portfolio_state")] = symbols
    for budget in budgets:
        for input_type, policy in budget.policies.items():
            if input_type != "portfolio_state" and policy not in _UP_TO_DATE:
                counts[stale_input(input_type)] += 1
    return +counts


class _Commands(Protocol):
    def hincrby(self, name: str, key: str, amount: int = 1) -> Any: ...


def add(pipeline: _Commands, counts: Mapping[str, int]) -> None:
    """Add to counters, by field, within a pipeline that somebody else sends."""
    for field, count in counts.items():
        if count:
            pipeline.hincrby(COUNTERS_KEY, field, count)


class Tally:
    """What a process has counted and not yet brought to Redis. Any thread may count."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Tally({dict(self._counts)})"

    def __bool__(self) -> bool:
        return bool(self._counts)

    def count(self, field: str, by: int = 1) -> None:
        """Add to one counter."""
        with self._lock:
            self._counts[field] += by

    def take(self) -> Mapping[str, int]:
        """All of it, to be brought to Redis; what can't be is given back by `give_back`."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken

    def give_back(self, taken: Mapping[str, int]) -> None:
        """Keep what Redis did not take."""
        with self._lock:
            self._counts.update(taken)


def read_counts(fields: Mapping[str, str]) -> Iterable[tuple[str, str | None, int]]:
    """Name, label value and count of every counter, also of one that has not counted yet.

    Args:
        fields: of the hash, as HGETALL gives them; one that is none of ours is left out.
    """
    counts: dict[tuple[str, str | None], int] = {
        (name, value): 0
        for name, described in DESCRIBED.items()
        for value in (described.always if described.label else (None,))
    }
    for field, text in fields.items():
        name, bar, value = field.partition("|")
        described = DESCRIBED.get(name)
        if described is not None and bool(bar) == bool(described.label) and text.isdecimal():
            counts[name, value if bar else None] = int(text)
    return ((name, value, count) for (name, value), count in counts.items())
