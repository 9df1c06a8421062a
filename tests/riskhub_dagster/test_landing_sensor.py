"""The landing sensor: what it asks to be computed, when it waits, and what it never forgets.

Runs are real records in an instance of the test's own; its clock is the test's.
"""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from builders import Clock, wait_until
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.execution.backfill import BulkActionStatus

from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.landing import land as land_on
from riskhub_dagster import sensors
from riskhub_dagster.definitions import defs
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import (
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    RUNS_PER_TICK,
    STRETCH_TAG,
    landing_sensor,
)

REPOSITORY = defs.get_repository_def()
JOB = defs.resolve_job_def("compute_landed")
DAY = date(2020, 3, 16)
DAYS = [DAY + timedelta(days=n) for n in range(5)]
SETTLED = timedelta(seconds=61)

Tick = Callable[..., SensorExecutionData]
Status = dg.DagsterRunStatus


@pytest.fixture
def clock(land, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the hub and of the sensor: now, and then as the test says."""
    time: Clock = land.clock

    class AtTheTestsTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return time.now.astimezone(tz)

    monkeypatch.setattr(sensors, "datetime", AtTheTestsTime)
    return time


@pytest.fixture
def tick(instance: dg.DagsterInstance, clock: Clock) -> Tick:
    """Evaluates the sensor once, from the cursor of the evaluation before."""
    kept: dict[str, str | None] = {"cursor": None}

    def evaluate() -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance,
            cursor=kept["cursor"],
            repository_def=REPOSITORY,
            resources={"hub": RiskHub()},
        ) as context:
            told = landing_sensor.evaluate_tick(context)
        kept["cursor"] = told.cursor
        return told

    return evaluate


def requested(told: SensorExecutionData) -> list[str]:
    """The days that run requests are about: a day, or its first and last."""
    return [request.tags[STRETCH_TAG] for request in told.run_requests or []]


def done(told: SensorExecutionData) -> int:
    return int(json.loads(told.cursor or "{}")["done"])


@pytest.fixture
def carry_out(instance: dg.DagsterInstance, settings) -> Callable[[SensorExecutionData], None]:
    """Runs what a tick requested, as the daemon would."""

    def run(told: SensorExecutionData) -> None:
        for request in told.run_requests or []:
            result = JOB.execute_in_process(
                instance=instance, partition_key=request.partition_key, tags=dict(request.tags)
            )
            assert result.success

    return run


@pytest.fixture
def fail(instance: dg.DagsterInstance, record_run) -> Callable[[date], datetime]:
    """Puts a failed run of a day on record; gives when it ended."""

    def record(day: date) -> datetime:
        key = day.isoformat()
        run = record_run(Status.STARTED, **{STRETCH_TAG: key, PARTITION_TAG: key})
        instance.report_run_failed(run)
        (failed,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        assert failed.end_time is not None
        return datetime.fromtimestamp(failed.end_time, tz=UTC)

    return record


# --- what is requested ---------------------------------------------------------------------------


def test_nothing_landed_nothing_is_requested(tick: Tick) -> None:
    told = tick()

    assert (requested(told), told.skip_message, told.asset_events) == ([], "nothing new", [])


def test_a_live_landing_is_requested_at_once(land, tick: Tick, clock: Clock) -> None:
    land(clock.now, stage="paper")

    (request,) = tick().run_requests or []

    today = clock.now.date().isoformat()
    assert request.partition_key == today
    assert request.tags["riskhub/only_new"] == "true"
    assert request.tags[PARTITION_TAG] == today  # which the run queue limits to one at a time


def test_yesterdays_landing_is_live_too(land, tick: Tick, clock: Clock) -> None:
    yesterday = clock.now - timedelta(days=1)
    land(yesterday)

    assert requested(tick()) == [yesterday.date().isoformat()]


def test_history_waits_until_it_has_settled_and_is_then_one_range(
    land, tick: Tick, clock: Clock
) -> None:
    for day in DAYS:
        land(day)

    clock.advance(59)
    early = tick()
    clock.advance(1)
    (request,) = tick().run_requests or []

    assert requested(early) == []
    assert early.skip_message == "5 landings wait for a run or for more"
    assert request.partition_key is None
    assert request.tags[RANGE_START_TAG] == DAYS[0].isoformat()
    assert request.tags[RANGE_END_TAG] == DAYS[-1].isoformat()
    assert request.tags["riskhub/only_new"] == "true"


def test_a_day_of_history_settles_anew_with_each_landing(land, tick: Tick, clock: Clock) -> None:
    land(DAY)
    clock.advance(59)
    land(DAY)
    clock.advance(59)

    assert requested(tick()) == []


def test_todays_landing_does_not_wait_for_history_nor_history_for_today(
    land, tick: Tick, clock: Clock
) -> None:
    for day in DAYS:
        land(day)
    clock.now += SETTLED
    land(clock.now)

    assert requested(tick()) == [clock.now.date().isoformat(), f"{DAYS[0]}..{DAYS[-1]}"]


def test_no_more_than_two_runs_a_tick_newest_days_first(land, tick: Tick, clock: Clock) -> None:
    apart = [DAY + timedelta(days=7 * n) for n in range(4)]
    for day in apart:
        land(day)
    clock.now += SETTLED

    assert RUNS_PER_TICK == 2
    assert requested(tick()) == [apart[3].isoformat(), apart[2].isoformat()]


def test_history_is_cut_where_the_settings_say_so_and_a_tick_later_the_rest_follows(
    land, tick: Tick, clock: Clock, carry_out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_BACKFILL_DAYS_PER_RUN", "2")
    for day in DAYS:
        land(day)
    clock.now += SETTLED

    first = tick()
    carry_out(first)

    assert requested(first) == [DAYS[4].isoformat(), f"{DAYS[2]}..{DAYS[3]}"]
    assert requested(tick()) == [f"{DAYS[0]}..{DAYS[1]}"]


def test_in_the_queue_what_is_live_comes_before_history(land, tick: Tick, clock: Clock) -> None:
    for day in DAYS:
        land(day)
    clock.now += SETTLED
    land(clock.now)

    live, history = tick().run_requests or []

    assert live.tags["dagster/priority"] == "1"
    assert "dagster/priority" not in history.tags


# --- what is computed is done, and the cursor says so --------------------------------------------


def test_what_was_requested_and_computed_is_not_requested_again(
    land, tick: Tick, clock: Clock, carry_out, store: Store
) -> None:
    for day in (*DAYS, clock.now.date() - timedelta(days=1)):
        land(day)
    clock.now += SETTLED

    first = tick()
    carry_out(first)
    second = tick()

    assert len(requested(first)) == 2
    assert (requested(second), done(first), done(second)) == ([], 0, 6)
    assert store.pending_days().days == ()
    assert len(store.metrics_on(DAYS[0], clock.now.date())) == 6


def test_the_cursor_stays_before_the_first_landing_that_is_not_computed(
    land, tick: Tick, clock: Clock, compute
) -> None:
    land(DAYS[0])
    land(DAYS[3])
    land(DAYS[1])
    clock.now += SETTLED
    compute(DAYS[0])
    compute(DAYS[1])

    told = tick()

    assert (requested(told), done(told)) == ([DAYS[3].isoformat()], 1)


def test_a_quarantined_landing_is_done(land, tick: Tick, clock: Clock, compute) -> None:
    land(DAY, weights={"AAPL": 1}, realized_returns={"portfolio": [-1.0]})
    clock.now += SETTLED
    compute(DAY)

    told = tick()

    assert (requested(told), done(told)) == ([], 1)


def test_a_snapshot_without_numbers_is_done(land, tick: Tick, clock: Clock, compute) -> None:
    land(DAY, weights={"NOPE": 1})
    clock.now += SETTLED
    compute(DAY)

    told = tick()

    assert (requested(told), done(told)) == ([], 1)


def test_a_landing_that_was_validated_and_not_measured_is_requested_again(
    land, tick: Tick, clock: Clock, carry_out, compute, store: Store, empty_derived
) -> None:
    land(DAY)
    clock.now += SETTLED
    compute(DAY)
    verdicts = store.verdicts_on(DAY, DAY)
    empty_derived()
    store.write_days({"validated_snapshots": verdicts}, [DAY], replace=True)

    told = tick()
    carry_out(told)

    assert requested(told) == [DAY.isoformat()]
    assert len(store.metrics_on(DAY, DAY)) == 1
    assert done(tick()) == 1


def test_a_day_without_a_partition_yet_waits_and_holds_nothing_else_up(
    land, tick: Tick, clock: Clock
) -> None:
    land.settings = land.settings.model_copy(update={"future_tolerance_sec": 3 * 86_400})
    land(clock.now + timedelta(days=1))
    land(clock.now)

    told = tick()

    assert requested(told) == [clock.now.date().isoformat()]
    assert done(told) == 0


def test_a_day_before_the_first_partition_is_passed_over(
    land, tick: Tick, clock: Clock, compute
) -> None:
    land(date(1985, 3, 4))
    land(date(1985, 3, 5))
    land(DAY)
    clock.now += SETTLED

    told = tick()
    compute(DAY)

    assert requested(told) == [DAY.isoformat()]
    assert done(tick()) == 3


# --- one writer of a day -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.QUEUED, Status.NOT_STARTED, Status.STARTING,
                                    Status.STARTED, Status.CANCELING])  # fmt: skip
def test_no_request_for_a_day_whose_run_is_unfinished(
    land, tick: Tick, clock: Clock, record_run, status: dg.DagsterRunStatus
) -> None:
    for day in DAYS:
        land(day)
    clock.now += SETTLED
    record_run(status, **{PARTITION_TAG: DAYS[2].isoformat()})

    assert requested(tick()) == [f"{DAYS[3]}..{DAYS[4]}", f"{DAYS[0]}..{DAYS[1]}"]


def test_no_request_for_the_days_of_an_unfinished_range(
    land, tick: Tick, clock: Clock, record_run
) -> None:
    for day in DAYS:
        land(day)
    clock.now += SETTLED
    ends = {RANGE_START_TAG: DAYS[1].isoformat(), RANGE_END_TAG: DAYS[3].isoformat()}
    record_run(Status.STARTED, **ends)

    assert requested(tick()) == [DAYS[4].isoformat(), DAYS[0].isoformat()]


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.CANCELED])
def test_a_finished_run_holds_no_day(
    land, tick: Tick, clock: Clock, record_run, status: dg.DagsterRunStatus
) -> None:
    land(DAY)
    clock.now += SETTLED
    record_run(status, **{PARTITION_TAG: DAY.isoformat(), STRETCH_TAG: DAY.isoformat()})

    assert requested(tick()) == [DAY.isoformat()]


def test_a_run_without_partition_holds_no_day(land, tick: Tick, clock: Clock, record_run) -> None:
    land(DAY)
    clock.now += SETTLED
    record_run(Status.STARTED)

    assert requested(tick()) == [DAY.isoformat()]


@pytest.mark.parametrize(
    ("asset", "status", "left"),
    [
        ("validated_snapshots", BulkActionStatus.REQUESTED, [f"{DAYS[3]}..{DAYS[4]}"]),
        ("validated_snapshots", BulkActionStatus.COMPLETED_SUCCESS, [f"{DAYS[0]}..{DAYS[4]}"]),
        ("validated_snapshots", BulkActionStatus.CANCELED, [f"{DAYS[0]}..{DAYS[4]}"]),
        ("risk_metrics", BulkActionStatus.REQUESTED, [f"{DAYS[0]}..{DAYS[4]}"]),
    ],
    ids=["requested", "completed", "canceled", "of another asset"],
)
def test_no_request_for_the_days_of_a_requested_backfill(
    land,
    tick: Tick,
    clock: Clock,
    record_backfill,
    asset: str,
    status: BulkActionStatus,
    left: list[str],
) -> None:
    for day in DAYS:
        land(day)
    clock.now += SETTLED
    record_backfill(asset, DAYS[:3], status)

    assert requested(tick()) == left


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "delay_sec"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (12, 3600)]
)
def test_a_failed_run_is_tried_again_after_twice_the_time_at_most_an_hour(
    land, tick: Tick, clock: Clock, fail, failures: int, delay_sec: int
) -> None:
    clock.advance(-3600)
    land(DAY)
    ended = [fail(DAY) for _ in range(failures)][-1]

    clock.now = ended + timedelta(seconds=delay_sec - 1)
    early = tick()
    clock.now = ended + timedelta(seconds=delay_sec)
    late = tick()

    assert requested(early) == []
    assert early.skip_message == "1 landings wait for a run or for more"
    assert requested(late) == [DAY.isoformat()]


def test_a_success_ends_the_waiting(land, tick: Tick, clock: Clock, fail, record_run) -> None:
    land(DAY)
    for _ in range(8):
        fail(DAY)
    record_run(Status.SUCCESS, **{STRETCH_TAG: DAY.isoformat()})
    clock.now = fail(DAY) + SETTLED

    assert requested(tick()) == [DAY.isoformat()]


def test_days_that_fail_hold_no_others_up(land, tick: Tick, clock: Clock, fail) -> None:
    apart = [DAY + timedelta(days=7 * n) for n in range(4)]
    for day in apart:
        land(day)
    clock.now = max(fail(day) for day in apart[2:] for _ in range(3)) + SETTLED

    assert requested(tick()) == [apart[1].isoformat(), apart[0].isoformat()]


# --- what is told --------------------------------------------------------------------------------


def test_a_landing_is_observed_once_with_what_waits(land, tick: Tick, records) -> None:
    land(DAYS[0])
    land(DAYS[1])
    land(DAYS[1])

    (observation,) = tick().asset_events
    again = tick()
    land(DAYS[2])
    (third,) = tick().asset_events

    assert observation.asset_key == dg.AssetKey("landed_snapshots")
    assert observation.metadata["position"].value == 3
    assert observation.metadata["landed_since_last_tick"].value == 3
    assert records(observation.metadata["waiting"]) == [
        {"day": DAYS[1].isoformat(), "waiting": 2},
        {"day": DAYS[0].isoformat(), "waiting": 1},
    ]
    assert again.asset_events == []
    assert third.metadata["landed_since_last_tick"].value == 1


# --- rows that commit late -----------------------------------------------------------------------


class TestOnPostgres:
    """There, unlike in SQLite, transactions that land run side by side."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    @pytest.fixture
    def held_open(self, land, store: Store) -> Iterator[Callable[..., Callable[[], None]]]:
        """Lands in a transaction that is open until the function it gives is called."""
        threads: list[threading.Thread] = []
        release = threading.Event()

        def begin(snapshot: Any) -> Callable[[], None]:
            inserted = threading.Event()

            def transaction() -> None:
                with writing(store.engine) as connection:
                    land_on(connection, [snapshot])
                    inserted.set()
                    assert release.wait(30)

            thread = threading.Thread(target=transaction)
            threads.append(thread)
            thread.start()
            assert inserted.wait(30)

            def commit() -> None:
                release.set()
                thread.join(30)

            return commit

        yield begin
        release.set()
        for thread in threads:
            thread.join(30)

    def test_a_landing_that_commits_late_is_not_skipped(
        self, land, tick: Tick, clock: Clock, compute, store: Store, held_open
    ) -> None:
        land(DAYS[0])
        compute(DAYS[0])
        clock.now += SETTLED
        commit = held_open(land.snapshot(DAYS[1]))
        later = threading.Thread(target=land, args=(DAYS[2],))
        later.start()
        wait_until(lambda: waits_for_the_landing_lock(store))

        while_open = tick()
        commit()
        later.join(30)
        clock.now += SETTLED
        after = tick()

        assert (requested(while_open), done(while_open)) == ([], 1)
        assert requested(after) == [f"{DAYS[1]}..{DAYS[2]}"]
        assert done(after) == 1

    def test_positions_grow_in_the_order_of_commits(
        self, land, clock: Clock, store: Store, held_open
    ) -> None:
        commit = held_open(land.snapshot(DAYS[1]))
        later = threading.Thread(target=land, args=(DAYS[2],))
        later.start()
        wait_until(lambda: waits_for_the_landing_lock(store))

        head_while_open = store.head()
        commit()
        later.join(30)

        assert head_while_open == 0
        assert [landed.day for landed in store.landed_on(DAYS[0], DAYS[4])] == [DAYS[1], DAYS[2]]

    def test_the_whole_way_from_landing_to_done(
        self, land, tick: Tick, clock: Clock, carry_out, store: Store
    ) -> None:
        for day in DAYS:
            land(day)
        clock.now += SETTLED
        land(clock.now, weights={"AAPL": 1}, realized_returns={"portfolio": [-1.0]})

        carry_out(tick())
        land(DAY)
        clock.now += SETTLED
        carry_out(tick())
        last = tick()

        assert (requested(last), done(last)) == ([], 7)
        assert len(store.metrics_on(DAYS[0], DAYS[4])) == 6


def waits_for_the_landing_lock(store: Store) -> bool:
    with store.engine.connect() as connection:
        waiting = sa.text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        return bool(connection.execute(waiting).scalar())
