"""What is put right after a `riskhub up` that was killed."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from riskhub_dagster.recover import fail_dead_runs, main, recover

Status = dg.DagsterRunStatus
DAYS = [date(2020, 3, 16), date(2020, 3, 17)]


@pytest.mark.parametrize("status", [Status.STARTING, Status.STARTED, Status.CANCELING])
def test_a_run_that_was_under_way_is_ended_as_canceled(
    instance: dg.DagsterInstance, record_run, status: dg.DagsterRunStatus
) -> None:
    run = record_run(status)

    assert recover(instance) == (1, 0)

    (ended,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    assert ended.dagster_run.status is Status.CANCELED
    assert ended.end_time is not None
    messages = [entry.message for entry in instance.all_logs(run.run_id)]
    assert "The process ended before this run did." in messages


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SUCCESS, Status.FAILURE, Status.CANCELED])
def test_a_run_that_is_queued_or_over_stays_as_it_is(
    instance: dg.DagsterInstance, record_run, status: dg.DagsterRunStatus
) -> None:
    run = record_run(status)

    assert recover(instance) == (0, 0)

    kept = instance.get_run_by_id(run.run_id)
    assert kept is not None
    assert kept.status is status


def test_a_requested_backfill_is_cancelled_and_a_finished_one_stays(
    instance: dg.DagsterInstance, record_backfill
) -> None:
    requested = record_backfill("validated_snapshots", DAYS)
    finished = record_backfill("risk_metrics", DAYS, BulkActionStatus.COMPLETED_SUCCESS)

    assert recover(instance) == (0, 1)

    status = {backfill.backfill_id: backfill.status for backfill in instance.get_backfills()}
    assert status == {
        requested.backfill_id: BulkActionStatus.CANCELED,
        finished.backfill_id: BulkActionStatus.COMPLETED_SUCCESS,
    }


def test_a_second_time_there_is_nothing_left_to_do(
    instance: dg.DagsterInstance, record_run, record_backfill
) -> None:
    record_run(Status.STARTED)
    record_backfill("validated_snapshots", DAYS)
    recover(instance)

    assert recover(instance) == (0, 0)


def test_runs_that_died_with_their_code_server_fail_and_backfills_go_on(
    instance: dg.DagsterInstance, record_run, record_backfill
) -> None:
    started, queued = record_run(Status.STARTED), record_run(Status.QUEUED)
    backfill = record_backfill("validated_snapshots", DAYS)

    (launched,) = instance.get_run_records(dg.RunsFilter(run_ids=[started.run_id]))
    launched_at = launched.update_timestamp.timestamp()
    assert fail_dead_runs(instance, died_at=launched_at) == 0  # the new server's run
    assert fail_dead_runs(instance, died_at=launched_at + 0.001) == 1

    status = {run.run_id: run.status for run in instance.get_runs()}
    assert status == {started.run_id: Status.FAILURE, queued.run_id: Status.QUEUED}
    kept = instance.get_backfill(backfill.backfill_id)
    assert kept is not None
    assert kept.status is BulkActionStatus.REQUESTED


def test_as_a_program_it_recovers_the_instance_of_dagster_home_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["recover"])
    with dg.instance_for_test(temp_dir=str(tmp_path)) as home:
        run = home.create_run_for_job(
            dg.GraphDefinition(name="empty").to_job(), status=Status.STARTED
        )

        main()
        first = capsys.readouterr().out
        main()

        kept = home.get_run_by_id(run.run_id)
        assert kept is not None
        assert kept.status is Status.CANCELED
        assert first == "ended 1 runs and 0 backfills that a killed process left behind\n"
        assert capsys.readouterr().out == ""
