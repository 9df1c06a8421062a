"""No broken, missing or late input ever raises a budget: whatever was known, whatever breaks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from riskhub.governor import (
    BudgetCycle,
    BudgetParameters,
    GovernorInputs,
    GovernorSettings,
    Input,
    Known,
    compute_budgets,
    recall,
)
from riskhub.governor.inputs import (
    NO_DRAWDOWN,
    cluster_input,
    drawdown_input,
    heat_input,
    portfolio_input,
    regime_input,
)
from riskhub.governor.memory import remembered, written

NOW = 1_738_000_000.75
RANGE = BudgetParameters(min_usd=0.0, max_usd=1e12)  # no bound hides a budget that rises
no_numbers = st.sampled_from(["", "n/a", "nan", "-inf", "1e999", "-0.1", "0x1", b"\xff"])
NO_FIELDS = (None, None, None)
wrong_type = st.just(redis.ResponseError("WRONGTYPE"))
units = st.floats(0, 1).map(repr)
SYMBOLS = ("A", "B", "C")
CLUSTERS = ("one", "two")


@dataclass(frozen=True)
class Found:
    """Everything as it lies in Redis and on the heat page."""

    portfolio: Any
    heat: str | None
    clusters: Mapping[str, Any]
    markets: Mapping[str, Any]
    shares: Mapping[str, float] | None

    def judged(self, settings: GovernorSettings, now: float) -> GovernorInputs:
        state = portfolio_input(self.portfolio, now=now, stale_sec=settings.stale_sec)
        heat = Input(1.0, "missing") if self.heat is None else heat_input(self.heat)
        return GovernorInputs(
            portfolio=state,
            symbols=SYMBOLS,
            heat=heat if settings.heat_url else Input(0.0, "not_configured"),
            clusters={name: cluster_input(first(raw, 1)) for name, raw in self.clusters.items()},
            regimes={name: regime_input(first(raw, 2)) for name, raw in self.markets.items()},
            drawdown=drawdown_input(self.portfolio) if state.policy == "fresh" else NO_DRAWDOWN,
            shares=Input({}, "missing") if self.shares is None else Input(self.shares, "fresh"),
        )


def first(fields: Any, count: int) -> Any:
    return fields if isinstance(fields, Exception) else fields[:count]


def mostly(good: st.SearchStrategy[Any], *bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda draw: good if draw else st.one_of(*bad))


@st.composite
def found(draw: st.DrawFn) -> Found:
    """Any state of the inputs; times that are wrong stay so, whatever the clock shows later."""
    number = mostly(units, st.none(), no_numbers)
    time = mostly(
        st.floats(NOW - 29, NOW).map(repr),
        st.sampled_from([repr(NOW - 60), repr(NOW * 1000), None]),
        no_numbers,
    )
    equity = mostly(st.floats(1, 1e7).map(repr), st.none(), no_numbers)
    names = st.sampled_from(["LOW_VOL", "NORMAL_VOL", "HIGH_VOL", "EXTREME_VOL", "HIGH", None])
    sigmas = mostly(st.floats(0, 0.05).map(repr), st.none(), no_numbers)
    lines = st.lists(
        st.tuples(
            st.sampled_from(["portfolio_heat_composite_normalized", "p26_heat_value"]),
            mostly(units, st.sampled_from(["NaN", "7", "x"])),
        ),
        max_size=3,
    )
    shares = st.fixed_dictionaries({}, optional=dict.fromkeys(SYMBOLS, st.floats(-2, 2)))
    return Found(
        draw(mostly(st.tuples(equity, number, time), wrong_type)),
        draw(mostly(lines.map(page), st.none())),
        {name: draw(mostly(st.tuples(number), wrong_type)) for name in CLUSTERS},
        {name: draw(mostly(st.tuples(names, sigmas), wrong_type)) for name in SYMBOLS},
        draw(mostly(shares, st.none())),
    )


def page(lines: list[tuple[str, str]]) -> str:
    return "".join(f"{name} {value}\n" for name, value in lines)


@st.composite
def broken(draw: st.DrawFn, was: Found) -> Found:
    """The same with any of it lost, broken or late."""

    def fields(before: Any) -> Any:
        if isinstance(before, Exception):
            return draw(st.sampled_from([before, NO_FIELDS]))
        which = draw(st.sets(st.sampled_from(range(len(before)))))
        each = tuple(
            draw(st.one_of(st.none(), no_numbers)) if place in which else one
            for place, one in enumerate(before)
        )
        return draw(mostly(st.just(each), wrong_type))

    portfolio = fields(was.portfolio)
    if not isinstance(portfolio, Exception) and draw(st.booleans()):
        late = draw(st.sampled_from([NOW - 60, NOW * 1000]))
        portfolio = (*portfolio[:2], repr(late))
    return Found(
        portfolio,
        draw(st.sampled_from([was.heat, None])) and draw(broken_page(str(was.heat))),
        {name: fields(raw) for name, raw in was.clusters.items()},
        {name: fields(raw) for name, raw in was.markets.items()},
        draw(st.sampled_from([was.shares, None])),
    )


@st.composite
def broken_page(draw: st.DrawFn, was: str) -> str:
    """A page of which lines are lost or spoilt."""
    lines = [line.split(" ") for line in was.splitlines()]
    fates = [draw(st.sampled_from(["kept", "kept", "lost", "NaN", "x"])) for _ in lines]
    # A metric is the hottest of its series: to lose one of them is a metric without it.
    lost = {name for (name, _), fate in zip(lines, fates, strict=True) if fate == "lost"}
    return page(
        [
            (name, value if fate == "kept" else fate)
            for (name, value), fate in zip(lines, fates, strict=True)
            if name not in lost
        ]
    )


@st.composite
def memories(draw: st.DrawFn) -> dict[str, Known]:
    """Anything that may be remembered at `NOW`, also nothing, and also by a clock gone ahead."""
    when = st.floats(NOW - 2_000, NOW + 100)
    names = ["heat", "drawdown", *(f"cluster:{one}" for one in CLUSTERS)]
    names += [f"regime:{one}" for one in SYMBOLS]
    stress = st.builds(Known, st.floats(0, 1), when, st.booleans())
    memory: dict[str, Known] = draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(names, stress))
    )
    extra = st.fixed_dictionaries({"timestamp": when}, optional={"drawdown": st.floats(0, 1)})
    if draw(st.booleans()):
        memory["portfolio"] = draw(st.builds(Known, st.floats(1, 1e7), when, extra=extra))
    if draw(st.booleans()):
        shares = st.dictionaries(st.sampled_from(SYMBOLS), st.floats(-2, 2), min_size=1)
        memory["shares"] = draw(st.builds(Known, st.just(3.0), when, extra=shares))
    if draw(st.booleans()):
        memory["clock"] = draw(when.map(lambda at: Known(at, at)))
    if draw(st.booleans()):
        back = st.sampled_from([0.0, 0.0, 5.0, 40.0, 1_000.0])
        memory["seen"] = draw(st.builds(lambda at, by: Known(at, at - by), when, back))
    return memory


haircuts = st.sampled_from([0.0, 0.3, 1.0])


@settings(max_examples=400)
@given(data=st.data(), before=found(), known=memories(), age=haircuts, drawdown=haircuts)
def test_no_broken_missing_or_late_input_ever_raises_a_budget(
    data: st.DataObject, before: Found, known: dict[str, Known], age: float, drawdown: float
) -> None:
    governor = GovernorSettings(
        age_haircut=age,
        drawdown_haircut=drawdown,
        heat_url=data.draw(st.sampled_from(["http://heat.example/metrics", None])),
        contribution_world="w",
        clusters={"A": "one", "B": "one", "C": "two"},
        parameters=RANGE,
    )
    now, state, cycles = NOW, before, []
    for _ in range(3):  # each begins as a new process: with nothing but what was written
        inputs, changes = recall(state.judged(governor, now), known, now, governor)
        known = after_writing(known, changes)
        cycles.append(compute_budgets(inputs, governor, now))
        state = data.draw(broken(state))
        now += data.draw(st.sampled_from([0.0, 10.0, 500.0, 1_000.0]))

    for earlier, later in pairwise(cycles):
        assert_no_higher(later, earlier)


@given(data=st.data(), before=found(), known=memories(), back=st.floats(0, 1e5))
def test_nor_does_a_clock_that_steps_back_where_the_portfolio_is_not_fresh(
    data: st.DataObject, before: Found, known: dict[str, Known], back: float
) -> None:
    governor = GovernorSettings(
        age_haircut=0.5, clusters={"A": "one", "B": "one", "C": "two"}, parameters=RANGE
    )
    before = replace(before, portfolio=(None, None, None))
    inputs, changes = recall(before.judged(governor, NOW), known, NOW, governor)
    later, _ = recall(
        data.draw(broken(before)).judged(governor, NOW - back),
        after_writing(known, changes),
        NOW - back,
        governor,
    )

    assert_no_higher(
        compute_budgets(later, governor, NOW - back), compute_budgets(inputs, governor, NOW)
    )


@settings(max_examples=150)
@given(data=st.data(), before=found(), known=memories(), age=haircuts, drawdown=haircuts)
def test_nor_does_a_clock_that_steps_to_and_fro(
    data: st.DataObject, before: Found, known: dict[str, Known], age: float, drawdown: float
) -> None:
    governor = GovernorSettings(
        age_haircut=age,
        drawdown_haircut=drawdown,
        heat_url="http://heat.example/metrics",
        contribution_world="w",
        clusters={"A": "one", "B": "one", "C": "two"},
        parameters=RANGE,
    )
    steps = st.sampled_from([0.0, 1.0, 10.0, 500.0, 1_000.0, -1.0, -10.0, -40.0, -500.0])
    now, state, cycles, seen = NOW, before, [], False
    for _ in range(5):
        judged = state.judged(governor, now)
        seen = seen or judged.portfolio.value is not None
        inputs, changes = recall(judged, known, now, governor)
        known = after_writing(known, changes)
        cycles.append(compute_budgets(inputs, governor, now))
        now += data.draw(steps | st.floats(-100, 100))
        if data.draw(st.integers(0, 3)):
            continue  # nothing breaks: it is the clock alone that moves
        later = data.draw(broken(state))
        # A time that can be read where none could be is no breakage.
        state = later if seen else replace(later, portfolio=state.portfolio)

    for earlier, afterwards in pairwise(cycles):
        assert_no_higher(afterwards, earlier)


@settings(max_examples=400)
@given(
    known=memories(),
    portfolio=st.tuples(st.just("1e6"), units, st.floats(NOW - 40, NOW).map(repr)),
    steps=st.lists(st.sampled_from([1.0, 4.0, 10.0, -4.0, -10.0, 400.0, -400.0]), max_size=8),
)
def test_one_state_never_raises_a_budget_however_the_clock_goes(
    known: dict[str, Known], portfolio: tuple[str, str, str], steps: list[float]
) -> None:
    governor = GovernorSettings(age_haircut=0.5, drawdown_haircut=1.0, parameters=RANGE)
    calm = Found(
        portfolio, None, {"default": ("0",)}, dict.fromkeys(SYMBOLS, ("LOW_VOL", None)), {}
    )
    known = {name: one for name, one in known.items() if name not in {"heat", "shares"}}
    cycles = []
    for since in accumulate([0.0, *steps]):
        inputs, changes = recall(calm.judged(governor, NOW + since), known, NOW + since, governor)
        known = after_writing(known, changes)
        cycles.append(compute_budgets(inputs, governor, NOW + since))

    for earlier, later in pairwise(cycles):
        assert_no_higher(later, earlier)


def after_writing(
    known: Mapping[str, Known], changes: Mapping[str, Known | None]
) -> dict[str, Known]:
    fields: dict[Any, Any] = {
        name.encode(): written(one).encode()
        for name, one in {**known, **changes}.items()
        if one is not None
    }
    return remembered(fields)


def assert_no_higher(later: BudgetCycle, earlier: BudgetCycle) -> None:
    for now, before in (
        (later.budgets, earlier.budgets),
        (later.cluster_budgets, earlier.cluster_budgets),
    ):
        was = {budget.symbol: budget.budget_usd for budget in before}
        for budget in now:
            assert was, "a budget out of nothing"
            assert math.isfinite(budget.budget_usd)
            assert budget.budget_usd <= was[budget.symbol]
