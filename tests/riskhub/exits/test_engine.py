"""The decision: when an episode opens, is told again, closes, and what does neither."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import WORLD
from exiting import STAGE, START, Engine, landed, load, measured, rule, seen, write_rules

from riskhub.exits.book import RuleBook
from riskhub.exits.engine import decide
from riskhub.exits.observation import Observation


@pytest.fixture
def book_of(tmp_path: Path) -> Any:
    return lambda *rules, **file: load(write_rules(tmp_path / "rules.yaml", *rules, **file))


@pytest.fixture
def engine(book_of: Any) -> Any:
    return lambda *rules, **file: Engine(book_of(*rules, **file))


# --- opening and closing ---------------------------------------------------------------------


def test_it_opens_at_enter_closes_at_leave_and_nothing_changes_between(engine: Any) -> None:
    told = engine(rule()).see_days(0.05, 0.07, 0.08, 0.06, 0.0501, 0.07, 0.05, 0.07)
    assert told == ["-", "-", "opened", "-", "-", "-", "closed", "-"]


def test_an_episode_says_what_was_measured_against_what(engine: Any) -> None:
    one = engine(rule(mode="enforce"))
    one.see_days(0.03, 0.1)
    found = one.open
    assert (found.rule, found.world_id, found.stage) == ("es-limit", WORLD, STAGE)
    assert (found.action, found.severity, found.mode) == ("reduce", "critical", "enforce")
    assert found.target_fraction == pytest.approx(0.5)
    assert found.opened_at == found.opened_of == START + timedelta(days=1)
    about, number = found.evidence["rule"], found.evidence["opened"]
    assert about["unit"] == "loss, fraction of equity"
    assert (about["method"], about["level"], about["enter"], about["leave"]) == (
        *("historical", "0.99"),
        *(0.08, 0.05),
    )
    assert about["rules_digest"] == one.book.digest
    assert (number["value"], number["version"], number["digest"]) == (0.1, "v1", "sha256:0")
    assert (number["window"], number["horizon_days"], number["source"]) == (500, 1, "prices")
    assert one.signals == [("opened", "ES 0.99 historical is 10.00%, the threshold is 8.00%")]


def test_the_worst_is_kept_with_its_snapshot(engine: Any) -> None:
    one = engine(rule())
    one.see_days(0.1, 0.2, 0.15)
    assert (one.open.worst, one.open.value) == (0.2, 0.15)
    assert one.open.evidence["worst"]["version"] == "v1"
    assert one.open.evidence["newest"]["version"] == "v2"
    one.see_days(0.04, first=3)
    assert one.last.closed_at == START + timedelta(days=3)
    assert one.last.closed_because == "ES 0.99 historical is 4.00%, back at 5.00%"
    assert (one.last.worst, one.last.value) == (0.2, 0.04)


def test_the_id_follows_from_rule_world_stage_and_snapshot(engine: Any) -> None:
    first, second, other = engine(rule()), engine(rule()), engine(rule(id="other"))
    first.see_days(0.03, 0.1)
    second.see(seen(1, 0.1), START + timedelta(days=9))  # later, and alone
    other.see(seen(1, 0.1))
    assert first.open.id == second.open.id != other.open.id
    elsewhere = Engine(first.book)
    elsewhere.see(Observation("fx", STAGE, measured(1, 0.1)))
    assert elsewhere.open.id != first.open.id


def test_a_snapshot_that_opens_twice_makes_two_episodes(engine: Any) -> None:
    one = engine(rule())
    told = [one.see(seen(0, es)) for es in (0.1, 0.04, 0.1, 0.04, 0.1)]  # computed again
    assert told == [["opened"], ["closed"], ["opened"], ["closed"], ["opened"]]
    assert len(one.episodes) == 3


# --- confirmation and cool-down --------------------------------------------------------------


def test_as_many_snapshots_in_a_row_as_the_rule_wants(engine: Any) -> None:
    one = engine(rule(confirm={"snapshots": 3}))
    told = one.see_days(0.1, 0.1, 0.07, 0.1, 0.1, 0.1, 0.1)
    assert told == ["-", "-", "-", "-", "-", "opened", "-"]


def test_the_same_snapshot_again_confirms_nothing(engine: Any) -> None:
    one = engine(rule(confirm={"snapshots": 2}))
    assert [one.see(seen(0, 0.1)) for _ in range(5)] == [[]] * 5
    assert one.see(seen(1, 0.1)) == ["opened"]


def test_days_are_confirmed_by_days_and_any_snapshot_between_can_break_it(engine: Any) -> None:
    def at(hours: int, es: float) -> list[str]:
        return one.see(seen(hours, es, as_of=datetime(2026, 1, 5, tzinfo=UTC)
                            + timedelta(hours=hours)))  # fmt: skip

    one = engine(rule(confirm={"days": 2}))
    assert [at(hours, 0.1) for hours in (1, 5, 23)] == [[]] * 3
    assert at(23, 0.03) == []
    assert [at(hours, 0.1) for hours in (24, 40)] == [[]] * 2
    assert at(48, 0.1) == ["opened"]


def test_missing_data_neither_confirms_nor_breaks(engine: Any) -> None:
    one = engine(rule(confirm={"snapshots": 2}))
    assert one.see_days(0.1, None, 0.1) == ["-", "-", "opened"]


def test_a_snapshot_that_was_rejected_meanwhile_confirmed_nothing(engine: Any) -> None:
    one = engine(rule(confirm={"snapshots": 2}))
    assert one.see(seen(1, 0.1)) == []
    assert one.see(seen(0, 0.1)) == []  # the newest is the one before, then: 1 was taken away
    assert one.see(seen(2, 0.1)) == ["opened"]


def test_between_two_episodes_of_a_rule_lies_its_cool_down(engine: Any) -> None:
    one = engine(rule(cool_down="3d"))
    told = one.see_days(0.1, 0.04, 0.1, 0.1, 0.1, 0.1)
    assert told == ["opened", "closed", "-", "-", "opened", "-"]


# --- missing data ----------------------------------------------------------------------------


def test_missing_data_opens_nothing_and_closes_nothing_and_is_said(engine: Any) -> None:
    one = engine(rule())
    assert one.see_days(None, 0.1, None, None) == ["-", "opened", "-", "-"]
    missing = one.open.evidence["missing"]
    assert missing["why"] == "too few returns"
    assert missing["version"] == "v2"  # since when
    assert one.open.value == 0.1
    assert one.see(Observation(WORLD, STAGE)) == []
    assert one.open.evidence["missing"]["why"] == "there is no snapshot any more"
    assert one.see_days(0.06, first=4) == ["-"]
    assert "missing" not in one.open.evidence


def test_a_method_that_is_absent_says_why(engine: Any) -> None:
    one = engine(rule())
    one.see_days(0.1)
    without = measured(1, 0.1, absent={"historical": "not for this portfolio"})
    one.see(Observation(WORLD, STAGE, type(without)(without.metrics, {}, {}, {}, False)))
    assert one.open.evidence["missing"]["why"] == "not for this portfolio"


def test_an_older_number_than_the_newest_known_is_no_news(engine: Any) -> None:
    """Retention took the newest snapshot, say: the one before was calm, and closes nothing."""
    one = engine(rule())
    one.see_days(0.03, 0.1)
    assert one.see(seen(0, 0.03)) == []
    assert "is gone" in one.open.evidence["missing"]["why"]


# --- the quarantine --------------------------------------------------------------------------


def quarantined(observation: Observation, *positions: int) -> Observation:
    return Observation(
        observation.world_id,
        observation.stage,
        observation.measured,
        observation.landed,
        observation.zones,
        frozenset(positions),
    )


def test_what_a_rejected_snapshot_opened_ends_with_it(engine: Any) -> None:
    one = engine(rule())
    one.see_days(0.06, 0.1)  # 0.06 lies between the thresholds: by itself it closes nothing
    assert one.see(quarantined(seen(0, 0.06), 2)) == ["closed"]
    assert "quarantine" in one.last.closed_because


def test_it_stays_when_the_snapshot_before_breaches_too(engine: Any) -> None:
    one = engine(rule(confirm={"snapshots": 2}))
    one.see_days(0.09, 0.1)
    assert one.see(quarantined(seen(0, 0.09), 2)) == []
    assert one.open.value == 0.09


def test_a_calm_snapshot_that_was_rejected_leaves_the_one_before(engine: Any) -> None:
    one = engine(rule())
    one.see_days(0.1, 0.06)
    assert one.see(quarantined(seen(0, 0.1), 2)) == []
    assert one.open.evidence["newest"]["version"] == "v0"


# --- told again ------------------------------------------------------------------------------


def test_it_is_told_again_when_it_has_become_worse_by_so_much(engine: Any) -> None:
    one = engine(rule(escalate=0.25))
    told = one.see_days(0.1, 0.12, 0.125, 0.126, 0.13, 0.2, 0.1, 0.2)
    assert told == ["opened", "-", "-", "updated", "-", "updated", "-", "-"]
    assert one.signals[1][1] == "ES 0.99 historical has gone from 10.00% to 12.60%"
    assert one.open.target_fraction == pytest.approx(0.25)
    assert one.open.signals == 3


def test_what_the_rule_asks_for_now_is_told_of_what_is_open(engine: Any, book_of: Any) -> None:
    one = engine(rule())
    one.see_days(0.1)
    one.book = book_of(rule(), mode="enforce")
    assert one.see_days(0.1, None, first=1) == ["updated", "-"]
    assert one.open.mode == "enforce"
    one.book = book_of(rule(action="drain"), mode="enforce")
    assert one.see_days(None, first=3) == ["updated"]  # also while there is no number
    assert (one.open.action, one.open.target_fraction) == ("drain", None)


def test_an_episode_ends_with_its_rule(engine: Any, book_of: Any) -> None:
    one = engine(rule())
    one.see_days(0.1)
    one.book = book_of(rule(id="another", worlds=["fx"]))
    assert one.see_days(0.1, first=1) == ["closed"]
    assert one.last.closed_because == "the rule does not apply any more"
    one.book = book_of(rule(worlds=["fx"]))
    assert one.see_days(0.1, first=2) == ["-"]


# --- every kind ------------------------------------------------------------------------------


def test_var(engine: Any) -> None:
    one = engine(rule(kind="var", method="historical", level=0.99, enter=0.04, leave=0.03))
    assert one.see_days(0.07, 0.08, 0.06) == ["-", "opened", "closed"]  # VaR is half of it


@pytest.mark.parametrize("measure", ["current", "max"])
def test_drawdown(engine: Any, measure: str) -> None:
    one = engine(rule(kind="drawdown", measure=measure, enter=0.3, leave=0.2))
    told = [one.see(seen(n, **{f"{measure}_drawdown": value})) for n, value in
            enumerate((0.1, 0.3, None, 0.2))]  # fmt: skip
    assert told == [[], ["opened"], [], ["closed"]]


def test_concentration(engine: Any) -> None:
    largest = engine(rule(kind="concentration", measure="largest", enter=0.6, leave=0.5))
    assert [largest.see(seen(n, largest=value)) for n, value in enumerate((0.5, 0.7, 0.5))] == [
        *([], ["opened"], ["closed"])
    ]
    few = engine(rule(kind="concentration", measure="effective_names", enter=3, leave=5))
    values = (5, 2.5, 4, 6)
    assert [few.see(seen(n, effective_names=value)) for n, value in enumerate(values)] == [
        *([], ["opened"], [], ["closed"])
    ]


def test_few_names_escalate_downwards(engine: Any) -> None:
    few = engine(
        rule(kind="concentration", measure="effective_names", enter=4, leave=5, escalate=1)
    )
    told = [few.see(seen(n, effective_names=value)) for n, value in enumerate((4, 2.5, 1.9))]
    assert told == [["opened"], [], ["updated"]]
    assert few.open.worst == 1.9


STRESS = {"kind": "stress_loss", "enter": 0.4, "leave": 0.3, "action": "reduce"}


def test_stress_is_the_worst_scenario_by_name(engine: Any) -> None:
    one = engine(rule(**STRESS))
    assert one.see(seen(0, pnl={"a": 0.1, "b": -0.2})) == []
    assert one.see(seen(1, pnl={"a": -0.45, "b": -0.2, "c": None})) == ["opened"]
    evidence = one.open.evidence["opened"]
    assert (evidence["scenario"], evidence["scenarios"], evidence["unavailable"]) == ("a", 2, 1)
    assert one.open.target_fraction == pytest.approx(0.3 / 0.45)
    assert one.see(seen(2, pnl={"a": -0.3, "b": -0.2})) == ["closed"]


def test_only_the_scenarios_of_the_rule_count(engine: Any) -> None:
    one = engine(rule(**STRESS, scenarios=["crash-*"]))
    assert one.see(seen(0, pnl={"a": -0.9, "crash-1": -0.1})) == []
    assert one.see(seen(1, pnl={"a": 0.0, "crash-1": -0.5})) == ["opened"]


def test_a_scenario_that_can_not_be_had_any_more_closes_nothing(engine: Any) -> None:
    """What is left looks safe because what was not is missing."""
    one = engine(rule(**STRESS))
    one.see(seen(0, pnl={"a": -0.5, "b": -0.2}))
    assert one.see(seen(1, pnl={"a": None, "b": -0.2})) == []
    assert one.open.evidence["missing"]["why"] == "a: no prices"
    assert one.see(seen(2, pnl={"b": -0.2})) == ["closed"]  # the book has it no more
    assert "missing" not in one.last.evidence


def test_what_was_not_stressed_yet_is_missing(engine: Any) -> None:
    one = engine(rule(**STRESS))
    one.see(seen(0, pnl={"a": -0.5}))
    assert one.see(seen(1)) == []
    assert one.open.evidence["missing"]["why"] == "it was not stressed yet"


def zone(number: int, light: str, day: date) -> Observation:
    row = {
        "day": day,
        "zone": light,
        "exceedances": 12,
        "observations": 250,
        "multiplier": 4.0,
        "window": 250,
        "code_version": "riskhub/0",
    }
    return Observation(WORLD, STAGE, measured(number), zones={("ewma", "0.99"): row})


def test_the_light_of_a_model(engine: Any) -> None:
    model = {"kind": "model_zone", "method": "ewma", "level": 0.99}
    one = engine(rule(**model, enter="red", leave="green", confirm={"days": 2}))
    days = [date(2026, 1, 5) + timedelta(days=n) for n in range(9)]
    assert one.see(zone(0, "red", days[0])) == []
    assert one.see(zone(1, "red", days[0])) == []  # the same light, of another snapshot
    assert one.see(zone(1, "red", days[1])) == ["opened"]
    assert one.open.evidence["opened"]["exceedances"] == 12
    assert one.see(zone(2, "yellow", days[2])) == []
    assert one.see(zone(2, "green", days[0])) == []  # its newest is being computed again
    assert one.see(seen(3)) == []
    assert one.open.evidence["missing"]["why"] == "it has no backtest"
    assert one.see(zone(3, "green", days[3])) == ["closed"]


def aged(number: int, seconds: float) -> tuple[Observation, datetime]:
    newest = landed(number)
    seen_at = newest.as_of + timedelta(seconds=seconds)
    return Observation(WORLD, STAGE, measured(0), newest), seen_at


def test_age(engine: Any) -> None:
    one = engine(rule(kind="stale", enter="critical", leave="stale"))
    assert [one.see(*aged(0, sec)) for sec in (0, 1799, 1800, 4000)] == [[], [], ["opened"], []]
    assert one.see(*aged(1, 700)) == []
    assert one.see(*aged(2, 0)) == ["closed"]


def test_expiry(engine: Any) -> None:
    one = engine(rule(kind="expired", enter=1.0, leave=0.5))
    assert [one.see(*aged(0, sec)) for sec in (899, 900, 901)] == [[], ["opened"], []]
    assert one.see(*aged(1, 0)) == ["closed"]


def test_what_goes_stale_again_after_the_newest_was_rejected_is_another_episode(
    engine: Any,
) -> None:
    one = engine(rule(kind="stale", enter="critical", leave="stale"))
    one.see(*aged(0, 2000))
    one.see(*aged(1, 10))
    assert one.see(aged(0, 0)[0], landed(1).as_of + timedelta(seconds=60)) == ["opened"]
    assert len(one.episodes) == 2


# --- many rules ------------------------------------------------------------------------------


def test_rules_go_their_own_ways(book_of: Any) -> None:
    book: RuleBook = book_of(
        rule(), rule(id="low", enter=0.05, leave=0.02), rule(id="else", worlds=["fx"])
    )
    decision = decide(book, seen(0, 0.06), {}, START)
    assert [signal.episode.rule for signal in decision.signals] == ["low"]
    assert decision.states.keys() == {"low"}
    after = decide(book, seen(1, 0.09), decision.states, START + timedelta(days=1))
    assert [signal.episode.rule for signal in after.signals] == ["es-limit"]


def test_the_same_again_changes_nothing(book_of: Any) -> None:
    book = book_of(rule(), rule(id="low", enter=0.05, leave=0.02, confirm={"days": 9}))
    states = dict(decide(book, seen(0, 0.09), {}, START).states)
    again = decide(book, seen(0, 0.09), states, START)
    assert (again.states, again.episodes, again.signals) == ({}, [], [])


def test_a_signal_says_all_of_it_as_json(engine: Any, book_of: Any) -> None:
    (signal,) = decide(book_of(rule()), seen(0, 0.1), {}, START).signals
    data = signal.data()
    assert signal.id == data["signal_id"] == f"{data['episode_id']}:1"
    assert data["opened_at"] == data["at"] == "2026-01-05T21:00:00.000000Z"
    assert (data["signal"], data["number"], data["closed_at"]) == ("opened", 1, None)
    assert data["target_fraction"] == pytest.approx(0.5)
