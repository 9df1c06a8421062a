"""The gate: may this position be this large? Pure: what is known goes in, the decision comes out.

Fail-open: whoever asks is stopped only by a budget that is there, well-formed and not stale. A
gate that has nothing to go by lets a trade pass and says why.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Literal, get_args

from riskhub.governor.budget import DECIMALS
from riskhub.governor.published import Published

LARGEST_NOTIONAL = 1e15
"""No position is larger; USD. What claims to be is a mistake of whoever asks."""

Unusable = Literal["no_budget", "budget_malformed", "redis_unavailable"]
"""Why there is no budget: none in Redis, one that can't be read, or no Redis."""
Reason = Literal["within_budget", "over_budget", "reduce_only", "budget_stale", Unusable]
FAIL_OPEN: frozenset[str] = frozenset({*get_args(Unusable), "budget_stale"})

_UNIT = Decimal(1).scaleb(-DECIMALS)
_EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)  # of any float that is finite


@dataclass(frozen=True, slots=True)
class Violation:
    """A position that was asked for and is over its budget.

    Attributes:
        position_notional: signed, as it was asked for: negative is short. USD.
        budget_usd: what it was held against.
        over_budget: by how much its absolute value is larger, USD, > 0.
        mode: `shadow`: it was let pass; `enforce`: it was not.
        at: of the check, unix seconds.
    """

    symbol: str
    position_notional: float
    budget_usd: float
    over_budget: float
    mode: str
    at: float

    def event(self) -> dict[str, Any]:
        """As it stands in the stream ``quantum:stream:budget.violation``: in whole seconds."""
        told = asdict(self)
        del told["at"]
        return {"event_type": "budget.violation"} | told | {"timestamp": int(self.at)}

    def row(self) -> dict[str, Any]:
        """As it stands in the table `budget_violations`."""
        return asdict(self) | {"at": datetime.fromtimestamp(self.at, UTC)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the gate says to one position.

    Attributes:
        allowed: whether it may be taken.
        would_block: whether it is over a budget that could be used; in shadow mode it is allowed
            all the same.
        reason: why.
        position_notional: as it was asked for, signed, USD.
        reduce_only: as it was asked for.
        budget_usd: USD; None where there is none that can be read.
        over_budget: by how much the absolute notional exceeds the budget, USD, both rounded; 0
            when it doesn't, None without a budget that holds.
        mode: of the budget; None without one.
        age_sec: of the budget; None without one.
        at: of the check, unix seconds.
    """

    symbol: str
    allowed: bool
    would_block: bool
    reason: Reason
    position_notional: float
    reduce_only: bool
    budget_usd: float | None = None
    over_budget: float | None = None
    mode: str | None = None
    age_sec: float | None = None
    at: float

    @property
    def violation(self) -> Violation | None:
        """What is to be told of it, if it is over its budget."""
        if not self.would_block:
            return None
        assert self.budget_usd is not None and self.over_budget is not None and self.mode  # noqa: S101, PT018
        return Violation(
            self.symbol,
            self.position_notional,
            self.budget_usd,
            self.over_budget,
            self.mode,
            self.at,
        )


def decide(
    symbol: str,
    notional: float,
    budget: Published | Unusable,
    *,
    now: float,
    stale_sec: float,
    reduce_only: bool = False,
) -> Decision:
    """Hold a position against its budget, both rounded to `DECIMALS`, half to even.

    Args:
        symbol: of the position.
        notional: of the position as it would be, USD, finite; of a short it is negative, and its
            absolute value counts.
        budget: of the symbol, or why there is none.
        now: unix seconds.
        stale_sec: a budget of this age is no longer held against anything.
        reduce_only: an order that can only make a position smaller is never stopped: who is over
            a budget must be able to come back.

    Returns:
        Not allowed only if a budget of mode `enforce` that is younger than `stale_sec` is exceeded.
    """
    if isinstance(budget, str):
        reason: Reason = "reduce_only" if reduce_only else budget
        return Decision(
            symbol=symbol,
            allowed=True,
            would_block=False,
            reason=reason,
            position_notional=notional,
            reduce_only=reduce_only,
            at=now,
        )
    age = budget.age_sec(now)
    over: float | None = _over(abs(notional), budget.budget_usd)
    would_block = False
    if reduce_only:
        reason = "reduce_only"
    elif age >= stale_sec:
        reason, over = "budget_stale", None
    elif over:
        reason, would_block = "over_budget", True
    else:
        reason = "within_budget"
    return Decision(
        symbol=symbol,
        allowed=not (would_block and budget.mode == "enforce"),
        would_block=would_block,
        reason=reason,
        position_notional=notional,
        reduce_only=reduce_only,
        budget_usd=budget.budget_usd,
        over_budget=over,
        mode=budget.mode,
        age_sec=age,
        at=now,
    )


def _over(notional: float, budget_usd: float) -> float:
    """By how much; to the resolution of budgets, so that binary fractions decide nothing."""
    asked, held = (
        _EXACT.quantize(Decimal(repr(float(usd))), _UNIT) for usd in (notional, budget_usd)
    )
    return float(max(_EXACT.subtract(asked, held), Decimal(0)))
