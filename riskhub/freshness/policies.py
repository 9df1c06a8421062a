"""What holds for which world and stage, as the settings say."""

import fnmatch
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Self

from riskhub.freshness.calendars import open_hours
from riskhub.freshness.settings import FreshnessRule, FreshnessSettings
from riskhub.freshness.states import Newest, Policy, WorldFreshness, assess

if TYPE_CHECKING:
    from riskhub.settings import Settings


class Policies:
    """The settings of freshness, asked world by world; what was said once is remembered."""

    def __init__(
        self,
        settings: FreshnessSettings,
        *,
        stale_after_sec: float,
        critical_after_sec: float,
        timeless_stages: Collection[str],
    ) -> None:
        """From the block `freshness`, and what holds where it says nothing."""
        self._settings = settings
        self._limits = (stale_after_sec, critical_after_sec)
        self._timeless = frozenset(timeless_stages)
        self._known: dict[tuple[str, str], Policy] = {}
        pairs = (each.split("/", 1) for each in settings.expected)
        self.expected = frozenset((world, stage) for world, stage in pairs)

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Those of a process."""
        return cls(
            settings.freshness,
            stale_after_sec=settings.stale_after_sec,
            critical_after_sec=settings.critical_after_sec,
            timeless_stages=settings.timeless_stages,
        )

    @property
    def calendars(self) -> list[str]:
        """The names of all calendars that are used."""
        named = {rule.calendar for rule in self._settings.rules} | {self._settings.calendar}
        return sorted(name for name in named if name is not None)

    def policy(self, world_id: str, stage: str) -> Policy:
        """What holds for a world and stage."""
        key = (world_id, stage)
        if key not in self._known:
            self._known[key] = self._policy(world_id, stage)
        return self._known[key]

    def assess(
        self,
        newest: Iterable[Newest],
        *,
        now: datetime,
        world_id: str | None = None,
        stage: str | None = None,
    ) -> list[WorldFreshness]:
        """The state of what is stored, and of what is expected and is not; see `assess`.

        Args:
            newest: what is stored of the worlds that are asked about.
            now: the moment.
            world_id: the only world that is asked about.
            stage: the only stage.
        """
        expected = [
            (world, of_stage)
            for world, of_stage in self.expected
            if world_id in (None, world) and stage in (None, of_stage)
        ]
        return assess(
            newest, now=now, policy_of=self.policy, expected=expected, hours_of=open_hours
        )

    def _policy(self, world_id: str, stage: str) -> Policy:
        limits, calendar, exempt = self._limits, self._settings.calendar, stage in self._timeless
        # From the last to the first: so the first that says a thing has the last word.
        for rule in reversed(self._settings.rules):
            if not _is_about(rule, world_id, stage):
                continue
            if rule.stale_after_sec is not None and rule.critical_after_sec is not None:
                limits = (rule.stale_after_sec, rule.critical_after_sec)
            calendar = calendar if rule.calendar is None else rule.calendar
            exempt = exempt if rule.exempt is None else rule.exempt
        return Policy(*limits, calendar, exempt)


def _is_about(rule: FreshnessRule, world_id: str, stage: str) -> bool:
    return all(
        pattern == name or fnmatch.fnmatchcase(name, pattern)
        for pattern, name in ((rule.world, world_id), (rule.stage, stage))
    )
