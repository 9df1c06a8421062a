"""The freshness of a hub's worlds as a monitoring plugin tells it: asked over HTTP, nothing else.

The output is that of the Monitoring Plugins guidelines: a status with a sentence and performance
data, then a line per world; 0 is ok, 1 warning, 2 critical, 3 unknown.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from riskhub.errors import RiskHubError
from riskhub.freshness import ALWAYS_OPEN, Freshness, Severity, judge

UNKNOWN = 3
PATH = "/risk-hub/freshness"
TIMEOUT = httpx.Timeout(10.0, connect=3.0)
_NAMED = 3


class HubUnknown(RiskHubError):
    """The hub could not be asked, or not understood: how fresh its worlds are is unknown."""


class Seen(BaseModel):
    """One world and stage as the hub tells of it."""

    model_config = ConfigDict(frozen=True)

    world_id: str
    stage: str | None
    state: Freshness
    severity: Severity
    newest_as_of: datetime | None = None
    age_seconds: float | None = None
    open_age_seconds: float | None = None
    served: bool = False
    stale_after_sec: float
    critical_after_sec: float
    calendar: str = ALWAYS_OPEN
    note: str | None = None

    def held_against(self, warn: float | None, crit: float | None) -> "Seen":
        """The same under other limits, where they are given."""
        if warn is None and crit is None:
            return self
        stale = self.stale_after_sec if warn is None else warn
        critical = self.critical_after_sec if crit is None else crit
        limits = {"stale_after_sec": stale, "critical_after_sec": critical}
        if self.open_age_seconds is None or self.state is Freshness.EXEMPT:
            return self.model_copy(update=limits)
        state, severity = judge(self.open_age_seconds, served=self.served, **limits)
        return self.model_copy(update=limits | {"state": state, "severity": severity})

    @property
    def name(self) -> str:
        """World and stage, as text that the plugin's format leaves alone."""
        named = f"{self.world_id} {self.stage}" if self.stage is not None else self.world_id
        return named.replace("|", "_")

    @property
    def sentence(self) -> str:
        """What is known of it, without how urgent it is."""
        age = self.open_age_seconds
        if age is None or self.age_seconds is None:
            return f"{self.name} {self.state}"
        told = f"{self.name} {self.age_seconds:,.0f} s old"
        if self.age_seconds - age >= 1:
            told = f"{self.name} {age:,.0f} s old in {self.calendar} hours"
            told += f" ({self.age_seconds:,.0f} s by the clock)"
        return told if self.state is Freshness.FRESH else f"{told}, {self.state}"

    def performance(self, *, with_stage: bool) -> str:
        """Its age and limits as performance data, such as ``age_w1=12s;600;1800``."""
        label = f"age_{self.world_id}"
        if with_stage and self.stage is not None:
            label += f"_{self.stage}".replace("'", "_").replace("=", "_").replace("|", "_")
        label = f"'{label}'" if " " in label else label
        age = self.open_age_seconds
        value = "U" if age is None else f"{age:.0f}s"
        return f"{label}={value};{self.stale_after_sec:g};{self.critical_after_sec:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Worlds, the most urgent first, and what a plugin says of them."""

    worlds: Sequence[Seen]
    one_stage: bool

    @property
    def severity(self) -> Severity:
        """The worst."""
        return max((world.severity for world in self.worlds), key=lambda each: each.rank)

    @property
    def summary(self) -> str:
        """In one sentence."""
        late = [world for world in self.worlds if world.severity is not Severity.OK]
        if not late:
            if len(self.worlds) == 1:
                return self.worlds[0].sentence
            aged = [each for each in self.worlds if each.state is Freshness.FRESH]
            oldest = max(aged, key=lambda each: each.open_age_seconds or 0, default=None)
            told = f"{len(self.worlds):,} worlds"
            return f"{told} ok, the oldest: {oldest.sentence}" if oldest else f"{told} exempt"
        named = "; ".join(world.sentence for world in late[:_NAMED])
        if len(self.worlds) == 1:
            return named
        more = "; ..." if len(late) > _NAMED else ""
        return f"{len(late):,} of {len(self.worlds):,} worlds: {named}{more}"

    def lines(self) -> list[str]:
        """What the plugin prints: the summary with performance data, then the worlds."""
        performance = " ".join(
            world.performance(with_stage=not self.one_stage)
            for world in self.worlds
            if world.state is not Freshness.EXEMPT
        )
        first = f"{self.severity.upper()} - {self.summary}"
        return [f"{first} | {performance}" if performance else first, *map(_line, self.worlds)]

    def as_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(
            {
                "status": self.severity,
                "exit_code": self.severity.rank,
                "summary": self.summary,
                "worlds": [world.model_dump(mode="json") for world in self.worlds],
            }
        )


