"""What was known stands in for what is gone, and never so that a budget rises."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
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
    PortfolioState,
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
from riskhub.governor.memory import FORGET_SEC, remembered, written

NOW = 1_738_000_000.75
SETTINGS = GovernorSettings()
FRESH = GovernorInputs(
    portfolio=Input(PortfolioState(100_000.0, 0.1, NOW - 4), "fresh", 4.0),
    symbols=("BTC",),
    heat=Input(0.25, "fresh"),
    clusters={"default": Input(0.5, "fresh")},
    regimes={"BTC": Input(0.0, "fresh")},
    drawdown=Input(0.1, "fresh"),
)
GONE = GovernorInputs(
    portfolio=Input(None, "missing"),
    symbols=("BTC",),
    heat=Input(1.0, "missing"),
    clusters={"default": Input(0.0, "missing")},
    regimes={"BTC": Input(0.33, "missing")},
)


def after(
    judged: GovernorInputs, known: Mapping[str, Known] | None = None, now: float = NOW
) -> dict[str, Known]:
    """What the next process finds in Redis after a cycle."""
    _, changes = recall(judged, known or {}, now, SETTINGS)
    fields: dict[Any, Any] = {name: written(one) for name, one in (known or {}).items()}
    for name, one in changes.items():
        if one is None:
            del fields[name]
        else:
            fields[name] = written(one)
    return remembered(fields)


def recalled(judged: GovernorInputs, known: Mapping[str, Known], now: float) -> GovernorInputs:
    return recall(judged, known, now, SETTINGS)[0]


# --- how long it stands in -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "policy"),
    [
        (0.0, "last_known_good"),
        (899.0, "last_known_good"),
        (900.0, "last_known_good"),
        (900.001, "too_old"),
        (901.0, "too_old"),
        (86_400.0, "too_old"),
    ],
)
@pytest.mark.parametrize("now_is", ["missing", "malformed", "out_of_range", "stale"])
def test_the_last_portfolio_that_was_fresh_holds_for_fifteen_minutes(
    since: float, policy: str, now_is: Any
) -> None:
    stale = PortfolioState(1e6, None, NOW - 31)
    gone = Input(stale if now_is == "stale" else None, now_is)

    inputs = recalled(replace(GONE, portfolio=gone), after(FRESH), NOW + since)

    assert inputs.portfolio.policy == policy
    assert inputs.portfolio.unfresh_sec == pytest.approx(since)
    assert inputs.portfolio.age_sec == pytest.approx(since + 4)  # of the state itself
    if policy == "too_old":
        assert inputs.portfolio.value is None
    else:
        assert inputs.portfolio.value == PortfolioState(100_000.0, 0.1, NOW - 4)


def test_what_is_used_in_place_of_a_portfolio_does_not_make_it_younger() -> None:
    known = after(FRESH)
    for second in range(10, 900, 10):
        known = after(GONE, known, NOW + second)

    assert recalled(GONE, known, NOW + 900).portfolio.policy == "last_known_good"
    assert recalled(GONE, known, NOW + 901).portfolio.policy == "too_old"


def test_a_portfolio_that_is_fresh_again_begins_anew() -> None:
    newer = Input(PortfolioState(50_000.0, None, NOW + 2_000), "fresh", 0.0)
    known = after(replace(FRESH, portfolio=newer), after(FRESH), NOW + 2_000)

    inputs = recalled(GONE, known, NOW + 2_900)

    assert inputs.portfolio.value == PortfolioState(50_000.0, None, NOW + 2_000)


def test_a_portfolio_that_was_never_fresh_is_as_it_is_judged() -> None:
    stale = Input(PortfolioState(1e5, None, NOW - 60), "stale", 60.0)
    for portfolio in (stale, Input(None, "malformed"), Input(None, "missing")):
        judged = replace(GONE, portfolio=portfolio)
        assert recalled(judged, after(judged), NOW + 1).portfolio == portfolio


@pytest.mark.parametrize(
    ("since", "policy", "regime", "heat"),
    [(900.0, "held", 0.0, 0.25), (901.0, "held_careful", 0.33, 1.0)],
)
def test_the_last_value_holds_and_then_the_more_careful(
    since: float, policy: str, regime: float, heat: float
) -> None:
    inputs = recalled(GONE, after(FRESH), NOW + since)

    for held in (inputs.heat, inputs.clusters["default"], inputs.regimes["BTC"], inputs.drawdown):
        assert (held.policy, held.age_sec, held.unfresh_sec) == (policy, since, since)
    assert inputs.regimes["BTC"].value == regime
    assert inputs.heat.value == heat  # a page that is configured and gone is 1.0 in the end
    assert inputs.clusters["default"].value == 0.5  # more than its fallback, for ever
    assert inputs.drawdown.value == 0.1


def test_what_was_never_known_falls_back() -> None:
    assert recalled(GONE, {}, NOW) == GONE
    assert recalled(GONE, after(GONE), NOW + 5) == GONE


@pytest.mark.parametrize("broken", ["malformed", "out_of_range"])
def test_broken_is_the_worst_also_when_it_is_gone_after_that(broken: Any) -> None:
    worst = replace(FRESH, regimes={"BTC": Input(1.0, broken)}, heat=Input(1.0, broken))
    known = after(FRESH)

    assert recalled(worst, known, NOW + 1).regimes["BTC"] == Input(1.0, broken)
    inputs = recalled(GONE, after(worst, known, NOW + 1), NOW + 2)
    assert (inputs.regimes["BTC"].value, inputs.regimes["BTC"].policy) == (1.0, "held")
    assert inputs.heat.value == 1.0
    # and good again once it is fresh
    again = after(FRESH, after(worst, known, NOW + 1), NOW + 3)
    assert recalled(GONE, again, NOW + 4).regimes["BTC"].value == 0.0


def test_a_heat_that_nobody_asks_for_is_not_held() -> None:
    nowhere = Input(0.0, "not_configured")
    known = after(FRESH)

    assert recalled(replace(FRESH, heat=nowhere), known, NOW + 1).heat == nowhere


# --- a second choice -------------------------------------------------------------------------


def regime(name: str | None, sigma: str | None) -> GovernorInputs:
    return replace(FRESH, regimes={"BTC": regime_input([name, sigma])})


def test_losing_the_name_of_a_regime_is_no_reason_to_believe_a_calmer_sigma() -> None:
    known = after(regime("EXTREME_VOL", "0.001"))

    held = recalled(regime(None, "0.001"), known, NOW + 5).regimes["BTC"]
    assert (held.value, held.policy) == (1.0, "held")
    held = recalled(regime(None, "0.001"), known, NOW + 5_000).regimes["BTC"]
    assert (held.value, held.policy) == (1.0, "held_careful")
    calm = recalled(regime("LOW_VOL", "0.001"), known, NOW + 5).regimes["BTC"]
    assert calm == Input(0.0, "fresh")


def test_a_sigma_that_is_no_calmer_takes_over() -> None:
    known = after(regime(None, "0.04"), after(regime("HIGH_VOL", None)), NOW + 5)

    calmer = recalled(regime(None, "0.001"), known, NOW + 10).regimes["BTC"]
    assert calmer == Input(0.0, "fresh", second_choice=True)


@pytest.mark.parametrize("broken", [["x"], redis.ResponseError("WRONGTYPE")])
def test_a_sigma_that_was_broken_is_believed_when_it_is_good_again(broken: Any) -> None:
    was = regime_input([None, *broken] if isinstance(broken, list) else broken)
    known = after(replace(FRESH, regimes={"BTC": was}), after(regime(None, "0.01")))

    assert recalled(regime(None, "0.01"), known, NOW + 10).regimes["BTC"].value == 0.33


# --- clocks ----------------------------------------------------------------------------------


def test_when_the_clock_steps_back_nothing_gets_younger() -> None:
    known = after(GONE, after(FRESH), NOW + 800)  # 800 s old, then an hour back
    known = after(GONE, known, NOW - 2_800)

    inputs = recalled(GONE, known, NOW - 2_800 + 100)
    assert inputs.portfolio.policy == "last_known_good"
    assert inputs.portfolio.unfresh_sec == pytest.approx(900.0)
    assert recalled(GONE, known, NOW - 2_800 + 101).portfolio.policy == "too_old"
    assert recalled(GONE, known, NOW - 2_800 + 101).heat.policy == "held_careful"


def test_when_the_clock_jumps_ahead_what_was_known_is_old() -> None:
    inputs = recalled(GONE, after(FRESH), NOW + 86_400)

    assert inputs.portfolio.policy == "too_old"
    assert inputs.heat == Input(1.0, "held_careful", 86_400.0, 86_400.0)


# --- what is kept ----------------------------------------------------------------------------


def test_it_is_kept_by_name_as_json_that_people_can_read() -> None:
    _, changes = recall(FRESH, {}, NOW, SETTINGS)

    assert {name: written(known) for name, known in changes.items() if known} == {
        "clock": '{"value": 1738000000.75, "fresh_at": 1738000000.75}',
        "portfolio": '{"value": 100000.0, "fresh_at": 1738000000.75, '
        '"extra": {"timestamp": 1737999996.75, "drawdown": 0.1}}',
        "heat": '{"value": 0.25, "fresh_at": 1738000000.75}',
        "drawdown": '{"value": 0.1, "fresh_at": 1738000000.75}',
        "cluster:default": '{"value": 0.5, "fresh_at": 1738000000.75}',
        "regime:BTC": '{"value": 0.0, "fresh_at": 1738000000.75}',
    }


@pytest.mark.parametrize(
    "raw",
    ["", "x", "{}", "[]", "null", "1", '{"value": 0.1}', '{"value": NaN, "fresh_at": 1}',
     '{"value": true, "fresh_at": 1}', '{"value": 2, "fresh_at": 1}',
     '{"value": -1, "fresh_at": 1}',
     '{"value": 0.1, "fresh_at": "1"}', '{"value": 0.1, "fresh_at": 1, "extra": [1]}',
     '{"value": 0.1, "fresh_at": 1, "extra": {"a": Infinity}}', b"\xff", "[" * 100_000],
)  # fmt: skip
def test_a_memory_that_cannot_be_read_is_no_reason_to_be_less_careful(raw: str | bytes) -> None:
    known = remembered({"heat": raw, b"regime:BTC": raw, "cluster:default": raw})

    inputs = recalled(GONE, known, NOW)

    assert inputs.heat.value == inputs.regimes["BTC"].value == 1.0
    assert inputs.clusters["default"].value == 1.0
    if raw not in {'{"value": 2, "fresh_at": 1}'}:
        portfolio = recalled(GONE, remembered({"portfolio": raw, "clock": raw}), NOW).portfolio
        assert portfolio == Input(None, "missing")


def test_who_is_long_of_no_interest_is_forgotten() -> None:
    known = after(FRESH)
    others = replace(FRESH, clusters={}, regimes={"ETH": Input(0.0, "fresh")}, symbols=("ETH",))

    _, changes = recall(others, known, NOW + FORGET_SEC, SETTINGS)
    assert None not in changes.values()
    _, changes = recall(others, known, NOW + FORGET_SEC + 1, SETTINGS)
    assert {name for name, one in changes.items() if one is None} == {
        "cluster:default",
        "regime:BTC",
    }
    gone = replace(GONE, heat=Input(0.0, "not_configured"))
    _, changes = recall(gone, known, NOW + FORGET_SEC + 1, SETTINGS)
    assert None not in changes.values()  # of interest, though gone


# --- no broken, missing or late input ever raises a budget -----------------------------------

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
