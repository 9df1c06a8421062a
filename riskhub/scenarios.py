"""Stress scenarios as data: reading their file, and cutting what they need out of a price panel.

What a scenario does to a portfolio is computed in `riskhub.risk.stress`. A scenario that cannot be
had for a portfolio, for want of a price or because it lies ahead, is refused by name. It is never
taken to cost nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from riskhub import strict_yaml
from riskhub.digests import canonical_json, digest
from riskhub.errors import RiskHubError
from riskhub.prices import PanelEnded, PricePanel, UnknownSymbol
from riskhub.risk import RiskInputError, betas

_NAMED = 5


class ScenarioFileInvalid(RiskHubError):
    """The file of scenarios cannot be used. `problems`: each with the place it was found at."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(f"scenario file {path}: {'; '.join(problems)}")
        self.path = path
        self.problems = tuple(problems)


class ScenarioUnavailable(RiskHubError):
    """A scenario has no answer for a portfolio. `missing`: the symbols without prices, if any."""

    def __init__(self, scenario: str, reason: str, missing: Sequence[str] = ()) -> None:
        super().__init__(f"scenario {scenario} is unavailable: {reason}")
        self.scenario = scenario
        self.reason = reason
        self.missing = tuple(missing)


class ScenarioAhead(ScenarioUnavailable):
    """What a scenario needs lies after the day asked for, when nobody could have known it."""


