"""What is known of the hub at a moment: plain values, from which `conditions` judges.

A source that could not be read is None: then nothing is known of it, which is not the same as that
all is well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from riskhub.freshness import WorldFreshness


@dataclass(frozen=True, slots=True)
class Rejected:
    """The newest snapshot of a world and stage that is in the quarantine.

    `is_newest`: it is newer than all that were accepted, so nothing good came after it.
    """

    world_id: str
    stage: str
    version: str
    since: datetime
    reasons: Sequence[str]
    is_newest: bool


@dataclass(frozen=True, slots=True)
class ModelZone:
    """The newest backtest of a world's VaR by one method."""

    world_id: str
    stage: str
    method: str
    level: str
    zone: str
    exceedances: int
    observations: int
    day: date


@dataclass(frozen=True, slots=True)
class GovernorCycle:
    """The newest cycle of the governor on record; `had_budgets`: whether any ever came to some."""

    at: datetime
    no_budget_reason: str | None
    portfolio_policy: str
    had_budgets: bool


@dataclass(frozen=True, slots=True)
class Governor:
    """What Redis knows of the governor: the age of the newest budget, and who may write."""

    newest_budget_age_sec: float | None
    writer: str | None


@dataclass(frozen=True, slots=True)
class ReaderLag:
    """A reader of the outbox: how many events lie before it, and since when the oldest does."""

    reader: str
    behind: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Episode:
    """An open episode of the exit engine."""

    id: str
    rule: str
    kind: str
    world_id: str
    stage: str
    action: str
    severity: str
    mode: str
    opened_at: datetime
    acknowledged_by: str | None
    method: str | None = None


@dataclass(frozen=True, slots=True)
class FailedRun:
    """The newest run of a Dagster job that has ended, if it failed."""

    job: str
    run_id: str
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """An asset check of Dagster whose newest evaluation did not pass; `severity` as Dagster's."""

    asset: str
    check: str
    severity: str


@dataclass(frozen=True, slots=True)
class Dagster:
    """What Dagster says of itself."""

    failed_runs: Sequence[FailedRun]
    failed_checks: Sequence[FailedCheck]
    sick_daemons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Counted:
    """How much the API's counters rose in the window, by what they count."""

    server_errors: float
    unauthorized: float
    blob_failures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database says.

    `relay` is None without brokers; `readers` are those that have ever read. `dead_letters`: how
    many wait to be sent again.
    """

    worlds: Sequence[WorldFreshness]
    rejected: Sequence[Rejected]
    models: Sequence[ModelZone]
    cycle: GovernorCycle | None
    relay: ReaderLag | None
    readers: Sequence[ReaderLag]
    dead_letters: int
    episodes: Sequence[Episode]
    exit_engine_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, each source by itself.

    Attributes:
        now: the moment.
        stored: None when the database could not be read; `stored_problem` says why.
        governor: the same of Redis.
        kafka_group: the group's part on the topic, of a hub with brokers; None where it could not
            be read or there is none, which `kafka_problem` tells apart.
        counted: the same of the API.
        dagster: None where it could not be asked, or is not watched.
    """

    now: datetime
    stored: Stored | None
    stored_problem: str | None
    governor: Governor | None
    governor_problem: str | None
    kafka_group: ReaderLag | None
    kafka_problem: str | None
    counted: Counted | None
    api_problem: str | None
    dagster: Dagster | None
    dagster_problem: str | None
