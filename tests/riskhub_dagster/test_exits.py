"""Exit signals as an asset: what was told, and what the rules say to the numbers on record."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from exiting import START, compute_world, load, opened_episode, rule, write_rules

from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.exits import EngineStep
from riskhub_dagster.assets.exits import exit_signals
from riskhub_dagster.resources import RiskHub

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_rules(tmp_path / "rules.yaml", rule(), mode="enforce")
    monkeypatch.setenv("RISKHUB_EXIT_RULES_PATH", str(path))
    return path


@pytest.fixture
def run(rules: Path, settings: Settings, instance: dg.DagsterInstance) -> Run:
    def materialize(**config: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [exit_signals],
            instance=instance,
            resources={"hub": RiskHub()},
            run_config={"ops": {"exit_signals": {"config": config}}},
        )

    return materialize


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def write(store: Store, rules: Path, turn: int = 0, **changes: Any) -> str:
    book = load(rules)
    _, episode, signal = opened_episode(book, **changes)
    store.write_exit_step(
        EngineStep([], [episode], [signal], [], 1),
        turn=turn,
        writer="engine on host",
        rules_digest=book.digest,
        now=datetime(2026, 1, 31, tzinfo=UTC),
    )
    return str(episode["id"])


def test_an_empty_hub_has_neither(run: Run, store: Store, checks: Any) -> None:
    result = run()
    metadata = told(result)
    assert (metadata["open_now"].value, metadata["replayed_episodes"].value) == (0, 0)
    assert metadata["engine"].value == "none has ever run"
    assert checks(result)["exits_acknowledged"].passed


def test_what_the_engine_told_is_a_table(run: Run, store: Store, rules: Path, records: Any) -> None:
    episode = write(store, rules)
    metadata = told(run())
    assert metadata["open_now"].value == 1
    assert metadata["engine"].value == "engine on host"
    assert metadata["engine_last_wrote"].value == "2026-01-31 00:00:00Z"
    (row,) = records(metadata["episodes"].value)
    assert row == {
        "world_id": "equities",
        "stage": "paper",
        "rule": "es-limit",
        "action": "reduce",
        "mode": "enforce",
        "opened": "2026-01-05 21:00:00Z",
        "closed": None,
        "worst": 0.1,
        "value": 0.1,
        "acknowledged_by": None,
        "episode": episode,
    }


def test_the_check_waits_for_whoever_is_to_obey(
    run: Run, store: Store, rules: Path, checks: Any
) -> None:
    episode = write(store, rules)
    write(store, rules, 1, id="0" * 20, rule="other", mode="shadow")
    found = checks(run())["exits_acknowledged"]
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.description == f"equities: reduce (es-limit, episode {episode})"
    store.acknowledge(episode, by="me", now=datetime.now(UTC))
    assert checks(run())["exits_acknowledged"].passed


def test_history_is_replayed_by_the_rules_as_they_are(run: Run, store: Store, records: Any) -> None:
    for number, es in enumerate((0.1, 0.12, 0.04, 0.09)):
        at = START + timedelta(days=number)
        compute_world(store, es, as_of=at, version=f"v{number}", stage="backtest")
    metadata = told(run())
    assert metadata["replayed"].value == "2026-01-05 to 2026-01-08"
    assert metadata["replayed_observations"].value == 4
    assert metadata["replayed_episodes"].value == 2
    assert records(metadata["replay_by_year"].value) == [
        {"year": 2026, "rule": "es-limit", "worlds": 1, "episodes": 2, "days": 2}
    ]
    newest, first = records(metadata["replay_newest"].value)
    assert (newest["opened"], newest["closed"], newest["days"]) == ("2026-01-08", None, 0)
    assert (first["closed"], first["worst"], first["worst_on"]) == (
        *("2026-01-07", 0.12),
        "2026-01-06",
    )
    assert store.exit_episodes(limit=1).rows == []
    some = told(run(first="2026-01-06", last="2026-01-07"))
    assert some["replayed"].value == "2026-01-06 to 2026-01-07"
    assert some["replayed_episodes"].value == 1
