"""What is wrong with the governor's history: cycles, and budgets held against their receipts. Pure.

A receipt has a budget's inputs, its stress and its haircut, but not the weights and bounds that the
governor was set to. So budgets are computed anew with those of the settings here, bit for bit, and
what comes out otherwise is called altered where it is known that its writer had the same: by other
budgets of that process, which reads its settings once. Else it is counted, and not claimed.

Haircuts are taken from the receipt: the drawdown and the number of symbols that a haircut came from
are not in it.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from riskhub.audit.findings import Finding
from riskhub.governor.budget import (
    FORMULA_VERSION,
    BudgetParameters,
    FloatArray,
    NoBudget,
    budget_usd,
    stress_factor,
)
from riskhub.governor.inputs import REGIMES, WORST
from riskhub.store.audit_budgets import AuditedBudgets, Row

Flags = npt.NDArray[np.bool_]

_CARRY = frozenset({"fresh", "last_known_good"})
"""The policies of a portfolio state that budgets are made of."""
_INPUTS = ("portfolio_heat", "cluster_stress", "vol_regime")
_BROKEN = dict.fromkeys(("malformed", "out_of_range"), WORST)
_SAID: Mapping[str, Mapping[str, float]] = {
    "portfolio_heat": _BROKEN | {"missing": WORST, "not_configured": 0.0},
    "cluster_stress": _BROKEN | {"missing": 0.0},
    "vol_regime": _BROKEN | {"missing": REGIMES["NORMAL_VOL"]},
}
"""What an input is taken as by its policy, whatever was read; see `riskhub.governor.inputs`."""
_MIN, _MAX = "min_usd", "max_usd"


def cycle_findings(cycle: Row) -> Iterator[Finding]:
    """Whether the history has the budgets of a cycle; see `AuditBudgetStore.audited_cycles`."""
    name = _name_of(cycle)
    there, wanted = cycle["rows"], cycle["symbols"]
    if there > wanted:
        yield Finding("budgets", "extra", f"{name}: {there} rows of {wanted} symbols")
    elif cycle["complete"] and there < wanted:
        yield Finding("budgets", "missing", f"{name}: {there} rows of {wanted} symbols")
    if cycle["differing"]:
        yield Finding("budgets", "altered", f"{name}: {cycle['differing']} not of this cycle")
    reason, policy, equity = (
        cycle[field] for field in ("no_budget_reason", "portfolio_policy", "equity_usd")
    )
    if (reason is None) != bool(wanted):
        yield Finding("cycles", "altered", f"{name}: {wanted} symbols, and a reason for none")
    elif wanted and (policy not in _CARRY or equity is None or not 0 < equity < np.inf):
        of = f"a portfolio state that is {policy}, {equity} USD"
        yield Finding("cycles", "altered", f"{name}: {wanted} symbols have a budget of {of}")
    elif reason is not None and reason.startswith("portfolio_") and policy in _CARRY:
        yield Finding("cycles", "altered", f"{name}: {reason}, and its policy is {policy}")


class Recomputation:
    """Budgets computed anew, a cycle at a time, oldest first.

    Attributes:
        of_other_settings: budgets that come out otherwise with the weights and bounds here, where
            it is not known that their writer had these.
        of_other_formulas: budgets of another `FORMULA_VERSION`, which are not computed.
    """

    def __init__(self, parameters: BudgetParameters) -> None:
        """Know nothing yet. `parameters` are the weights and bounds of the settings here."""
        self.of_other_settings = 0
        self.of_other_formulas = 0
        self._parameters = parameters
        self._writer: str | None = None
        self._known = _Known()

    def findings(self, cycle: Row, budgets: AuditedBudgets) -> Iterator[Finding]:
        """What is wrong with the budgets of a cycle."""
        if cycle["formula_version"] != FORMULA_VERSION:
            self.of_other_formulas += len(budgets.symbol)
            return
        if cycle["writer"] != self._writer:
            self._writer, self._known = cycle["writer"], _Known()
        name, whole = _name_of(cycle), []
        for at, why in enumerate(_by_themselves(budgets)):
            if why is None:
                whole.append(at)
            else:
                yield Finding("budgets", "altered", f"{name} {budgets.symbol[at]}: {why}")
        try:
            anew = _Anew.of(cycle["equity_usd"], budgets, whole, self._parameters)
        except (NoBudget, TypeError):  # its equity carries none, or is not there: its cycle's
            return
        self._known.learn(anew)
        for at in np.flatnonzero(~anew.comes_out).tolist():
            if not self._known.has(anew, at):
                self.of_other_settings += 1
                continue
            follows = f"{anew.budget[at]} with a stress of {anew.stress[at]} follows"
            stored = f"{anew.stored[at]} with {anew.stored_stress[at]} is stored"
            symbol = budgets.symbol[whole[at]]
            yield Finding("budgets", "altered", f"{name} {symbol}: {follows}, {stored}")

    def notes(self) -> Iterator[str]:
        """What was not claimed, and why."""
        if self.of_other_settings:
            yield (
                f"{self.of_other_settings:,} budgets come out otherwise, and nothing says that "
                "their writer had the weights and bounds that are set here"
            )
        if self.of_other_formulas:
            yield f"{self.of_other_formulas:,} budgets of other formulas were not computed anew"


def _name_of(cycle: Row) -> str:
    return f"{cycle['computed_at']:%Y-%m-%d %H:%M:%S.%f}Z"


# -- a receipt by itself --------------------------------------------------------------------------


def _by_themselves(budgets: AuditedBudgets) -> Iterator[str | None]:
    """Of each budget, what can't be in its receipt whatever the settings were; None: nothing."""
    columns = zip(*(getattr(budgets, name) for name in _INPUTS), strict=True)
    rest = zip(
        columns,
        budgets.policies,
        budgets.stress_factor,
        budgets.haircut,
        budgets.share,
        budgets.base_risk_pct,
        strict=True,
    )
    for inputs, policies, stress, haircut, share, base in rest:
        try:
            said, may_cut, by_share = _policies(policies)
        except (ValueError, AttributeError, TypeError):
            yield "its policies can't be read"
            continue
        numbers = (*inputs, stress, haircut or 0.0)
        if not all(0.0 <= number <= 1.0 for number in numbers):
            yield "an input, stress or haircut is not from 0 to 1"
        elif not 0.0 <= base < np.inf:
            yield f"a base risk of {base}"
        elif said and (broken := _not_as_said(said, inputs)):
            yield broken
        elif haircut and not may_cut and not (by_share and share is not None and share > 0):
            yield f"a haircut of {haircut}, and nothing asks for one"
        else:
            yield None


