"""What was known stands in for what is gone, and never so that a budget rises."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import redis

from riskhub.governor import (
    GovernorInputs,
    GovernorSettings,
    Input,
    Known,
    PortfolioState,
    recall,
)
from riskhub.governor.inputs import NO_DRAWDOWN, heat_input, portfolio_input, regime_input
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


def test_losing_the_first_metric_is_no_reason_to_believe_a_calmer_second() -> None:
    both = heat_input("portfolio_heat_composite_normalized 0.8\np26_heat_value 0.1\n")
    second = heat_input("p26_heat_value 0.1\n")

    known = after(replace(FRESH, heat=both))

    assert recalled(replace(FRESH, heat=second), known, NOW + 5).heat == Input(
        0.8, "held", 5.0, 5.0
    )
    assert recalled(replace(FRESH, heat=second), {}, NOW + 5).heat.value == 0.1


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


def found(timestamp: float, now: float, *, drawdown: float = 0.1) -> GovernorInputs:
    """Everything fresh, and a portfolio state of that time as it is judged now."""
    state = portfolio_input(["100000", repr(drawdown), repr(timestamp)], now=now, stale_sec=30)
    judged = Input(drawdown, "fresh") if state.policy == "fresh" else NO_DRAWDOWN
    return replace(FRESH, portfolio=state, drawdown=judged)


def policies(*states: tuple[float, float]) -> list[tuple[str, float]]:
    """Of states of these times, seen at these, one after another: their policy, and since when."""
    known: dict[str, Known] = {}
    told = []
    for timestamp, now in states:
        judged = found(NOW + timestamp, NOW + now)
        portfolio = recalled(judged, known, NOW + now).portfolio
        told.append((portfolio.policy, portfolio.unfresh_sec))
        known = after(judged, known, NOW + now)
    return told


def test_a_state_that_was_stale_is_not_fresh_when_the_clock_steps_back() -> None:
    # Never fresh, so there were no budgets:
    assert policies((0, 40), (0, 10), (0, 12)) == [("stale", 0.0)] * 3
    # Fresh at first, so that they get smaller:
    assert policies((0, 5), (0, 40), (0, 10), (0, 20)) == [
        *(("fresh", 0.0), ("last_known_good", 35.0)),
        *(("last_known_good", 35.0), ("last_known_good", 45.0)),
    ]


def test_a_state_that_is_fresh_grows_old_as_if_no_clock_had_stepped_back() -> None:
    assert policies((0, 20), (0, 5), (0, 14), (0, 15))[1:] == [
        *(("fresh", 0.0), ("fresh", 0.0), ("last_known_good", 1.0)),
    ]
    judged, known = found(NOW, NOW + 5), after(found(NOW, NOW + 20), None, NOW + 20)
    assert recalled(judged, known, NOW + 5).portfolio.age_sec == 20.0


def test_a_state_that_a_step_made_one_of_the_future_is_not_fresh_when_its_time_comes() -> None:
    assert policies((0, 1), (0, -9), (0, -5), (0, -1), (0, 5), (6, 6))[1:] == [
        *(("last_known_good", since) for since in (0.0, 4.0, 8.0, 14.0)),
        ("fresh", 0.0),
    ]


def test_after_a_step_a_state_from_before_that_one_is_no_fresher() -> None:
    assert policies((0, 40), (-5, 0)) == [("stale", 0.0)] * 2


def test_a_producer_that_lives_is_believed_at_its_second_state_after_a_step() -> None:
    hour = 3_600
    assert policies((0, 1), (6 - hour, 7 - hour), (11 - hour, 12 - hour)) == [
        *(("fresh", 0.0), ("last_known_good", 0.0), ("fresh", 0.0)),
    ]
    assert policies((0, 40), (11, 12)) == [("stale", 0.0), ("fresh", 0.0)]


def test_the_age_of_what_stands_in_does_not_shrink_with_the_clock() -> None:
    known = after(GONE, after(FRESH), NOW + 60)
    inputs = recalled(GONE, known, NOW + 10)
    assert (inputs.portfolio.unfresh_sec, inputs.portfolio.age_sec) == (60.0, 64.0)


def test_the_drawdown_of_a_state_that_is_not_fresh_is_not_believed_either() -> None:
    known = after(found(NOW, NOW + 5, drawdown=0.5), None, NOW + 5)
    known = after(found(NOW, NOW + 40, drawdown=0.0), known, NOW + 40)

    judged = found(NOW, NOW + 10, drawdown=0.0)

    assert judged.portfolio.policy == "fresh"
    assert recalled(judged, known, NOW + 10).drawdown == Input(0.5, "held", 35.0, 35.0)


@pytest.mark.parametrize("seen", ["x", "{}", '{"value": "x", "fresh_at": 0}'])
def test_what_was_seen_and_cannot_be_read_is_not_remembered(seen: str) -> None:
    assert remembered({"seen": seen, "expired:heat": seen}) == {}


def test_what_was_seen_expired_is_missing_until_a_newer_one() -> None:
    def heat(as_of: float, value: float | None) -> GovernorInputs:
        if value is None:
            return replace(FRESH, heat=Input(1.0, "missing", as_of=as_of))
        return replace(FRESH, heat=Input(value, "fresh", as_of=as_of))

    known = after(heat(NOW - 60, 0.2))
    known = after(heat(NOW - 60, None), known, NOW + 10)
    known = after(heat(NOW - 99, None), known, NOW + 20)  # a removed one leaves an older one

    assert recalled(heat(NOW - 60, 0.1), known, NOW + 5).heat == Input(0.2, "held", 20.0, 20.0)
    assert recalled(heat(NOW - 60, 0.1), known, NOW + 2_000).heat.value == 1.0
    assert recalled(heat(NOW - 59, 0.1), known, NOW + 5).heat.policy == "fresh"


def test_when_the_clock_jumps_ahead_what_was_known_is_old() -> None:
    inputs = recalled(GONE, after(FRESH), NOW + 86_400)

    assert inputs.portfolio.policy == "too_old"
    assert inputs.heat == Input(1.0, "held_careful", 86_400.0, 86_400.0)


# --- what is kept ----------------------------------------------------------------------------


def test_it_is_kept_by_name_as_json_that_people_can_read() -> None:
    _, changes = recall(FRESH, {}, NOW, SETTINGS)

    assert {name: written(known) for name, known in changes.items() if known} == {
        "clock": '{"value": 1738000000.75, "fresh_at": 1738000000.75}',
        "seen": '{"value": 1737999996.75, "fresh_at": 1737999996.75}',
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