def look(
    client: httpx.Client,
    worlds: Sequence[str] = (),
    *,
    stage: str | None = None,
    warn_seconds: float | None = None,
    crit_seconds: float | None = None,
) -> Verdict:
    """Ask the hub, and judge.

    Args:
        client: with the hub's address and token; see `client_of`.
        worlds: only these, of which one that the hub doesn't know is missing; none is all.
        stage: only this one.
        warn_seconds: the age beyond which a world is late, other than the hub has it.
        crit_seconds: the age beyond which that is critical.

    Raises:
        HubUnknown: in one sentence why.
    """
    asked = {"world": worlds[0]} if len(worlds) == 1 else {}
    asked |= {"stage": stage} if stage is not None else {}
    known = [each.held_against(warn_seconds, crit_seconds) for each in _fetch(client, asked)]
    if worlds:
        known = [each for each in known if each.world_id in worlds]
        there = {each.world_id for each in known}
        limits = {
            "stale_after_sec": warn_seconds or 600,
            "critical_after_sec": crit_seconds or 1800,
        }
        missing = {"state": Freshness.MISSING, "severity": Severity.CRITICAL}
        known += [
            Seen.model_validate({"world_id": world, "stage": stage, **missing, **limits})
            for world in dict.fromkeys(worlds)
            if world not in there
        ]
    if not known:
        raise HubUnknown(
            f"{client.base_url} has no worlds" + (f" of stage {stage}" if stage else "")
        )
    known.sort(key=lambda each: -each.severity.rank)  # the hub's own order within
    return Verdict(known, stage is not None)


def client_of(base_url: str, token: str | None) -> httpx.Client:
    """A client of a hub, for `look`. Raises `HubUnknown` when the URL is none."""
    headers = [] if token is None else [(b"Authorization", f"Bearer {token}".encode())]
    try:
        return httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT)
    except httpx.InvalidURL as error:
        raise HubUnknown(f"the base URL {base_url!r} is none: {error}") from error


def _fetch(client: httpx.Client, asked: dict[str, str]) -> list[Seen]:
    try:
        response = client.get(PATH, params=asked)
    except httpx.RequestError as error:
        why = str(error) or type(error).__name__
        raise HubUnknown(f"{client.base_url} can't be reached: {why}") from error
    if response.status_code != HTTPStatus.OK:
        raise HubUnknown(f"{client.base_url} {_refusal(response)}")
    try:
        return [Seen.model_validate(each) for each in response.json()["worlds"]]
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise HubUnknown(f"{client.base_url} does not answer as a hub does") from error


def _refusal(response: httpx.Response) -> str:
    if response.status_code == HTTPStatus.NOT_FOUND:
        return f"has no {PATH}: it is no hub, or one of before there was"
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase
    return f"answers {response.status_code}: {detail}"


def _line(world: Seen) -> str:
    told = f"{world.severity.upper()} {world.sentence}"
    if world.state is Freshness.FRESH and not world.served:
        told += "; expired, so nothing is served"
    return told if world.note is None else f"{told}; {world.note}".replace("|", "_")
