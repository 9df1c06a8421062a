"""What is wrong, from facts: each condition, its key, and when it is none."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import facts, stored
from builders import NOW

from riskhub.alerts.conditions import conditions, unknown_sources
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
)
from riskhub.alerts.reconcile import WATCHDOG, Condition, Severity
from riskhub.alerts.settings import AlertSettings
from riskhub.freshness import Newest, Policy, WorldFreshness, assess
from riskhub.governor.settings import GovernorSettings

DOCS = Path(__file__).parents[3] / "docs" / "alerts.md"
ALIVE = NOW + timedelta(hours=1)


def found(of: Facts, **settings: Any) -> dict[str, Condition]:
    """What is wrong by its key, without the watchdog."""
    every = conditions(of, AlertSettings(**settings), GovernorSettings())
    by_key = {each.key: each for each in every}
    assert len(by_key) == len(every)
    assert by_key.pop(WATCHDOG).at_once
    return by_key


def told(of: Facts, **settings: Any) -> dict[str, tuple[str, str]]:
    return {key: (each.name, each.severity.value) for key, each in found(of, **settings).items()}


def worlds(*ages: float | None, stage: str = "live") -> list[WorldFreshness]:
    newest = [
        Newest(f"w{n}", stage, None if age is None else NOW - timedelta(seconds=age), ALIVE)
        for n, age in enumerate(ages)
    ]
    return assess(
        newest, now=NOW, policy_of=lambda _, of: Policy(600, 1800, exempt=of == "backtest")
    )


def episode(**fields: Any) -> Episode:
    given: dict[str, Any] = {
        "id": "e1", "rule": "es-limit", "kind": "es", "world_id": "w", "stage": "live",
        "action": "reduce", "severity": "critical", "mode": "enforce", "opened_at": NOW,
        "acknowledged_by": None,
    }  # fmt: skip
    return Episode(**given | fields)


def model(**fields: Any) -> ModelZone:
    given: dict[str, Any] = {
        "world_id": "w", "stage": "live", "method": "normal", "level": "0.99", "zone": "red",
        "exceedances": 12, "observations": 250, "day": date(2026, 1, 30),
    }  # fmt: skip
    return ModelZone(**given | fields)


def rejected(world_id: str = "w") -> Rejected:
    return Rejected(world_id, "live", "v7", NOW - timedelta(minutes=3), ["no prices"], True)


def cycle(ago: float = 10.0, **fields: Any) -> GovernorCycle:
    made = GovernorCycle(NOW - timedelta(seconds=ago), None, "fresh", had_budgets=True)
    return replace(made, **fields)


def lag(reader: str, ago: float | None, behind: int = 7) -> ReaderLag:
    return ReaderLag(reader, behind, None if ago is None else NOW - timedelta(seconds=ago))


def test_when_all_is_well_only_the_watchdog_is_there() -> None:
    well = facts(
        stored=stored(
            worlds=worlds(1, 599),
            cycle=cycle(),
            relay=lag("relay:topic", None, 0),
            readers=[lag("exit-engine", 5)],
            exit_engine_at=NOW,
            models=[model(zone="green")],
        ),
        governor=Governor(5.0, "somebody"),
        counted=Counted(4, 49, {"missing": 0}),
        dagster=Dagster([], [], []),
    )
    assert found(well) == {}
    assert unknown_sources(well) == frozenset()


# --- worlds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "key", "name", "severity"),
    [
        (601, "late:w0/live", "RiskHubSnapshotStale", "warning"),
        (1801, "late:w0/live", "RiskHubSnapshotStale", "critical"),
        (None, "missing:w0/live", "RiskHubSnapshotMissing", "critical"),
    ],
)
def test_a_world_that_is_late(age: float | None, key: str, name: str, severity: str) -> None:
    of = facts(stored=stored(worlds=worlds(age, 1, 1)))
    assert told(of) == {key: (name, severity)}
    assert found(of)[key].labels == {"world_id": "w0", "stage": "live"}


def test_history_is_never_late() -> None:
    assert found(facts(stored=stored(worlds=worlds(9e9, stage="backtest")))) == {}


def test_all_worlds_late_are_one_reason_and_what_it_explains() -> None:
    seen = found(facts(stored=stored(worlds=worlds(700, 2000))))
    assert seen.keys() == {"worlds-late", "late:w0/live", "late:w1/live"}
    reason = seen.pop("worlds-late")
    assert (reason.severity, reason.summary) == (
        Severity.CRITICAL,
        "Nothing lands: all 2 worlds are late",
    )
    assert reason.detail == "1 stale, 1 critical: w0/live, w1/live"
    assert all("worlds-late" in each.explained_by for each in seen.values())


def test_many_of_more_worlds_are_one_reason() -> None:
    seen = found(facts(stored=stored(worlds=worlds(700, 700, 700, 1))), group_from=3)
    assert seen["worlds-late"].summary == "3 of 4 worlds are late"
    fewer = found(facts(stored=stored(worlds=worlds(700, 700, 1, 1))), group_from=3)
    assert fewer.keys() == {"late:w0/live", "late:w1/live"}


def test_a_long_list_of_worlds_is_cut() -> None:
    seen = found(facts(stored=stored(worlds=worlds(*[700] * 30))))
    assert seen["worlds-late"].detail.endswith("w14/live, w15/live and 22 more")


# --- what the database says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "name", "severity"),
    [
        ({"rejected": [rejected()]}, "quarantine:w/live", "SnapshotQuarantined", "warning"),
        ({"models": [model()]}, "model:w/live/normal", "VarModel", "critical"),
        ({"models": [model(zone="yellow")]}, "model:w/live/normal", "VarModel", "info"),
        ({"dead_letters": 3}, "dead-letters", "DeadLetters", "warning"),
        ({"relay": lag("relay:t", 61)}, "relay", "RelayBehind", "critical"),
        ({"readers": [lag("group:g", 61)]}, "reader:group:g", "ReaderBehind", "warning"),
        ({"episodes": [episode()]}, "exit:e1", "ExitSignal", "critical"),
        ({"episodes": [episode(mode="shadow")]}, "exit:e1", "ExitSignal", "info"),
        (
            {"exit_engine_at": NOW - timedelta(seconds=61)},
            "exit-engine",
            "ExitEngineNotRunning",
            "warning",
        ),
    ],
)
def test_what_is_on_record(fields: Any, key: str, name: str, severity: str) -> None:
    assert told(facts(stored=stored(**fields))) == {key: (f"RiskHub{name}", severity)}


@pytest.mark.parametrize("ago", [None, 0.0, 60.0])
def test_a_reader_may_take_its_time(ago: float | None) -> None:
    assert found(facts(stored=stored(relay=lag("r", ago), readers=[lag("g", ago)]))) == {}


def test_many_rejections_are_one_reason() -> None:
    seen = found(facts(stored=stored(rejected=[rejected(f"w{n}") for n in range(5)])))
    assert seen.pop("many:quarantine").summary == "5 worlds have rejected snapshots"
    assert len(seen) == 5
    assert all(each.explained_by == ("many:quarantine",) for each in seen.values())


def test_a_red_model_is_told_by_itself_among_many_yellow_ones() -> None:
    yellow = [model(world_id=f"w{n}", zone="yellow") for n in range(5)]
    seen = found(facts(stored=stored(models=[*yellow, model()])))
    assert seen["many:models"].severity is Severity.INFO
    assert seen["model:w/live/normal"].explained_by == ()


def test_an_episode_that_repeats_another_alert_is_explained_by_it() -> None:
    episodes = [
        episode(kind="stale"),
        episode(id="e2", kind="model_zone", method="normal"),
        episode(id="e3", acknowledged_by="ann"),
    ]
    seen = found(facts(stored=stored(episodes=episodes)))
    assert "late:w/live" in seen["exit:e1"].explained_by
    assert not seen["exit:e1"].at_once
    assert seen["exit:e2"].explained_by == ("model:w/live/normal",)
    assert seen["exit:e3"].acknowledged_by == "ann"


# --- the governor ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "age", "expected"),
    [
        (cycle(), 5.0, set()),
        (cycle(ago=120), None, set()),  # the history has one a minute
        (cycle(ago=140), None, {"governor"}),
        (cycle(ago=140), 61.0, {"governor"}),
        (cycle(ago=140), 5.0, set()),  # only its history is lost
        (cycle(portfolio_policy="too_old", no_budget_reason="portfolio_too_old"), None,
         {"portfolio-too-old"}),
        (cycle(portfolio_policy="last_known_good"), 5.0, {"portfolio-last-known-good"}),
        (cycle(portfolio_policy="malformed", no_budget_reason="portfolio_malformed"), None,
         {"no-budgets"}),
        (cycle(portfolio_policy="missing", no_budget_reason="portfolio_missing",
               had_budgets=False), None, set()),  # nobody has ever used it
        (cycle(no_budget_reason="no_positions"), None, set()),
        (None, None, set()),
    ],
)  # fmt: skip
def test_the_governor(of: GovernorCycle | None, age: float | None, expected: set[str]) -> None:
    seen = found(facts(stored=stored(cycle=of), governor=Governor(age, None)))
    assert seen.keys() == expected
    assert found(facts(stored=stored(cycle=of), governor=None)) == {}


# --- what is away ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "severity", "unknown"),
    [
        (
            {"stored": None, "stored_problem": "refused"},
            "database",
            "critical",
            {"worlds", "quarantine", "models", "cycles", "outbox", "exits"},
        ),
        ({"governor_problem": "refused"}, "redis", "critical", {"cycles"}),
        ({"api_problem": "refused"}, "api", "critical", {"counters"}),
        ({"kafka_problem": "refused"}, "kafka", "critical", {"kafka-group"}),
        ({"dagster_problem": "refused"}, "dagster", "warning", {"runs"}),
    ],
)
def test_what_is_away_is_told_and_what_it_told_is_not_forgotten(
    fields: Any, key: str, severity: str, unknown: set[str]
) -> None:
    of = facts(**fields)
    seen = found(of)
    assert seen.keys() == {key}
    assert (seen[key].severity, seen[key].detail) == (severity, "refused")
    assert unknown <= unknown_sources(of)


# --- the API and Dagster ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        (Counted(5, 0, {}), {"5xx": ("RiskHubServerErrors", "critical")}),
        (Counted(0, 50, {}), {"401": ("RiskHubUnauthorized", "warning")}),
        (
            Counted(0, 0, {"missing": 1, "altered": 0}),
            {"blobs": ("RiskHubBlobFailures", "warning")},
        ),
        (Counted(4, 49, {"missing": 0}), {}),
    ],
)
def test_bursts(counted: Counted, expected: dict[str, tuple[str, str]]) -> None:
    assert told(facts(counted=counted)) == expected


def test_what_dagster_says_failed() -> None:
    ended = NOW - timedelta(minutes=5)
    dagster = Dagster(
        [
            FailedRun("compute_landed", "r1", ended),
            FailedRun("old", "r0", NOW - timedelta(hours=2)),
        ],
        [FailedCheck("risk_metrics", "es_covers_var", "ERROR")],
        ["SENSOR"],
    )
    assert told(facts(dagster=dagster)) == {
        "run:compute_landed": ("RiskHubDagsterRunFailed", "warning"),
        "check:risk_metrics/es_covers_var": ("RiskHubDagsterCheckFailed", "warning"),
        "daemon:SENSOR": ("RiskHubDagsterDaemonDown", "warning"),
    }


def test_a_group_on_the_topic_that_does_not_move() -> None:
    assert found(facts(kafka_group=lag("group:g", 61))).keys() == {"reader:group:g"}
    assert found(facts(kafka_group=lag("group:g", 59))) == {}


# --- runbooks --------------------------------------------------------------------------------


def everything() -> Sequence[Condition]:
    of = facts(
        stored=stored(
            worlds=[*worlds(700, None)],
            rejected=[rejected(f"w{n}") for n in range(5)],
            models=[model(world_id=f"w{n}", zone="yellow") for n in range(5)],
            cycle=cycle(ago=999),
            relay=lag("r", 99),
            readers=[lag("g", 99)],
            dead_letters=1,
            episodes=[episode()],
            exit_engine_at=NOW - timedelta(hours=1),
        ),
        governor=Governor(None, None),
        governor_problem="x", api_problem="x", kafka_problem="x", dagster_problem="x",
        stored_problem="x",
        counted=Counted(99, 99, {"missing": 9}),
        dagster=Dagster([FailedRun("j", "r", NOW)], [FailedCheck("a", "c", "ERROR")], ["SENSOR"]),
    )  # fmt: skip
    others = [
        facts(stored=stored(cycle=cycle(**fields)), governor=Governor(None, None))
        for fields in (
            {"portfolio_policy": "too_old"},
            {"portfolio_policy": "last_known_good"},
            {"no_budget_reason": "equity_not_positive"},
        )
    ]
    settings = AlertSettings(), GovernorSettings()
    return [each for one in (of, *others) for each in conditions(one, *settings)]


def test_each_has_a_runbook_that_is_a_heading_of_the_page() -> None:
    headings = {
        line.lstrip("# ").strip().lower()
        for line in DOCS.read_text().splitlines()
        if line.startswith("#")
    }
    for each in everything():
        page, _, heading = each.runbook.partition("#")
        assert page == "docs/alerts.md"
        assert heading in headings, each.name


def test_every_key_is_one_that_the_database_takes() -> None:
    for each in everything():
        assert 1 <= len(each.key) <= 400
        assert each.summary
        assert each.name.startswith("RiskHub")
