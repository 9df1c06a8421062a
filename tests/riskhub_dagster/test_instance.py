"""`dagster.yaml` and `workspace.yaml`: what the embedded profile's Dagster is told."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.workspace.load import location_origins_from_yaml_paths

from riskhub_dagster.event_log import BatchedSqliteEventLogStorage
from riskhub_dagster.sensors import PARTITION_TAG

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance that `riskhub up` gives its processes."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(REPOSITORY / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("RISKHUB_DAGSTER_EVENTS", str(home / "events"))
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_nothing_is_sent_home(embedded: dg.DagsterInstance) -> None:
    assert embedded.telemetry_enabled is False
    assert embedded.nux_enabled is False


def test_events_are_stored_in_batches_where_the_environment_says(
    embedded: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert isinstance(embedded.event_log_storage, BatchedSqliteEventLogStorage)
    assert (tmp_path / "dagster" / "events" / "index.db").is_file()


def test_the_storage_survives_the_way_to_another_process(embedded: dg.DagsterInstance) -> None:
    with dg.DagsterInstance.from_ref(embedded.get_ref()) as elsewhere:
        assert isinstance(elsewhere.event_log_storage, BatchedSqliteEventLogStorage)


def test_three_runs_at_once_and_one_of_a_day(embedded: dg.DagsterInstance) -> None:
    coordinator = embedded.run_coordinator
    assert isinstance(coordinator, QueuedRunCoordinator)
    queue = coordinator.get_run_queue_config()

    assert queue.max_concurrent_runs == 3
    assert queue.tag_concurrency_limits == [
        {"key": PARTITION_TAG, "limit": 1, "value": {"applyLimitPerUniqueValue": True}}
    ]
    assert queue.max_user_code_failure_retries == 5
    assert coordinator.dequeue_interval_seconds == 1


def test_a_run_whose_process_died_does_not_hold_its_day_for_ever(
    embedded: dg.DagsterInstance,
) -> None:
    assert embedded.run_monitoring_enabled
    assert embedded.run_monitoring_max_runtime_seconds == 3600
    assert embedded.run_monitoring_start_timeout_seconds == 120


def test_a_lost_run_is_tried_again_and_a_failed_op_is_not(embedded: dg.DagsterInstance) -> None:
    assert embedded.run_retries_enabled
    assert embedded.run_retries_max_retries == 1
    assert embedded.run_retries_retry_on_asset_or_op_failure is False


def test_no_process_captures_what_a_step_prints(embedded: dg.DagsterInstance) -> None:
    assert isinstance(embedded.compute_log_manager, NoOpComputeLogManager)


def test_the_workspace_names_the_code_location() -> None:
    (origin,) = location_origins_from_yaml_paths([str(REPOSITORY / "workspace.yaml")])

    assert isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin)
    assert origin.location_name == "riskhub"
    assert origin.loadable_target_origin.module_name == "riskhub_dagster.definitions"