class _Scenario(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(pattern=r"^[a-z0-9.-]{1,64}$")
    title: str = Field(min_length=1, max_length=128)

    @property
    def label(self) -> str:
        """What a person reads beside the number."""
        return self.title


class Historical(_Scenario):
    """Returns of the days from `start` to `end`, both included, replayed; for `replay`."""

    kind: Literal["historical"]
    start: date
    end: date

    @model_validator(mode="after")
    def _in_order(self) -> "Historical":
        if self.end < self.start:
            raise ValueError(f"ends on {self.end}, before it starts on {self.start}")
        return self


class CovarianceShift(_Scenario):
    """Sigmas times `volatility`, correlations toward one; for `stressed_tail`."""

    kind: Literal["covariance"]
    volatility: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    toward_one: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _does_something(self) -> "CovarianceShift":
        if self.volatility == 1 and self.toward_one == 0:
            raise ValueError("changes neither volatility nor correlation")
        return self


class Gap(_Scenario):
    """The `count` largest positions move `size` against their holder; for `gap`."""

    kind: Literal["gap"]
    size: float = Field(gt=0, le=1)
    count: int = Field(ge=1)


class MarketMove(_Scenario):
    """A market's `move` on `day`, mapped by betas over `beta_days` days; for `beta_shock`."""

    kind: Literal["market"]
    day: date
    move: float = Field(gt=-1, allow_inf_nan=False)
    beta_days: int = Field(ge=2)

    @property
    def label(self) -> str:
        """The title, saying that no price of the day was replayed."""
        return f"{self.title} ({self.move:+.2%}), mapped by beta"


Scenario = Historical | CovarianceShift | Gap | MarketMove


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    scenarios: list[Annotated[Scenario, Field(discriminator="kind")]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class ScenarioBook:
    """The scenarios of a file, in its order, with distinct ids.

    `digest`: `sha256:<hex>` of what they say; comments and layout of the file do not change it.
    """

    scenarios: tuple[Scenario, ...]
    digest: str


def load_scenarios(path: Path) -> ScenarioBook:
    """The scenarios in a YAML file, all of them or none.

    Raises `ScenarioFileInvalid` with every problem: a file that is missing or no YAML, an unknown
    kind or field, a value out of range, an id given twice.
    """
    try:
        content = strict_yaml.load(path)
    except strict_yaml.YamlUnreadable as error:
        raise ScenarioFileInvalid(path, [str(error)]) from error
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{_place(each['loc'])}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise ScenarioFileInvalid(path, problems) from error
    ids = [scenario.id for scenario in file.scenarios]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise ScenarioFileInvalid(path, [f"the id {each} is given twice" for each in twice])
    content = file.model_dump(mode="json")
    return ScenarioBook(tuple(file.scenarios), digest(canonical_json(content)))


def _place(steps: tuple[int | str, ...]) -> str:
    """`scenarios[3].start` for ("scenarios", 3, "historical", "start"): the kind is no place."""
    if not steps:
        return "the file"
    named = [step for position, step in enumerate(steps) if position != 2]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in named)[1:]


def window_returns(
    scenario: Historical, panel: PricePanel, symbols: Sequence[str], as_of: date
) -> NDArray[np.float64]:
    """(n, N) simple daily returns of `symbols` in the scenario's window, n >= 1, oldest first.

    The first return is that of the first trading day from `start` on, over the close before it.

    Raises `ScenarioAhead`: the window ends after `as_of`. Raises `ScenarioUnavailable`: a symbol
    has no prices, or the panel does not reach from before `start` to `end`.
    """
    refuse_ahead(scenario, as_of)
    if panel.days[0] >= scenario.start:
        raise ScenarioUnavailable(scenario.id, f"prices begin on {panel.days[0]}")
    if panel.days[-1] < scenario.end:
        raise ScenarioUnavailable(scenario.id, f"prices end on {panel.days[-1]}")
    columns = columns_of(scenario, panel, symbols)
    first = bisect_left(panel.return_days, scenario.start)
    stop = bisect_right(panel.return_days, scenario.end)
    if first == stop:
        raise ScenarioUnavailable(scenario.id, "there is no trading day in it")
    return np.take(panel.returns[first:stop], columns, axis=1)


def market_betas(
    scenario: MarketMove, panel: PricePanel, symbols: Sequence[str], as_of: date
) -> NDArray[np.float64]:
    """(N,) betas of `symbols` to the market over the scenario's `beta_days` days up to `as_of`.

    Raises `ScenarioUnavailable` also when a symbol has no prices; else as `panel_betas`.
    """
    slopes = panel_betas(scenario, panel, as_of)
    return np.take(slopes, columns_of(scenario, panel, symbols))


def panel_betas(scenario: MarketMove, panel: PricePanel, as_of: date) -> NDArray[np.float64]:
    """The betas of all the panel's symbols to the market; see `market_betas`.

    The market is the panel itself: all its symbols at equal weights, rebalanced every day. It
    stands for the index that the move is of, which the panel does not have.

    Raises `ScenarioAhead`: the move lies after `as_of`. Raises `ScenarioUnavailable`: the panel
    has fewer days before it, or ended long before; or the market did not move on them.
    """
    refuse_ahead(scenario, as_of)
    try:
        window = panel.window(panel.symbols, as_of, scenario.beta_days)
        if len(window) < scenario.beta_days:
            raise ScenarioUnavailable(
                scenario.id, f"{len(window)} days of returns, {scenario.beta_days} needed"
            )
        return betas(window, window.mean(axis=1))
    except (PanelEnded, RiskInputError) as error:
        raise ScenarioUnavailable(scenario.id, str(error)) from error


def refuse_ahead(scenario: Historical | MarketMove, as_of: date) -> None:
    """Raises `ScenarioAhead` when `as_of` lies before the end of what the scenario is of."""
    last = scenario.end if isinstance(scenario, Historical) else scenario.day
    if last > as_of:
        raise ScenarioAhead(scenario.id, f"{last} lies after {as_of}")


def columns_of(scenario: Scenario, panel: PricePanel, symbols: Sequence[str]) -> list[int]:
    """The panel's column of each symbol. Raises `ScenarioUnavailable` where one has no prices."""
    try:
        return panel.columns(symbols)
    except UnknownSymbol as error:
        named = ", ".join(error.missing[:_NAMED])
        more = len(error.missing) - _NAMED
        reason = f"no prices for {named}" + (f" and {more} more" if more > 0 else "")
        raise ScenarioUnavailable(scenario.id, reason, error.missing) from error
