"""Maintenance: log lines of runs that ended long ago go, and nothing that anybody counts on."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from riskhub.settings import Settings
from riskhub_dagster.assets.maintenance import maintenance
from riskhub_dagster.event_retention import KEPT, Pruned, prune, stored_bytes
from riskhub_dagster.resources import RiskHub

REPOSITORY = Path(__file__).resolve().parents[2]
DAY = date(2020, 3, 16)
NEXT = DAY + timedelta(days=1)
ASSETS = ("validated_snapshots", "snapshot_weights", "risk_metrics", "stress_results")
CHECKS = {"validated_snapshots": "nothing_quarantined", "risk_metrics": "es_covers_var"}


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of the embedded profile: a SQLite file for each run."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(REPOSITORY / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("RISKHUB_DAGSTER_EVENTS", str(home / "events"))
    with dg.DagsterInstance.get() as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """An instance on Postgres: one table for all runs."""
    url = request.getfixturevalue("postgres_url").replace("+psycopg", "+psycopg2")
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


@pytest.fixture(params=["files", "server", "instance"])
def kept_in(request: pytest.FixtureRequest) -> dg.DagsterInstance:
    """Each storage that events are kept in."""
    found: dg.DagsterInstance = request.getfixturevalue(request.param)
    return found


def rows(instance: dg.DagsterInstance, run_id: str) -> list[str | None]:
    """What kinds of events there are of a run; None is a line that was only logged."""
    return [
        entry.dagster_event_type and entry.dagster_event_type.value
        for entry in instance.all_logs(run_id)
    ]


def seen(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What people and sensors see of all runs."""
    storage = instance.event_log_storage
    return {
        "materialized": {
            asset: storage.get_materialized_partitions(dg.AssetKey(asset)) for asset in ASSETS
        },
        "metadata": {
            asset: storage.get_latest_materialization_events([dg.AssetKey(asset)])
            for asset in ASSETS
        },
        "checks": {
            name: [
                (record.status, record.event)
                for record in storage.get_asset_check_execution_history(
                    dg.AssetCheckKey(dg.AssetKey(asset), name), limit=9
                )
            ]
            for asset, name in CHECKS.items()
        },
        "runs": [
            (record.dagster_run.run_id, record.dagster_run.status, record.end_time)
            for record in instance.get_run_records()
        ],
        "ended": [
            record.event_log_entry.run_id
            for record in instance.fetch_run_status_changes(
                dg.DagsterEventType.RUN_SUCCESS, limit=9
            ).records
        ],
    }


def test_old_log_lines_go_and_all_that_is_seen_of_assets_checks_and_runs_stays(
    land: Any, compute: Any, kept_in: dg.DagsterInstance
) -> None:
    land(DAY)
    land(NEXT)
    run_id = compute(DAY, NEXT, on=kept_in).run_id
    before, all_rows = seen(kept_in), rows(kept_in, run_id)

    pruned = prune(kept_in, in_an_hour())

    assert seen(kept_in) == before
    assert len(before["materialized"]["risk_metrics"]) == 2
    left = rows(kept_in, run_id)
    assert left == [kind for kind in all_rows if kind in KEPT]
    assert (pruned.runs, pruned.rows_before, pruned.rows_after) == (1, len(all_rows), len(left))
    assert pruned.rows_after < pruned.rows_before
    assert 0 < pruned.bytes_after < pruned.bytes_before


def test_a_second_pass_looks_at_nothing_again_and_at_what_ended_since(
    land: Any, compute: Any, kept_in: dg.DagsterInstance
) -> None:
    land(DAY)
    compute(DAY, on=kept_in)
    first = datetime.now(UTC)
    prune(kept_in, first)

    assert prune(kept_in, first) == Pruned()

    compute(DAY, on=kept_in)
    assert prune(kept_in, in_an_hour()).runs == 1


def test_what_is_young_or_has_not_ended_keeps_its_lines(
    land: Any, compute: Any, files: dg.DagsterInstance, record_run: Any, instance: Any
) -> None:
    land(DAY)
    young = compute(DAY, on=files).run_id
    all_rows = rows(files, young)
    record_run(dg.DagsterRunStatus.STARTED)

    assert prune(files, datetime.now(UTC) - timedelta(days=1)) == Pruned()
    assert prune(instance, in_an_hour()) == Pruned()
    assert rows(files, young) == all_rows


def test_a_run_whose_file_is_gone_gets_no_new_one(
    land: Any, compute: Any, files: dg.DagsterInstance
) -> None:
    land(DAY)
    storage = files.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    path = Path(storage.path_for_shard(compute(DAY, on=files).run_id))
    path.unlink()

    assert prune(files, in_an_hour()) == Pruned(runs=1)
    assert not path.exists()


def test_the_room_of_the_event_log_is_told_where_it_is_known(kept_in: dg.DagsterInstance) -> None:
    size = stored_bytes(kept_in)

    in_memory = type(kept_in.event_log_storage).__name__ == "InMemoryEventLogStorage"
    assert size is None if in_memory else size is not None and size > 10_000


def test_a_file_that_goes_while_they_are_counted_takes_no_room(
    files: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored_bytes(files)
    assert before is not None
    there_are = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda directory: [*there_are(directory), directory / "gone.db-wal"]
    )

    assert stored_bytes(files) == before


@pytest.fixture
def maintain(settings: Settings, files: dg.DagsterInstance) -> Callable[[], dict[str, Any]]:
    """Runs the asset; gives its figures."""

    def run() -> dict[str, Any]:
        result = dg.materialize([maintenance], instance=files, resources={"hub": RiskHub()})
        (event,) = result.get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    return run


def test_the_asset_tells_what_it_forgot(
    land: Any, compute: Any, files: dg.DagsterInstance, maintain: Any, monkeypatch: Any, store: Any
) -> None:
    monkeypatch.setenv("RISKHUB_RETENTION__RUN_LOG_DAYS", "0")
    land(DAY)
    compute(DAY, on=files)
    now = datetime.now(UTC)
    store.note_handled("metrics", ["old"], now - timedelta(days=31))
    store.note_handled("metrics", ["new"], now - timedelta(days=29))

    told = maintain()

    assert told["log_runs"] == 1
    assert told["log_rows_after"] < told["log_rows_before"]
    assert told["log_bytes_after"] < told["log_bytes_before"]
    assert told["event_log_bytes"] > 0
    assert told["seconds"] >= 0
    assert told["forgotten_handled_events"] == 1
    assert told["forgotten_budget_cycles"] == told["forgotten_symbol_budgets"] == 0
    assert store.handled("metrics", ["old", "new"]) == {"new"}


def test_logs_can_be_kept_for_ever(
    land: Any, compute: Any, files: dg.DagsterInstance, maintain: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("RISKHUB_RETENTION", '{"run_log_days": null}')
    land(DAY)
    run_id = compute(DAY, on=files).run_id
    before = rows(files, run_id)

    assert maintain()["log_runs"] == 0
    assert rows(files, run_id) == before
