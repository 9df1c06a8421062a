"""Why a budget is what it is: its formula with the numbers put in, and what would change it.

Pure. What Redis has of a budget now is held against the receipt that the history has of it, which
may be some seconds older: the history is written now and then, and whenever a policy changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from riskhub.governor.budget import BudgetParameters, NoBudget, budget_usd, stress_factor
from riskhub.governor.inputs import CLUSTER_MARK
from riskhub.governor.memory import (
    CLUSTER,
    DRAWDOWN,
    HEAT,
    PORTFOLIO,
    REGIME,
    SHARES,
    Known,
)
from riskhub.governor.published import Published
from riskhub.governor.settings import GovernorSettings

Row = Mapping[str, Any]

POLICIES: Mapping[str, str] = {
    "fresh": "as it was read",
    "stale": "too old to be used",
    "missing": "not there, and never known: the fallback",
    "malformed": "broken: taken as the worst",
    "out_of_range": "outside its range: taken as the worst",
    "not_configured": "nobody said where to look: the fallback",
    "last_known_good": "the last one that was fresh stands in for it",
    "too_old": "last fresh too long ago to stand in",
    "held": "the last value, held",
    "held_careful": "lost for long: the more careful of the last value and the fallback",
}
NO_BUDGET: Mapping[str, str] = {
    "no_positions": "no symbol has a position",
    "portfolio_stale": "the portfolio state is stale, and none was fresh before",
    "portfolio_missing": "there is no portfolio state, and none was ever fresh",
    "portfolio_malformed": "the portfolio state is malformed, and none was fresh before",
    "portfolio_out_of_range": "the equity is not above 0, and none was fresh before",
    "portfolio_too_old": "the portfolio state was last fresh too long ago",
    "equity_not_finite": "the equity is no finite number",
    "equity_not_positive": "the equity is not above 0",
}
_CENT = 0.01
_RECEIPT_SEC = 60.0
"""A receipt that is older than its budget by more, and by three times `history_sec`, is no receipt
of it: policies may have changed meanwhile that nobody stored."""


@dataclass(frozen=True, slots=True)
class Term:
    """One input as the budget used it.

    Attributes:
        name: as in the receipt's policies.
        value: as used; None: the hash does not say. USD for the portfolio state, else 0 to 1.
        policy: how it came about; None without a receipt.
        age_sec: of what is remembered of it: since it was last fresh, as of now; None: unknown.
        used_age_sec: how old it was when it was used, by the receipt; None: unknown.
    """

    name: str
    value: float | None
    policy: str | None
    age_sec: float | None
    used_age_sec: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """What the budget would be if one thing were otherwise."""

    what: str
    budget_usd: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say of one budget.

    Attributes:
        budget: as it stands in Redis; None when there is none that can be read.
        why_none: why there is none.
        usable: whether the gate would hold it against a position now.
        terms: the inputs.
        stress: 0 to 1, from the inputs; None where one is not known.
        unbounded_usd: of the formula, before its bounds.
        bound: `min_usd` or `max_usd`, when the budget is that bound.
        haircut: the part that was taken off, by the receipt; None without one.
        share: of the expected shortfall, by the receipt.
        receipt_age_sec: how much older than the budget its receipt is; None without one.
        wrote: who wrote the receipt's cycle.
        writes: who has the lease now; None: nobody writes budgets.
        differs: how the formula comes to something else with these settings; None: it does not.
        changes: what would change it; none when the formula `differs`.
        remarks: what else to know, in sentences.
    """

    symbol: str
    budget: Published | None
    why_none: str | None
    age_sec: float | None
    usable: bool
    terms: tuple[Term, ...] = ()
    stress: float | None = None
    unbounded_usd: float | None = None
    bound: str | None = None
    haircut: float | None = None
    share: float | None = None
    formula_version: str | None = None
    receipt_age_sec: float | None = None
    wrote: str | None = None
    writes: str | None = None
    differs: str | None = None
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an explanation is made from.

    Attributes:
        budget: as it stands in Redis, or why there is none: `no_budget` or `budget_malformed`.
        receipt: the newest of the symbol in the history, with `writer`.
        cycle: the newest in the history.
        known: what the governor remembers, by name.
        writer: who has the lease now.
        has_position: whether a position's key is there.
    """

    budget: Published | str
    receipt: Row | None
    cycle: Row | None
    known: Mapping[str, Known]
    writer: str | None
    has_position: bool


def explain(symbol: str, found: Evidence, settings: GovernorSettings, now: float) -> Explanation:
    """Explain one budget, or why there is none.

    Args:
        symbol: or ``cluster:{id}``.
        found: of it.
        settings: the weights and bounds of the formula; those of the writer, if all is well.
        now: unix seconds.
    """
    if isinstance(found.budget, str):
        return Explanation(
            symbol,
            None,
            _why_none(symbol, found),
            None,
            usable=False,
            writes=found.writer,
            remarks=tuple(_remarks(None, found, settings, now)),
        )
    budget, receipt = found.budget, found.receipt
    age, older = budget.age_sec(now), _older(found.budget, receipt)
    if older is not None and older > max(3 * settings.history_sec, _RECEIPT_SEC):
        found, receipt = replace(found, receipt=None), None
    haircut = float(receipt["haircut"] or 0.0) if receipt else None
    formula = _Formula.of(budget, settings.parameters, haircut or 0.0)
    differs = _differs(budget, receipt, formula)
    return Explanation(
        symbol,
        budget,
        None,
        age,
        usable=age < settings.gate_stale_sec,
        terms=tuple(_terms(symbol, budget, receipt, found.known, settings, now)),
        stress=formula.stress if formula else None,
        unbounded_usd=formula.unbounded if formula else None,
        bound=formula.bound if formula else None,
        haircut=haircut,
        share=receipt["share"] if receipt else None,
        formula_version=receipt["formula_version"] if receipt else None,
        receipt_age_sec=older,
        wrote=receipt["writer"] if receipt else None,
        writes=found.writer,
        differs=differs,
        # From numbers that don't give the budget nobody learns what would change it.
        changes=tuple(formula.changes()) if formula and differs is None else (),
        remarks=tuple(_remarks(budget, found, settings, now)),
    )


@dataclass(frozen=True, slots=True)
class _Formula:
    """The formula of one budget, with its numbers."""

    equity: float
    heat: float
    cluster: float
    vol: float
    haircut: float
    parameters: BudgetParameters

    @classmethod
    def of(
        cls, budget: Published, parameters: BudgetParameters, haircut: float
    ) -> "_Formula | None":
        names = ("equity_usd", "portfolio_heat", "cluster_stress", "vol_regime", "base_risk_pct")
        equity, heat, cluster, vol, base = (budget.told[name] for name in names)
        if equity is None or heat is None or cluster is None or vol is None or base is None:
            return None
        if base < 0:
            return None
        # Of the budget's own, which it names; the weights it does not.
        return cls(equity, heat, cluster, vol, haircut, replace(parameters, base_risk_pct=base))

    @property
    def stress(self) -> float:
        return float(stress_factor(self.heat, self.cluster, self.vol, self.parameters))

    @property
    def unbounded(self) -> float:
        kept = (1.0 - self.stress) * (1.0 - self.haircut)
        return self.equity * self.parameters.base_risk_pct * kept

    @property
    def bound(self) -> str | None:
        if self.unbounded < self.parameters.min_usd:
            return "min_usd"
        return "max_usd" if self.unbounded > self.parameters.max_usd else None

    def usd(self, **otherwise: float) -> float | None:
        """The budget, if some of it were otherwise; None: there would be none."""
        equity = otherwise.get("equity", self.equity)
        stress = stress_factor(
            otherwise.get("heat", self.heat),
            otherwise.get("cluster", self.cluster),
            otherwise.get("vol", self.vol),
            self.parameters,
        )
        haircut = otherwise.get("haircut", self.haircut)
        try:
            return float(budget_usd(equity, stress, self.parameters, haircut))
        except NoBudget:
            return None

    def changes(self) -> Iterator[Change]:
        tried: dict[str, dict[str, float]] = {
            "with an equity 10 % lower": {"equity": 0.9 * self.equity},
            "with an equity 10 % higher": {"equity": 1.1 * self.equity},
        }
        for name, value, calm in (
            ("heat", self.heat, "with a portfolio heat of 0"),
            ("cluster", self.cluster, "with a cluster stress of 0"),
            ("vol", self.vol, "with the regime LOW_VOL"),
            ("haircut", self.haircut, "without the haircut"),
        ):
            if value > 0:
                tried[calm] = {name: 0.0}
        for name, value, worst in (
            ("heat", self.heat, "with a portfolio heat of 1"),
            ("cluster", self.cluster, "with a cluster stress of 1"),
            ("vol", self.vol, "with the regime EXTREME_VOL"),
        ):
            if value < 1:
                tried[worst] = {name: 1.0}
        for what, otherwise in tried.items():
            usd = self.usd(**otherwise)
            if usd is not None:
                yield Change(what, usd)


def _terms(
    symbol: str,
    budget: Published,
    receipt: Row | None,
    known: Mapping[str, Known],
    settings: GovernorSettings,
    now: float,
) -> Iterator[Term]:
    policies: Mapping[str, str] = receipt["policies"] if receipt else {}
    # None: of before there were ages.
    ages: Mapping[str, float | None] = (receipt["ages"] if receipt else None) or {}
    cluster = symbol.removeprefix(CLUSTER_MARK)
    if cluster == symbol:
        cluster = settings.cluster_of(symbol)
    for name, field, memory in (
        ("portfolio_state", "equity_usd", PORTFOLIO),
        ("portfolio_heat", "portfolio_heat", HEAT),
        ("cluster_stress", "cluster_stress", CLUSTER + cluster),
        ("vol_regime", "vol_regime", REGIME + symbol),
    ):
        age = _since(known.get(memory), now)
        yield Term(name, budget.told[field], policies.get(name), age, ages.get(name))
    # There only where the settings ask for them.
    if "drawdown" in policies:
        last = known.get(DRAWDOWN)
        yield Term(
            "drawdown",
            last.value if last else None,
            policies["drawdown"],
            _since(last, now),
            ages.get("drawdown"),
        )
    if receipt and "contribution" in policies:
        age = _since(known.get(SHARES), now)
        yield Term(
            "contribution",
            receipt["share"],
            policies["contribution"],
            age,
            ages.get("contribution"),
        )


def _since(last: Known | None, now: float) -> float | None:
    return None if last is None else max(now - last.fresh_at, 0.0)


def _older(budget: Published, receipt: Row | None) -> float | None:
    if receipt is None:
        return None
    stored: float = receipt["computed_at"].timestamp()
    return max(budget.timestamp - int(stored), 0.0)


def _differs(budget: Published, receipt: Row | None, formula: _Formula | None) -> str | None:
    if formula is None:
        return "the hash does not say what it was computed from"
    usd = formula.usd()
    if usd is None:
        return "its equity carries no budget"
    if abs(usd - budget.budget_usd) < _CENT:
        return None
    haircut = (
        "the haircut of the receipt is of another cycle"
        if receipt
        else ("a haircut was taken off that no receipt tells of")
    )
    return (
        f"the formula gives {usd:,.2f} with these numbers: {haircut}, or the settings here are not "
        "those of the writer"
    )


def _why_none(symbol: str, found: Evidence) -> str:
    if found.budget == "budget_malformed":
        return "what Redis has under its key is malformed"
    if found.cycle is None:
        return "no cycle of a governor is on record here"
    reason = found.cycle["no_budget_reason"]
    if reason is not None:
        return f"the governor came to no budget ({reason}): {NO_BUDGET.get(reason, reason)}"
    return _why_no_budget_of_one(symbol, found)


def _why_no_budget_of_one(symbol: str, found: Evidence) -> str:
    if symbol.startswith(CLUSTER_MARK):
        return "no symbol with a position is of this cluster"
    if not found.has_position:
        return (
            "it has no position: there is neither quantum:position:snapshot:"
            f"{symbol} nor quantum:state:positions:{symbol}"
        )
    if found.writer is None:
        return "nobody writes budgets now, and its last one has run out"
    return "it has a position that the governor has not seen yet"


def _remarks(
    budget: Published | None, found: Evidence, settings: GovernorSettings, now: float
) -> Iterator[str]:
    if found.writer is None:
        yield "Nobody has the lease: no governor writes budgets now."
    if budget is None:
        yield "The gate lets every position pass (fail-open)."
        return
    age = budget.age_sec(now)
    if age >= settings.gate_stale_sec:
        yield f"It is stale ({age:.0f} s): the gate lets every position pass (fail-open)."
    elif budget.mode == "shadow":
        yield "Shadow mode: what exceeds it is told, and not stopped."
    policies = found.receipt["policies"] if found.receipt else {}
    last = found.known.get(PORTFOLIO)
    if policies.get("portfolio_state") == "last_known_good" and last is not None:
        left = settings.lkg_max_sec - (now - last.fresh_at)
        yield (
            f"Unless a fresh portfolio state comes, there are no budgets after {left:.0f} s."
            if left > 0
            else "The portfolio state is too old by now: there are no more budgets until it comes."
        )
    for name, policy in policies.items():
        if policy in {"malformed", "out_of_range"}:
            yield f"The {name.replace('_', ' ')} is broken: mended, the budget may be larger."
        elif policy in {"held", "held_careful"} and name != "drawdown":  # part of the state
            yield f"The {name.replace('_', ' ')} is lost: found again, the budget follows it."
