"""Where facts come from: each source is read by itself, and one that fails says so and no more."""

import asyncio
import fnmatch
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import httpx
import redis

from riskhub.alerts.facts import (
    Counted,
    Dagster,
    Episode,
    Facts,
    FailedCheck,
    FailedRun,
    Governor,
    GovernorCycle,
    ModelZone,
    ReaderLag,
    Rejected,
    Stored,
)
from riskhub.alerts.pages import PageUnavailable, Window, counters_of, fetch
from riskhub.dagster_graphql import DagsterGraphql, DagsterRefused
from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.freshness import Policies
from riskhub.governor.inputs import CLUSTER_MARK
from riskhub.governor.lease import holder
from riskhub.governor.published import read_published
from riskhub.risk import Method
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.events import RELAY
from riskhub.store.exits import READER as EXIT_ENGINE
from riskhub.store.standing import OutboxReader, Row

GROUP = "group:"
"""The beginning of the names of readers that are groups of workers, as of `controlbus.bus`."""

_LEVEL = "0.99"
_ZONES = frozenset((method, _LEVEL) for method in get_args(Method))
_REDIS_WITHIN_SEC = 1.0


class Sources:
    """Everything that is asked. For one thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: redis.Redis,
        http: httpx.Client,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            client: of the hub's Redis; one that gives up soon, and decodes its responses.
            clock: UTC.
        """
        self._settings = settings
        self._store = store
        self._redis = client
        self._http = http
        self._clock = clock
        self._monotonic = monotonic
        self._policies = Policies.of(settings)
        self._window = Window(settings.alerts.burst_sec)
        self._dagster = _DagsterSource(settings, http, clock, monotonic)
        self._kafka = None if settings.controlbus_brokers is None else _GroupSource(settings, clock)

    def gather(self) -> Facts:
        """All facts of now."""
        stored, stored_problem = self._stored()
        governor, governor_problem = self._governor()
        counted, api_problem = self._counted()
        dagster, dagster_problem = self._dagster.look()
        group, kafka_problem = self._kafka.look() if self._kafka is not None else (None, None)
        return Facts(
            now=self._clock(),
            stored=stored,
            stored_problem=stored_problem,
            governor=governor,
            governor_problem=governor_problem,
            kafka_group=group,
            kafka_problem=kafka_problem,
            counted=counted,
            api_problem=api_problem,
            dagster=dagster,
            dagster_problem=dagster_problem,
        )

    def _stored(self) -> tuple[Stored | None, str | None]:
        settings, now = self._settings, self._clock()
        try:
            newest = self._store.newest_per_world()
            found = self._store.troubles(
                now=now,
                rejected_since=now - timedelta(seconds=settings.alerts.quarantine_sec),
                zones=_ZONES,
                timeless_stages=settings.timeless_stages,
            )
        except (StoreUnavailable, StoreNotMigrated) as error:
            return None, str(error)
        by_name = {reader.reader: reader for reader in found.readers}
        relay = None
        if settings.controlbus_brokers is not None:
            name = f"{RELAY}{settings.controlbus_topic}"
            # One that has never read is behind from the first event on.
            never = ReaderLag(name, found.head, found.first_event_at)
            relay = _lag(by_name[name]) if name in by_name else never
        # A group on the topic has its place in Kafka.
        group = () if settings.controlbus_brokers else (f"{GROUP}{settings.worker.group}",)
        ours = (*group, EXIT_ENGINE)
        stored = Stored(
            worlds=self._policies.assess(newest, now=now),
            rejected=_rejected(found.rejected),
            models=[_zone(row) for row in found.zones],
            cycle=_cycle(found.cycle, had_budgets=found.had_budgets),
            relay=relay,
            readers=[_lag(by_name[name]) for name in ours if name in by_name],
            dead_letters=found.dead_letters,
            episodes=[_episode(row) for row in found.episodes],
            exit_engine_at=found.exit_engine_at,
        )
        return stored, None

    def _governor(self) -> tuple[Governor | None, str | None]:
        now = self._clock().timestamp()
        try:
            writer = holder(self._redis)
            budgets = read_published(self._redis, now, within_sec=_REDIS_WITHIN_SEC)
        except (redis.RedisError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: it does not answer"
        ages = [
            budget.age_sec(now)
            for name, budget in budgets.items()
            if not name.startswith(CLUSTER_MARK)
        ]
        return Governor(min(ages, default=None), writer), None

    def _counted(self) -> tuple[Counted | None, str | None]:
        alerts = self._settings.alerts
        token = alerts.api_token or self._settings.token
        url = f"{(alerts.api_url or self._settings.api_url).rstrip('/')}/metrics"
        secret = None if token is None else token.get_secret_value()
        try:
            page = fetch(self._http, url, secret, within_sec=alerts.timeout_sec)
            return self._window.add(counters_of(page), self._monotonic()), None
        except (PageUnavailable, ValueError) as error:
            return None, str(error)


class _DagsterSource:
    """Dagster, which is asked less often: between two looks it is what it was."""

    def __init__(
        self,
        settings: Settings,
        http: httpx.Client,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        alerts = settings.alerts
        self._settings = alerts
        self._graphql = DagsterGraphql(
            http, (alerts.dagster_url or settings.dagster_url).rstrip("/")
        )
        self._clock = clock
        self._monotonic = monotonic
        self._again_at = float("-inf")
        self._last: tuple[Dagster | None, str | None] = (None, None)
        self._has_answered = False

    def look(self) -> tuple[Dagster | None, str | None]:
        """What it says, or why it does not; neither, where none has to be there."""
        if self._settings.watch_dagster is False:
            return None, None
        if self._monotonic() >= self._again_at:
            self._again_at = self._monotonic() + self._settings.dagster_sec
            self._last = self._ask()
        return self._last

    def _ask(self) -> tuple[Dagster | None, str | None]:
        after = self._clock().timestamp() - self._settings.failed_runs_sec
        try:
            health = self._graphql.health(after)
            checks = self._graphql.failed_checks()
        except (httpx.HTTPError, DagsterRefused) as error:
            must = self._has_answered or self._settings.watch_dagster is True
            what = str(error) if isinstance(error, DagsterRefused) else type(error).__name__
            return None, what if must else None
        self._has_answered = True
        return (
            Dagster(
                [
                    FailedRun(run.job, run.run_id, datetime.fromtimestamp(run.ended_at, UTC))
                    for run in health.failed_jobs()
                ],
                [
                    FailedCheck(asset, check, severity)
                    for asset, check, severity in checks
                    if severity == "ERROR" and not self._ignores(check)
                ],
                sorted(name for name, healthy in health.daemons.items() if not healthy),
            ),
            None,
        )

    def _ignores(self, check: str) -> bool:
        return any(fnmatch.fnmatchcase(check, each) for each in self._settings.ignored_checks)


class _GroupSource:
    """How far the group of workers is on the topic, and since when it has not moved."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._done: int | None = None
        self._since: datetime | None = None

    def look(self) -> tuple[ReaderLag | None, str | None]:
        """Its lag, or why it is not known; neither while the group has never read."""
        # It is slow to import, and most hubs have no brokers.
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        from riskhub.controlbus.kafka import group_progress  # noqa: PLC0415

        group = self._settings.worker.group
        try:
            found = asyncio.run(
                group_progress(self._settings, group, within_sec=self._settings.alerts.timeout_sec)
            )
        except (KafkaError, OSError, TimeoutError, RiskHubError) as error:
            return None, f"{type(error).__name__}: {error}"
        if found is None:
            return None, None
        done, behind = found
        if not behind:
            self._since = None
        elif done != self._done or self._since is None:
            self._since = self._clock()
        self._done = done
        return ReaderLag(f"{GROUP}{group}", behind, self._since), None


def _lag(reader: OutboxReader) -> ReaderLag:
    return ReaderLag(reader.reader, reader.behind, reader.since)


def _rejected(rows: Sequence[Row]) -> list[Rejected]:
    """Of each world and stage the newest that was rejected; rows are newest first."""
    found: dict[tuple[str, str], Rejected] = {}
    for row in rows:
        newest = row["newest_as_of"]
        rejected = Rejected(
            row["world_id"],
            row["stage"],
            row["version"],
            row["since"],
            row["reasons"] or [],
            newest is None or row["as_of"] > newest,
        )
        found.setdefault((row["world_id"], row["stage"]), rejected)
    return list(found.values())


def _zone(row: Row) -> ModelZone:
    names = ("world_id", "stage", "method", "level", "zone", "exceedances", "observations", "day")
    return ModelZone(**{name: row[name] for name in names})


def _cycle(row: Row | None, *, had_budgets: bool) -> GovernorCycle | None:
    if row is None:
        return None
    return GovernorCycle(
        row["computed_at"], row["no_budget_reason"], row["portfolio_policy"], had_budgets
    )


def _episode(row: Row) -> Episode:
    names = (
        *("id", "rule", "kind", "world_id", "stage", "action", "severity", "mode"),
        *("opened_at", "acknowledged_by"),
    )
    rule = row["evidence"].get("rule") or {}
    return Episode(**{name: row[name] for name in names}, method=rule.get("method"))
