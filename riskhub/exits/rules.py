"""Exit rules, kind by kind: what each measures, and when it is breached or safe. Pure."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from riskhub.governor.settings import Mode
from riskhub.risk import LEVELS, Method, format_level, parse_level

ZONES = ("green", "yellow", "red")

Action = Literal["freeze", "drain", "reduce"]
Severity = Literal["info", "warning", "critical"]
Zone = Literal["green", "yellow", "red"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LEVEL_TEXTS = tuple(map(format_level, LEVELS))


def _seconds(value: Any, info: ValidationInfo) -> float:
    """Seconds of ``90s``, ``30m``, ``2h``, ``5d``, or of a word that the settings give."""
    words: dict[str, float] = info.context or {}
    if isinstance(value, str):
        if value in words:
            return float(words[value])
        if found := re.fullmatch(r"([0-9]{1,9})([smhd])", value):
            return float(int(found[1]) * _UNITS[found[2]])
    there_are = "".join(f", {word}" for word in sorted(words))
    raise ValueError(f"must be a duration such as 30m, 2h or 5d{there_are}")


def _level(value: Any) -> str:
    """A level of those that are computed, from text or a YAML number."""
    text = repr(value) if isinstance(value, float) else value
    try:
        level = format_level(parse_level(text))
    except (ValueError, AttributeError):
        level = ""
    if level not in _LEVEL_TEXTS:
        raise ValueError(f"must be one of {', '.join(_LEVEL_TEXTS)}")
    return level


Duration = Annotated[float, BeforeValidator(_seconds)]
Level = Annotated[str, BeforeValidator(_level)]
Patterns = Annotated[list[str], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Confirm(Strict):
    """How often the threshold must be breached, without a break, before an episode opens."""

    snapshots: int | None = Field(default=None, ge=1, description="Distinct `as_of`.")
    days: int | None = Field(default=None, ge=1, description="Distinct UTC days of `as_of`.")

    @model_validator(mode="after")
    def _is_one(self) -> "Confirm":
        if (self.snapshots is None) == (self.days is None):
            raise ValueError("must give either snapshots or days")
        return self

    @property
    def count(self) -> int:
        """How many of them."""
        return self.snapshots or self.days or 1


class _Rule(Strict):
    id: str = Field(pattern=r"^[a-z0-9.-]{1,64}$")
    title: str = Field(min_length=1, max_length=128)
    action: Action
    severity: Severity
    mode: Mode = "shadow"
    worlds: Patterns = ["*"]
    stages: Patterns = ["*"]
    confirm: Confirm = Confirm(snapshots=1)
    cool_down: Duration = 0.0
    escalate: float | None = Field(
        default=None, gt=0, description="Signal again when worse by this share than last told."
    )

    @property
    def measure_text(self) -> str:
        """What is measured, in words."""
        raise NotImplementedError

    @property
    def thresholds(self) -> tuple[float, float]:
        """Enter and leave, as numbers."""
        raise NotImplementedError

    @property
    def sign(self) -> int:
        """1 where more is worse, -1 where less is."""
        return 1

    @property
    def shrinks_with_positions(self) -> bool:
        """Whether half the positions have half of it."""
        return False

    @property
    def convention(self) -> dict[str, Any]:
        """What the number is, for the evidence."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _is_possible(self) -> "_Rule":
        enter, leave = self.thresholds
        if self.sign * (enter - leave) <= 0:
            side = "below" if self.sign > 0 else "above"
            raise ValueError(
                f"leave: {self.shown(leave)} must lie {side} enter, {self.shown(enter)}"
            )
        if self.action == "reduce" and not self.shrinks_with_positions:
            raise ValueError("action: reduce needs a number that shrinks with the positions")
        return self

    def breaches(self, value: float) -> bool:
        """Whether a value is at the threshold to enter, or beyond it."""
        return self.sign * value >= self.sign * self.thresholds[0]

    def is_safe(self, value: float) -> bool:
        """Whether a value is at the threshold to leave, or on its safe side."""
        return self.sign * value <= self.sign * self.thresholds[1]

    def is_worse(self, value: float, than: float) -> bool:
        """Whether one value is worse than another."""
        return self.sign * value > self.sign * than

    def target_fraction(self, value: float) -> float | None:
        """The share of each position that may stay, for the value to come down to `leave`.

        None: the action is not to reduce. At `enter` instead of `leave` it would stay open.
        """
        if self.action != "reduce" or value <= 0:
            return None
        return min(1.0, self.thresholds[1] / value)

    def applies_to(self, world_id: str, stage: str) -> bool:
        """Whether a world and a stage are in its scope."""
        return _matches(world_id, self.worlds) and _matches(stage, self.stages)

    def shown(self, value: float) -> str:
        """A value as people read it."""
        return f"{value:.2%}"


