"""``deploy/dagster/dagster.yaml``: what production's Dagster is told, how it finds lost runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import make_url

from riskhub_dagster import run_heartbeat
from riskhub_dagster.recover import fail_dead_runs
from riskhub_dagster.run_heartbeat import Heartbeat, connect
from riskhub_dagster.run_launcher import RunWorkerLauncher

INSTANCE = Path(__file__).resolve().parents[2] / "deploy" / "dagster" / "dagster.yaml"
Status = dg.DagsterRunStatus
LAUNCHED = {DAGSTER_CELERY_TASK_ID_TAG: "task"}


@pytest.fixture
def production(
    tmp_path: Path, postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of production's processes, on a Postgres and a Redis of the test's own."""
    shutil.copyfile(INSTANCE, tmp_path / "dagster.yaml")
    url = make_url(postgres_url).set(drivername="postgresql+psycopg2")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("RISKHUB_DAGSTER_DATABASE_URL", url.render_as_string(hide_password=False))
    monkeypatch.setenv("RISKHUB_RUN_BROKER_URL", redis_url)
    monkeypatch.setattr(run_heartbeat, "REDIS_SETTLES_SEC", 0)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def instance(production: dg.DagsterInstance) -> dg.DagsterInstance:
    """What `record_run` records in."""
    return production


@pytest.fixture
def launcher(production: dg.DagsterInstance) -> RunWorkerLauncher:
    found = production.run_launcher
    assert isinstance(found, RunWorkerLauncher)
    return found


def test_it_keeps_its_records_in_postgres_and_captures_nothing(
    production: dg.DagsterInstance,
) -> None:
    assert isinstance(production.event_log_storage, PostgresEventLogStorage)
    assert isinstance(production.compute_log_manager, NoOpComputeLogManager)
    assert production.telemetry_enabled is False


def test_runs_wait_in_the_queue_and_not_for_a_worker(production: dg.DagsterInstance) -> None:
    coordinator = production.run_coordinator
    assert isinstance(coordinator, QueuedRunCoordinator)

    queue = coordinator.get_run_queue_config()

    assert queue.max_concurrent_runs == 4
    assert queue.max_user_code_failure_retries == 5
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/partition"]


def test_a_lost_run_is_looked_for_and_tried_again_and_a_failed_op_is_not(
    production: dg.DagsterInstance, launcher: RunWorkerLauncher
) -> None:
    assert production.run_monitoring_enabled
    assert production.run_monitoring_poll_interval_seconds == 10
    assert production.run_monitoring_max_resume_run_attempts == 0
    assert launcher.supports_check_run_worker_health
    assert production.run_retries_enabled
    assert production.run_retries_max_retries == 3
    assert production.run_retries_retry_on_asset_or_op_failure is False


def test_a_run_lives_as_long_as_its_worker_says_so(
    production: dg.DagsterInstance, launcher: RunWorkerLauncher, record_run, redis_url: str
) -> None:
    run = record_run(Status.STARTED, **LAUNCHED)
    with connect(redis_url, timeout_sec=1.0) as client:
        beats = Heartbeat(
            client, run.run_id, "runs@a 1", every_sec=1.0, lost_after_sec=5.0, timeout_sec=1.0
        )
        with beats:
            assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING

    found = launcher.check_run_worker_health(run)

    assert found.status is WorkerStatus.FAILED
    assert found.msg == "its worker gave no sign of life: ended, or cut off"


def test_a_run_of_somebodys_own_process_is_none_of_ours(
    launcher: RunWorkerLauncher, record_run
) -> None:
    run = record_run(Status.STARTED)

    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_runs_do_not_end_with_the_code_server(production: dg.DagsterInstance, record_run) -> None:
    record_run(Status.STARTED, **LAUNCHED)

    assert fail_dead_runs(production, died_at=4e9) == 0
