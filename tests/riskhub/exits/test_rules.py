"""The file of exit rules: what it may say, and how it is refused."""

from pathlib import Path
from typing import Any

import pytest
from exiting import load, rule, write_rules

from riskhub.exits.book import RuleFileInvalid
from riskhub.exits.rules import (
    ConcentrationRule,
    ModelZoneRule,
    StaleRule,
    TailRule,
    show_seconds,
)
from riskhub.settings import Settings

SHIPPED = Settings.model_fields["exit_rules_path"].default


def problem(tmp_path: Path, *rules: dict[str, Any], **file: Any) -> str:
    with pytest.raises(RuleFileInvalid) as refused:
        load(write_rules(tmp_path / "rules.yaml", *rules, **file))
    return "; ".join(refused.value.problems)


def test_the_shipped_rules_have_every_kind_and_are_in_shadow_mode() -> None:
    book = load(SHIPPED)
    kinds = {rule.kind for rule in book.rules}
    assert kinds == {
        *("var", "es", "drawdown", "concentration", "stress_loss", "model_zone"),
        *("stale", "expired"),
    }
    assert {rule.mode for rule in book.rules} == {"shadow"}
    assert {rule.action for rule in book.rules} == {"freeze", "drain", "reduce"}


def test_a_rule_is_read_with_what_it_leaves_out(tmp_path: Path) -> None:
    (found,) = load(write_rules(tmp_path / "r.yaml", rule())).rules
    assert isinstance(found, TailRule)
    assert (found.level, found.method, found.thresholds) == ("0.99", "historical", (0.08, 0.05))
    assert (found.mode, found.confirm.count, found.cool_down) == ("shadow", 1, 0)
    assert found.applies_to("any", "stage")
    assert found.measure_text == "ES 0.99 historical"


def test_a_rule_without_a_mode_has_that_of_the_file(tmp_path: Path) -> None:
    rules = rule(id="a"), rule(id="b", mode="shadow")
    book = load(write_rules(tmp_path / "r.yaml", *rules, mode="enforce"))
    assert [each.mode for each in book.rules] == ["enforce", "shadow"]


def test_durations_are_written_as_people_do_or_taken_from_the_settings(tmp_path: Path) -> None:
    rules = (
        rule(id="a", kind="stale", enter="critical", leave="stale", cool_down="2h"),
        rule(id="b", kind="stale", enter="45m", leave="90s", cool_down="5d"),
    )
    first, second = load(write_rules(tmp_path / "r.yaml", *rules)).rules
    assert isinstance(first, StaleRule)
    assert (first.thresholds, first.cool_down) == ((1800, 600), 7200)
    assert (second.thresholds, second.cool_down) == ((2700, 90), 432_000)
    assert [show_seconds(each) for each in (2700, 90, 86_400, 0)] == ["45m", "90s", "1d", "0s"]


def test_scope_is_by_patterns(tmp_path: Path) -> None:
    scoped = rule(worlds=["eq*", "fx"], stages=["live"])
    (found,) = load(write_rules(tmp_path / "r.yaml", scoped)).rules
    asked = [("equities", "live"), ("fx", "live"), ("fx2", "live"), ("fx", "paper")]
    assert [found.applies_to(*each) for each in asked] == [True, True, False, False]