class TailRule(_Rule):
    """Value at risk or expected shortfall, a day's, of the newest measured snapshot."""

    kind: Literal["var", "es"]
    method: Method
    level: Level
    enter: float = Field(gt=0)
    leave: float = Field(gt=0)

    @property
    def measure_text(self) -> str:
        """Such as ``VaR 0.99 historical``."""
        return f"{'VaR' if self.kind == 'var' else 'ES'} {self.level} {self.method}"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Fractions of equity."""
        return self.enter, self.leave

    @property
    def shrinks_with_positions(self) -> bool:
        """It is homogeneous in the weights."""
        return True

    @property
    def convention(self) -> dict[str, Any]:
        """A loss is positive."""
        return {"method": self.method, "level": self.level, "unit": "loss, fraction of equity"}


class DrawdownRule(_Rule):
    """How far the portfolio, as it is weighted now, stands below its peak in the window."""

    kind: Literal["drawdown"]
    measure: Literal["current", "max"] = "current"
    enter: float = Field(gt=0, le=1)
    leave: float = Field(ge=0, lt=1)

    @property
    def measure_text(self) -> str:
        """Which of the two."""
        return f"{self.measure} drawdown"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Fractions of the peak."""
        return self.enter, self.leave

    @property
    def convention(self) -> dict[str, Any]:
        """A loss is positive."""
        return {"measure": self.measure, "unit": "loss, fraction of the peak in the window"}


class ConcentrationRule(_Rule):
    """The largest position, the Herfindahl index of the weights, or its inverse."""

    kind: Literal["concentration"]
    measure: Literal["largest", "herfindahl", "effective_names"]
    enter: float = Field(gt=0)
    leave: float = Field(gt=0)

    @property
    def measure_text(self) -> str:
        """Its name."""
        names = {"largest": "largest position", "herfindahl": "Herfindahl index"}
        return names.get(self.measure, "effective names")

    @property
    def thresholds(self) -> tuple[float, float]:
        """Weights, an index or a number of names."""
        return self.enter, self.leave

    @property
    def sign(self) -> int:
        """Few names are worse."""
        return -1 if self.measure == "effective_names" else 1

    @property
    def convention(self) -> dict[str, Any]:
        """What it counts."""
        units = {"largest": "fraction of equity", "herfindahl": "index", "effective_names": "names"}
        return {"measure": self.measure, "unit": units[self.measure]}

    def shown(self, value: float) -> str:
        """A share, or a number."""
        return f"{value:.2%}" if self.measure == "largest" else f"{value:.4g}"


class StressLossRule(_Rule):
    """The largest loss that a scenario of the book takes."""

    kind: Literal["stress_loss"]
    scenarios: Patterns = ["*"]
    enter: float = Field(gt=0)
    leave: float = Field(gt=0)

    @property
    def measure_text(self) -> str:
        """The scenarios, where not all of them."""
        which = "" if self.scenarios == ["*"] else f" of {', '.join(self.scenarios)}"
        return f"worst stress loss{which}"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Fractions of equity."""
        return self.enter, self.leave

    @property
    def shrinks_with_positions(self) -> bool:
        """It is homogeneous in the weights."""
        return True

    @property
    def convention(self) -> dict[str, Any]:
        """A loss is positive."""
        return {"scenarios": self.scenarios, "unit": "loss, fraction of equity"}

    def considers(self, scenario: str) -> bool:
        """Whether a scenario counts."""
        return _matches(scenario, self.scenarios)


class ModelZoneRule(_Rule):
    """Basel's light of a VaR model's newest backtest."""

    kind: Literal["model_zone"]
    method: Method
    level: Level
    enter: Zone
    leave: Zone
    escalate: None = None

    @property
    def measure_text(self) -> str:
        """The model."""
        return f"light of VaR {self.level} {self.method}"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Places among the zones."""
        return float(ZONES.index(self.enter)), float(ZONES.index(self.leave))

    @property
    def convention(self) -> dict[str, Any]:
        """The zones from good to bad."""
        return {"method": self.method, "level": self.level, "unit": "0 green, 1 yellow, 2 red"}

    def shown(self, value: float) -> str:
        """The light."""
        return ZONES[int(value)]


class _AgeRule(_Rule):
    @model_validator(mode="after")
    def _needs_no_confirmation(self) -> "_AgeRule":
        if self.confirm.count > 1:
            raise ValueError("confirm: an age is confirmed by itself, make enter larger")
        return self


class StaleRule(_AgeRule):
    """How old the newest snapshot is that is not in the quarantine."""

    kind: Literal["stale"]
    measure: Literal["age"] = "age"
    enter: Duration
    leave: Duration

    @property
    def measure_text(self) -> str:
        """Of what."""
        return "age of the newest snapshot"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Seconds."""
        return self.enter, self.leave

    @property
    def convention(self) -> dict[str, Any]:
        """Seconds."""
        return {"measure": self.measure, "unit": "seconds since as_of"}

    def shown(self, value: float) -> str:
        """As it is written in the file."""
        return show_seconds(value)


class ExpiredRule(_AgeRule):
    """How much of its time to live the newest snapshot has used up: 1 is expired."""

    kind: Literal["expired"]
    enter: float = Field(gt=0)
    leave: float = Field(gt=0)

    @property
    def measure_text(self) -> str:
        """Of what."""
        return "used of the newest snapshot's ttl"

    @property
    def thresholds(self) -> tuple[float, float]:
        """Shares of the time to live."""
        return self.enter, self.leave

    @property
    def convention(self) -> dict[str, Any]:
        """From its receipt on."""
        return {"unit": "seconds since receipt, fraction of ttl_sec"}


Rule = (
    TailRule
    | DrawdownRule
    | ConcentrationRule
    | StressLossRule
    | ModelZoneRule
    | StaleRule
    | ExpiredRule
)


def show_seconds(seconds: float) -> str:
    """A duration in the largest unit that it is a whole number of."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
