"""The file of exit rules, read and checked: all of it, or a refusal that names rule and field."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from riskhub import strict_yaml
from riskhub.digests import canonical_json, digest
from riskhub.errors import RiskHubError
from riskhub.exits.rules import ModelZoneRule, Rule, Strict, TailRule
from riskhub.governor.settings import Mode


class RuleFileInvalid(RiskHubError):
    """The file of exit rules cannot be used. `problems`: each with the place it was found at."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(f"exit rules {path}: {'; '.join(problems)}")
        self.path = path
        self.problems = tuple(problems)


class _File(Strict):
    mode: Mode = "shadow"
    rules: list[Annotated[Rule, Field(discriminator="kind")]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rules of a file, in its order, with distinct ids.

    `digest`: `sha256:<hex>` of what they say; comments and layout of the file do not change it.
    """

    rules: tuple[Rule, ...]
    digest: str

    def by_id(self) -> dict[str, Rule]:
        """Each rule by its id."""
        return {rule.id: rule for rule in self.rules}

    def tail_kinds(self) -> frozenset[tuple[str, str]]:
        """The methods and levels that some rule reads."""
        return frozenset((r.method, r.level) for r in self.rules if isinstance(r, TailRule))

    def zone_kinds(self) -> frozenset[tuple[str, str]]:
        """The methods and levels of the lights that some rule reads."""
        return frozenset((r.method, r.level) for r in self.rules if isinstance(r, ModelZoneRule))


def load_rules(path: Path, *, stale_after_sec: float, critical_after_sec: float) -> RuleBook:
    """The rules in a YAML file, all of them or none.

    Args:
        stale_after_sec: what the word ``stale`` stands for where a duration is asked for.
        critical_after_sec: what ``critical`` does.

    Raises:
        RuleFileInvalid: with every problem: a file that is missing or no YAML, an unknown kind or
            field, a value out of range, an id given twice.
    """
    try:
        content = strict_yaml.load(path)
    except strict_yaml.YamlUnreadable as error:
        raise RuleFileInvalid(path, [str(error)]) from error
    words = {"stale": stale_after_sec, "critical": critical_after_sec}
    try:
        file = _File.model_validate(_with_default_mode(content), context=words)
    except ValidationError as error:
        problems = [
            f"{_place(each['loc'], content)}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise RuleFileInvalid(path, problems) from error
    ids = [rule.id for rule in file.rules]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise RuleFileInvalid(path, [f"the id {each} is given twice" for each in twice])
    said = file.model_dump(mode="json")
    return RuleBook(tuple(file.rules), digest(canonical_json(said)))


def _with_default_mode(content: Any) -> Any:
    """The file's mode, given to each rule that has none of its own."""
    if not (isinstance(content, dict) and isinstance(content.get("rules"), list)):
        return content
    mode = content.get("mode")
    if mode not in ("shadow", "enforce"):
        return content
    rules = [{"mode": mode} | rule if isinstance(rule, dict) else rule for rule in content["rules"]]
    return content | {"rules": rules}


def _place(steps: tuple[int | str, ...], content: Any) -> str:
    """``rules[3] (var-99).enter`` for ("rules", 3, "var", "enter"): the kind is no place."""
    if not steps:
        return "the file"
    named = [step for position, step in enumerate(steps) if position != 2]
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in named)[1:]
    try:
        rule_id = content["rules"][steps[1]]["id"]
    except (KeyError, IndexError, TypeError):
        return text
    place = f"rules[{steps[1]}]"
    return text.replace(place, f"{place} ({rule_id})", 1)