def test_few_names_are_worse_and_zones_are_in_order(tmp_path: Path) -> None:
    few = rule(id="few", kind="concentration", measure="effective_names", enter=3, leave=5)
    zone = rule(
        id="zone", kind="model_zone", method="ewma", level=0.99, enter="yellow", leave="green"
    )
    names, model = load(write_rules(tmp_path / "r.yaml", few, zone)).rules
    assert isinstance(names, ConcentrationRule)
    assert [names.breaches(value) for value in (2.0, 3.0, 3.5)] == [True, True, False]
    assert [names.is_safe(value) for value in (4.5, 5.0)] == [False, True]
    assert isinstance(model, ModelZoneRule)
    assert [model.breaches(value) for value in (0.0, 1.0, 2.0)] == [False, True, True]
    assert model.shown(2.0) == "red"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"enter": 0.04}, "rules[0] (es-limit): leave: 5.00% must lie below enter, 4.00%"),
        ({"leave": 0.08}, "rules[0] (es-limit): leave: 8.00% must lie below enter, 8.00%"),
        ({"enter": "much"}, "rules[0] (es-limit).enter: "),
        ({"enter": float("nan")}, "rules[0] (es-limit).enter: "),
        ({"enter": True}, "rules[0] (es-limit).enter: "),
        ({"level": 0.9}, "rules[0] (es-limit).level: must be one of 0.95, 0.975, 0.99"),
        ({"level": None}, "rules[0] (es-limit).level: must be one of"),
        ({"method": "guess"}, "rules[0] (es-limit).method: "),
        ({"cool_down": 5}, "rules[0] (es-limit).cool_down: must be a duration such as 30m"),
        ({"cool_down": "-5d"}, "rules[0] (es-limit).cool_down: must be a duration"),
        ({"confirm": {"days": 0}}, "rules[0] (es-limit).confirm.days: "),
        ({"confirm": {"days": 2, "snapshots": 2}}, "must give either snapshots or days"),
        ({"confirm": {}}, "must give either snapshots or days"),
        ({"worlds": []}, "rules[0] (es-limit).worlds: "),
        ({"mode": "on"}, "rules[0] (es-limit).mode: "),
        ({"action": "sell"}, "rules[0] (es-limit).action: "),
        ({"threshold": 1}, "rules[0] (es-limit).threshold: "),
        ({"id": "ES Limit"}, "rules[0] (ES Limit).id: "),
        ({"kind": "es", "escalate": 0}, "rules[0] (es-limit).escalate: "),
        ({"kind": "guess"}, "rules[0] (es-limit): "),
    ],
)  # fmt: skip
def test_a_refusal_names_rule_and_field(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    assert named in problem(tmp_path, rule() | changed)


def test_only_what_shrinks_with_the_positions_is_reduced(tmp_path: Path) -> None:
    drawdown = rule(kind="drawdown", enter=0.3, leave=0.2, action="reduce")
    assert "action: reduce needs a number that shrinks" in problem(tmp_path, drawdown)


def test_an_age_is_not_confirmed(tmp_path: Path) -> None:
    stale = rule(kind="stale", enter="30m", leave="10m", confirm={"snapshots": 2})
    assert "confirm: an age is confirmed by itself" in problem(tmp_path, stale)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    told = problem(tmp_path, rule(id="a", enter="x"), rule(id="b", action="sell"))
    assert "rules[0] (a).enter" in told
    assert "rules[1] (b).action" in told


def test_an_id_is_given_once(tmp_path: Path) -> None:
    assert problem(tmp_path, rule(), rule()) == "the id es-limit is given twice"


@pytest.mark.parametrize("content", ["", "rules: []", "rules: {}", "- 1", "mode: enforce", "a: [b"])
def test_a_file_without_rules_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(content)
    with pytest.raises(RuleFileInvalid, match=r"rules\.yaml"):
        load(path)


def test_a_mode_that_is_none_is_refused_once(tmp_path: Path) -> None:
    assert problem(tmp_path, rule(), mode="on").startswith("mode: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleFileInvalid, match=r"gone\.yaml"):
        load(tmp_path / "gone.yaml")


def test_the_digest_is_of_what_is_said_not_of_the_layout(tmp_path: Path) -> None:
    book = load(write_rules(tmp_path / "a.yaml", rule()))
    commented = tmp_path / "b.yaml"
    commented.write_text("# why\n" + (tmp_path / "a.yaml").read_text())
    assert load(commented).digest == book.digest
    assert load(write_rules(tmp_path / "c.yaml", rule(enter=0.09))).digest != book.digest


def test_reducing_brings_the_number_to_where_the_episode_ends(tmp_path: Path) -> None:
    (reduce,) = load(write_rules(tmp_path / "r.yaml", rule())).rules
    assert reduce.target_fraction(0.1) == pytest.approx(0.5)
    assert reduce.target_fraction(0.04) == 1
    (freeze,) = load(write_rules(tmp_path / "r.yaml", rule(action="freeze"))).rules
    assert freeze.target_fraction(0.1) is None