def _not_as_said(said: Mapping[int, tuple[str, float]], inputs: tuple[float, ...]) -> str | None:
    for at, (policy, value) in said.items():
        if inputs[at] != value:
            return f"{_INPUTS[at]} is {policy}, and taken as {inputs[at]} instead of {value}"
    return None


@lru_cache(maxsize=4_096)
def _policies(text: str) -> tuple[Mapping[int, tuple[str, float]], bool, bool]:
    """By input its policy and what it is taken as, where that says it; and what a haircut may be
    for: age or drawdown, and the symbol's share."""
    policies = json.loads(text)
    said = {
        at: (policy, _SAID[name][policy])
        for at, name in enumerate(_INPUTS)
        if (policy := policies.get(name)) in _SAID[name]
    }
    may_cut = policies.get("portfolio_state") != "fresh" or "drawdown" in policies
    return said, may_cut, "contribution" in policies


# -- computed anew --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Anew:
    """Budgets of a cycle, as stored and as they follow with some weights and bounds.

    Attributes:
        inputs: (inputs, budgets), in the order of `_INPUTS`.
        stress, budget: as they follow from the inputs.
        stored, stored_stress: as they are stored.
        bounded: as it follows from the stored stress; `plain` the same without bounds.
    """

    parameters: BudgetParameters
    inputs: FloatArray
    stress: FloatArray
    stored_stress: FloatArray
    budget: FloatArray
    stored: FloatArray
    bounded: FloatArray
    plain: FloatArray

    @classmethod
    def of(
        cls,
        equity: float,
        budgets: AuditedBudgets,
        which: Sequence[int],
        parameters: BudgetParameters,
    ) -> "_Anew":
        def column(values: tuple[float | None, ...]) -> FloatArray:
            return np.array([values[at] for at in which], dtype=np.float64)

        inputs = np.array([column(getattr(budgets, name)) for name in _INPUTS])
        stored_stress = column(budgets.stress_factor)
        haircut = np.nan_to_num(column(budgets.haircut))  # None is as 0
        stress = stress_factor(inputs[0], inputs[1], inputs[2], parameters)
        unbounded = replace(parameters, min_usd=0.0, max_usd=sys.float_info.max)
        budget, bounded, plain = (np.empty_like(stress) for _ in range(3))
        base = column(budgets.base_risk_pct)
        for one in np.unique(base):  # of a cycle there is one
            of_it, pct = base == one, float(one)
            for into, factor, with_ in (
                (budget, stress, parameters),
                (bounded, stored_stress, parameters),
                (plain, stored_stress, unbounded),
            ):
                with_it = replace(with_, base_risk_pct=pct)
                into[of_it] = budget_usd(equity, factor[of_it], with_it, haircut[of_it])
        return cls(
            parameters, inputs, stress, stored_stress, budget, column(budgets.budget_usd),
            bounded, plain,
        )  # fmt: skip

    @property
    def comes_out(self) -> Flags:
        """Whether each is as it follows, bit for bit."""
        right: Flags = (self.stress == self.stored_stress) & (self.bounded == self.stored)
        return right


class _Known:
    """What is known of the settings of a writer: which weights and bounds are those here."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lowest, self._highest = np.inf, -np.inf

    def learn(self, anew: _Anew) -> None:
        """Whatever comes out as it is stored was made with the same, as far as that mattered."""
        right = anew.comes_out
        unclamped = right & (anew.stress > 0) & (anew.stress < 1)
        self._names |= {
            name
            for name, values in zip(_INPUTS, anew.inputs, strict=True)
            if (unclamped & (values > 0)).any()
        }
        if (right & (anew.stored > anew.plain)).any():
            self._names.add(_MIN)
        if (right & (anew.stored < anew.plain)).any():
            self._names.add(_MAX)
        self._lowest = min(self._lowest, anew.stored.min(initial=np.inf))
        self._highest = max(self._highest, anew.stored.max(initial=-np.inf))

    def has(self, anew: _Anew, at: int) -> bool:
        """Whether enough is known to say that no settings of this writer gave this one."""
        if anew.stress[at] != anew.stored_stress[at]:
            mattered = {
                name for name, values in zip(_INPUTS, anew.inputs, strict=True) if values[at] > 0
            }
            return mattered <= self._names
        stored, plain = anew.stored[at], anew.plain[at]
        if stored > plain:  # raised to the lower bound, so that none is lower
            return _MIN in self._names or bool(stored > self._lowest)
        if stored < plain:
            return _MAX in self._names or bool(stored < self._highest)
        # As it follows, and beyond a bound.
        return (_MIN if stored < anew.parameters.min_usd else _MAX) in self._names
