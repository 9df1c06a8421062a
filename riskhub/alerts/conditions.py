"""What is wrong: from facts to conditions, each with a key that stays while it lasts. Pure.

The table in `docs/alerts.md` has all of them, by the same names; `runbook` leads to its headings.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from riskhub.alerts.facts import Counted, Dagster, Episode, Facts, Governor, ReaderLag, Stored
from riskhub.alerts.reconcile import WATCHDOG, Condition, Severity
from riskhub.alerts.settings import AlertSettings
from riskhub.freshness import Freshness, WorldFreshness
from riskhub.freshness import Severity as Urgency
from riskhub.governor.settings import GovernorSettings

NOTHING_LANDS, API, DATABASE, REDIS, KAFKA, DAGSTER = (
    *("worlds-late", "api", "database"),
    *("redis", "kafka", "dagster"),
)
"""Keys of what may be the reason for others."""

SOURCES = {
    "database": frozenset({"database"}),
    "stored": frozenset({"worlds", "quarantine", "models", "cycles", "outbox", "exits"}),
}
_GROUPED = {
    "quarantine": ("RiskHubSnapshotsQuarantined", "worlds have rejected snapshots"),
    "models": ("RiskHubVarModels", "VaR models are not green"),
}
_NAMED = 8
_ENGINE_SILENT_SEC = 60.0
_OF_ZONE = {"yellow": Severity.INFO, "red": Severity.CRITICAL}
_OF_URGENCY = {Urgency.WARNING: Severity.WARNING, Urgency.CRITICAL: Severity.CRITICAL}
_OF_STATE = {
    Freshness.STALE: "is late",
    Freshness.CRITICAL: "is very late",
    Freshness.EXPIRED: "is late, and nothing of it is served any more",
    Freshness.MISSING: "is expected, and nothing of it has landed that was accepted",
}


def conditions(
    facts: Facts, settings: AlertSettings, governor: GovernorSettings
) -> list[Condition]:
    """Everything that is wrong now. Of a source that is not known, nothing."""
    found = [Condition(WATCHDOG, WATCHDOG, "RiskHubWatchdog", Severity.INFO,
                       "Somebody watches", "This alert is always there. If it is not, nobody does.",
                       at_once=True)]  # fmt: skip
    found += _of_stores(facts)
    if (stored := facts.stored) is not None:
        found += _of_worlds(stored.worlds, settings.group_from)
        found += _grouped("quarantine", _of_quarantine(stored, facts.now), settings.group_from)
        found += _grouped("models", _of_models(stored), settings.group_from)
        found += _of_cycles(stored, facts.governor, facts.now, governor)
        found += _of_readers(stored, facts.now, settings)
        found += _of_exits(stored, facts.now)
    found += _of_kafka(facts, settings)
    found += _of_counted(facts.counted, settings)
    found += _of_dagster(facts.dagster, facts.now, settings)
    return [replace(each, runbook=_runbook(each, settings.docs_url)) for each in found]


def unknown_sources(facts: Facts) -> frozenset[str]:
    """The sources of which nothing is known now: what they had told stays as it is."""
    unknown = set[str]()
    if facts.stored is None:
        unknown |= SOURCES["stored"]
    if facts.governor is None:
        unknown.add("cycles")
    if facts.kafka_group is None and facts.kafka_problem is not None:
        unknown.add("kafka-group")
    if facts.counted is None:
        unknown.add("counters")
    if facts.dagster is None:
        unknown.add("runs")
    return frozenset(unknown)


def _of_stores(facts: Facts) -> Iterator[Condition]:
    away = (
        (DATABASE, "RiskHubDatabaseDown", "The database can't be used", facts.stored_problem, ()),
        (REDIS, "RiskHubRedisDown", "Redis can't be used", facts.governor_problem, ()),
        (API, "RiskHubApiDown", "The API does not answer", facts.api_problem, (DATABASE,)),
    )
    for key, name, summary, problem, explained in away:
        if problem is not None:
            yield Condition(
                key, key, name, Severity.CRITICAL, summary, problem, explained_by=explained
            )
    if facts.kafka_problem is not None:
        yield Condition(KAFKA, KAFKA, "RiskHubKafkaDown", Severity.CRITICAL,
                        "The brokers can't be used", facts.kafka_problem)  # fmt: skip
    if facts.dagster_problem is not None:
        yield Condition(DAGSTER, DAGSTER, "RiskHubDagsterDown", Severity.WARNING,
                        "Dagster does not answer", facts.dagster_problem)  # fmt: skip


def _of_worlds(worlds: Sequence[WorldFreshness], group_from: int) -> Iterator[Condition]:
    ageing = [world for world in worlds if world.state is not Freshness.EXEMPT]
    late = [world for world in ageing if world.severity is not Urgency.OK]
    together = len(late) >= group_from or len(late) == len(ageing) > 1
    if together:
        nothing = len(late) == len(ageing)
        severity = max((_OF_URGENCY[world.severity] for world in late), key=lambda it: it.rank)
        summary = f"{len(late)} of {len(ageing)} worlds are late"
        yield Condition(
            NOTHING_LANDS,
            "worlds",
            "RiskHubWorldsLate",
            severity,
            f"Nothing lands: all {len(late)} worlds are late" if nothing else summary,
            _states(late),
            # Nothing can land then.
            explained_by=(API, DATABASE),
        )
    for world in late:
        missing = world.state is Freshness.MISSING
        about = f"{world.world_id}/{world.stage}"
        newest = f"{world.newest_as_of:%Y-%m-%d %H:%M:%S}Z" if world.newest_as_of else "none"
        limits = f"{world.policy.stale_after_sec:g} s and {world.policy.critical_after_sec:g} s"
        yield Condition(
            f"missing:{about}" if missing else f"late:{about}",
            "worlds",
            "RiskHubSnapshotMissing" if missing else "RiskHubSnapshotStale",
            _OF_URGENCY[world.severity],
            f"{about} {_OF_STATE[world.state]}",
            f"The newest as_of is {newest}; the limits are {limits} of open hours.",
            {"world_id": world.world_id, "stage": world.stage},
            explained_by=(NOTHING_LANDS, API, DATABASE),
        )


def _states(late: Sequence[WorldFreshness]) -> str:
    counted = Counter(world.state for world in late)
    states = ", ".join(f"{counted[state]} {state}" for state in Freshness if counted[state])
    return f"{states}: {_named(f'{world.world_id}/{world.stage}' for world in late)}"


def _of_quarantine(stored: Stored, now: datetime) -> Iterator[Condition]:
    for each in stored.rejected:
        about = f"{each.world_id}/{each.stage}"
        after = "nothing newer is accepted" if each.is_newest else "newer ones are accepted"
        ago = (now - each.since) // timedelta(minutes=1)
        yield Condition(
            f"quarantine:{about}",
            "quarantine",
            "RiskHubSnapshotQuarantined",
            Severity.WARNING,
            f"{about}: version {each.version} was rejected",
            f"{'; '.join(each.reasons) or 'no reason on record'} ({ago} min ago; {after})",
            {"world_id": each.world_id, "stage": each.stage},
            at_once=True,
        )


def _of_models(stored: Stored) -> Iterator[Condition]:
    for each in stored.models:
        if each.zone not in _OF_ZONE:
            continue
        about = f"{each.world_id}/{each.stage}"
        yield Condition(
            f"model:{about}/{each.method}",
            "models",
            "RiskHubVarModel",
            _OF_ZONE[each.zone],
            f"{about}: the {each.method} VaR is in the {each.zone} zone",
            f"{each.exceedances} of {each.observations} days lost more than the VaR at "
            f"{each.level}, up to {each.day}.",
            {"world_id": each.world_id, "stage": each.stage, "method": each.method},
            at_once=True,
        )


def _grouped(source: str, found: Iterable[Condition], group_from: int) -> list[Condition]:
    """Many of the same are one: the one explains the others. What is critical is told by itself."""
    name, what = _GROUPED[source]
    key = f"many:{source}"
    every = [
        one if one.severity is Severity.CRITICAL else replace(one, explained_by=(key,))
        for one in found
    ]
    alike = [one for one in every if one.explained_by]
    if len(alike) < group_from:
        return every
    together = Condition(
        key,
        source,
        name,
        max((one.severity for one in alike), key=lambda it: it.rank),
        f"{len(alike)} {what}",
        _named(one.key.partition(":")[2] for one in alike),
        at_once=True,
    )
    return [together, *every]


def _of_cycles(
    stored: Stored, redis: Governor | None, now: datetime, settings: GovernorSettings
) -> Iterator[Condition]:
    cycle = stored.cycle
    if cycle is None or redis is None:
        return  # no governor has ever run, or nobody can tell
    # The history has a cycle every `history_sec`: one that is late by as much again is missing.
    quiet = timedelta(seconds=2 * settings.history_sec + settings.lease_sec)
    age = redis.newest_budget_age_sec
    if now - cycle.at > quiet and (age is None or age > settings.gate_stale_sec):
        yield Condition(
            "governor", "cycles", "RiskHubGovernorNotRunning", Severity.CRITICAL,
            "No governor computes budgets",
            f"The last cycle on record is of {cycle.at:%Y-%m-%d %H:%M:%S}Z, and no budget in Redis "
            "is younger than that: gates let every position pass.",
            explained_by=(REDIS, DATABASE),
        )  # fmt: skip
    elif cycle.portfolio_policy == "too_old":
        yield Condition(
            "portfolio-too-old", "cycles", "RiskHubGovernorPortfolioTooOld", Severity.CRITICAL,
            "The portfolio state is too old: there are no budgets",
            "Look at the producer of quantum:state:portfolio.",
        )  # fmt: skip
    elif cycle.portfolio_policy == "last_known_good":
        yield Condition(
            "portfolio-last-known-good", "cycles", "RiskHubGovernorLastKnownGood", Severity.WARNING,
            "Budgets are made of the last known good portfolio state",
            f"{settings.lkg_max_sec:g} s after it was last fresh there will be none.",
        )  # fmt: skip
    elif cycle.had_budgets and cycle.no_budget_reason not in (None, "no_positions"):
        yield Condition(
            "no-budgets", "cycles", "RiskHubGovernorNoBudgets", Severity.WARNING,
            "The governor comes to no budget", str(cycle.no_budget_reason),
        )  # fmt: skip


def _of_readers(stored: Stored, now: datetime, settings: AlertSettings) -> Iterator[Condition]:
    if (relay := stored.relay) is not None and _is_behind(relay, now, settings):
        yield Condition(
            "relay", "outbox", "RiskHubRelayBehind", Severity.CRITICAL,
            f"The topic is {relay.behind:,} events behind",
            _since(relay) + " Does `riskhub relay` run, and do the brokers answer?",
            {"reader": relay.reader}, explained_by=(KAFKA, DATABASE),
        )  # fmt: skip
    for reader in stored.readers:
        if _is_behind(reader, now, settings):
            yield Condition(
                f"reader:{reader.reader}", "outbox", "RiskHubReaderBehind", Severity.WARNING,
                f"{reader.reader} is {reader.behind:,} events behind", _since(reader),
                {"reader": reader.reader}, explained_by=(DATABASE,),
            )  # fmt: skip
    if stored.dead_letters:
        yield Condition(
            "dead-letters", "outbox", "RiskHubDeadLetters", Severity.WARNING,
            f"{stored.dead_letters:,} dead letters wait to be sent again",
            "`riskhub dlq list` has the reasons.", at_once=True,
        )  # fmt: skip


def _of_kafka(facts: Facts, settings: AlertSettings) -> Iterator[Condition]:
    group = facts.kafka_group
    if group is not None and _is_behind(group, facts.now, settings):
        yield Condition(
            f"reader:{group.reader}", "kafka-group", "RiskHubReaderBehind", Severity.WARNING,
            f"{group.reader} is {group.behind:,} events behind",
            "It has not moved for a while. " + _since(group),
            {"reader": group.reader}, explained_by=(KAFKA,),
        )  # fmt: skip


def _is_behind(reader: ReaderLag, now: datetime, settings: AlertSettings) -> bool:
    return reader.since is not None and now - reader.since > timedelta(seconds=settings.lag_sec)


def _since(reader: ReaderLag) -> str:
    assert reader.since is not None  # noqa: S101 - it is behind
    return f"The oldest of them is of {reader.since:%Y-%m-%d %H:%M:%S}Z."


def _of_exits(stored: Stored, now: datetime) -> Iterator[Condition]:
    for episode in stored.episodes:
        told_better = _told_better(episode)
        yield Condition(
            f"exit:{episode.id}",
            "exits",
            "RiskHubExitSignal",
            Severity(episode.severity) if episode.mode == "enforce" else Severity.INFO,
            f"{episode.world_id}/{episode.stage}: {episode.action}, by the rule {episode.rule}",
            f"Open since {episode.opened_at:%Y-%m-%d %H:%M:%S}Z, mode {episode.mode}.",
            {"world_id": episode.world_id, "stage": episode.stage, "rule": episode.rule},
            explained_by=told_better,
            # The engine looks at other moments than we do: what explains it may be gone sooner.
            at_once=not told_better,
            acknowledged_by=episode.acknowledged_by,
        )
    at = stored.exit_engine_at
    if at is not None and now - at > timedelta(seconds=_ENGINE_SILENT_SEC):
        yield Condition(
            "exit-engine", "exits", "RiskHubExitEngineNotRunning", Severity.WARNING,
            "No exit engine is at work", f"It last wrote at {at:%Y-%m-%d %H:%M:%S}Z.",
            explained_by=(DATABASE,),
        )  # fmt: skip


def _told_better(episode: Episode) -> tuple[str, ...]:
    """What an episode repeats that has an alert of its own."""
    about = f"{episode.world_id}/{episode.stage}"
    if episode.kind in ("stale", "expired"):
        return f"late:{about}", f"missing:{about}", NOTHING_LANDS
    if episode.kind == "model_zone":
        return (f"model:{about}/{episode.method}",)
    return ()


def _of_counted(counted: Counted | None, settings: AlertSettings) -> Iterator[Condition]:
    if counted is None:
        return
    within = f"in {settings.burst_sec / 60:g} min"
    if counted.server_errors >= settings.burst_5xx:
        yield Condition(
            "5xx", "counters", "RiskHubServerErrors", Severity.CRITICAL,
            f"{counted.server_errors:.0f} requests failed for a reason of the hub's own {within}",
            "riskhub_http_requests_total has route and status; the log of the API has the reason.",
            explained_by=(DATABASE,),
        )  # fmt: skip
    if counted.unauthorized >= settings.burst_401:
        yield Condition(
            "401", "counters", "RiskHubUnauthorized", Severity.WARNING,
            f"{counted.unauthorized:.0f} requests had no right token {within}",
            "A producer with an old token, or somebody who tries.",
        )  # fmt: skip
    if (failures := sum(counted.blob_failures.values())) >= settings.burst_blob_failures:
        kinds = ", ".join(f"{n:.0f} {kind}" for kind, n in counted.blob_failures.items() if n)
        yield Condition(
            "blobs", "counters", "RiskHubBlobFailures", Severity.WARNING,
            f"{failures:.0f} blobs could not be had {within}", kinds,
        )  # fmt: skip


def _of_dagster(
    dagster: Dagster | None, now: datetime, settings: AlertSettings
) -> Iterator[Condition]:
    if dagster is None:
        return
    for run in dagster.failed_runs:
        if now - run.ended_at > timedelta(seconds=settings.failed_runs_sec):
            continue
        yield Condition(
            f"run:{run.job}", "runs", "RiskHubDagsterRunFailed", Severity.WARNING,
            f"The last run of {run.job} failed",
            f"Run {run.run_id}, at {run.ended_at:%Y-%m-%d %H:%M:%S}Z.", {"job": run.job},
        )  # fmt: skip
    for check in dagster.failed_checks:
        severity = Severity.WARNING if check.severity == "ERROR" else Severity.INFO
        yield Condition(
            f"check:{check.asset}/{check.check}", "runs", "RiskHubDagsterCheckFailed", severity,
            f"The check {check.check} of {check.asset} does not pass", "",
            {"asset": check.asset, "check": check.check},
        )  # fmt: skip
    for daemon in dagster.sick_daemons:
        yield Condition(
            f"daemon:{daemon}", "runs", "RiskHubDagsterDaemonDown", Severity.WARNING,
            f"Dagster's daemon {daemon} gives no sign of life", "", {"daemon": daemon},
        )  # fmt: skip


def _named(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _runbook(condition: Condition, docs_url: str) -> str:
    return f"{docs_url}#{condition.name.lower()}"
