"""The outcome sensor: what it asks to be computed, when it waits, what it does not look at again.

Runs are real records in an instance of the test's own; its clock is the test's.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from builders import Clock
from dagster._core.definitions.sensor_definition import SensorExecutionData
from forecasting import CALM, CRASH, commit, write_prices

from riskhub.store import Store
from riskhub_dagster import backtest_sensor
from riskhub_dagster.assets.daily import WORLDS_TAG
from riskhub_dagster.backtest_sensor import OUTCOMES_TAG, outcome_sensor
from riskhub_dagster.definitions import defs
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG

REPOSITORY = defs.get_repository_def()
JOB = defs.resolve_job_def("compute_backtests")
Status = dg.DagsterRunStatus
Tick = Callable[..., SensorExecutionData]
CarryOut = Callable[[SensorExecutionData], None]


@pytest.fixture
def days(tmp_path: Path, settings, monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The days of a price file of three calm weeks."""
    path = tmp_path / "prices.csv"
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(path))
    return write_prices(path, [CALM] * 15)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the sensor: now, and then as the test says."""
    time = Clock(datetime.now(UTC))

    class AtTheTestsTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return time.now.astimezone(tz)

    monkeypatch.setattr(backtest_sensor, "datetime", AtTheTestsTime)
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
            told = outcome_sensor.evaluate_tick(context)
        kept["cursor"] = told.cursor or kept["cursor"]
        return told

    return evaluate


@pytest.fixture
def carry_out(instance: dg.DagsterInstance, settings) -> CarryOut:
    """Runs what a tick requested, as the daemon would."""

    def run(told: SensorExecutionData) -> None:
        for request in told.run_requests or []:
            result = JOB.execute_in_process(
                instance=instance, partition_key=request.partition_key, tags=dict(request.tags)
            )
            assert result.success

    return run


def requested(told: SensorExecutionData) -> list[str]:
    return [request.tags[OUTCOMES_TAG] for request in told.run_requests or []]


def span(days: Sequence[date]) -> str:
    return f"{days[0]}..{days[-1]}"


def test_without_forecasts_nothing_is_due(days: list[date], tick: Tick) -> None:
    told = tick()

    assert (requested(told), told.skip_message) == ([], "nothing is due")


def test_history_is_one_run_over_its_outcomes_and_then_nothing_is_due(
    days: list[date], store: Store, tick: Tick, carry_out: CarryOut
) -> None:
    commit(store, days)

    told = tick()
    (request,) = told.run_requests or []

    assert request.tags[RANGE_START_TAG] == days[1].isoformat()
    assert request.tags[RANGE_END_TAG] == days[-1].isoformat()
    assert request.tags[WORLDS_TAG] == "equities"
    carry_out(told)
    assert len(store.outcomes_on(days[0], days[-1])) == 15
    assert {row["observations"] for row in store.newest_backtests()} == {15}
    assert tick().skip_message == "nothing is due"


def test_a_late_correction_recomputes_its_outcome_and_the_backtests_from_then_on(
    days: list[date], store: Store, tick: Tick, carry_out: CarryOut
) -> None:
    commit(store, days)
    commit(store, days, world_id="other")
    carry_out(tick())
    tick()
    others = store.backtests("other")
    (corrected,) = commit(store, [days[4]], hour=22, weights={"AAA": -25.0, "CASH": 26.0})

    told = tick()
    assert requested(told) == [span(days[5:])]
    assert [request.tags[WORLDS_TAG] for request in told.run_requests or []] == ["equities"]
    carry_out(told)

    by_day = {row["day"]: row for row in store.outcomes_on(days[0], days[-1], worlds={"equities"})}
    assert by_day[days[5]]["position"] == corrected
    counts = {row["day"]: row["exceedances"] for row in store.backtests("equities")}
    assert counts == {day: int(day >= days[5]) for day in days[1:]}
    assert store.backtests("other") == others
    assert tick().skip_message == "nothing is due"


def test_a_price_that_arrives_makes_the_waiting_forecast_due(
    days: list[date], store: Store, tick: Tick, carry_out: CarryOut, settings, tmp_path: Path
) -> None:
    commit(store, days)
    carry_out(tick())
    assert tick().skip_message == "nothing is due"

    longer = write_prices(tmp_path / "prices.csv", [*[CALM] * 15, CRASH])

    told = tick()
    (request,) = told.run_requests or []
    assert request.partition_key == longer[-1].isoformat()
    carry_out(told)
    assert {(row["exceedances"], row["exceeded"]) for row in store.newest_backtests()} == {
        (1, True)
    }
    assert tick().skip_message == "nothing is due"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.STARTED])
def test_while_a_run_writes_forecasts_or_days_that_follow_nothing_is_requested(
    days: list[date], store: Store, tick: Tick, record_run, instance, status: Status
) -> None:
    commit(store, days)
    busy = record_run(
        status, **{RANGE_START_TAG: days[9].isoformat(), RANGE_END_TAG: days[10].isoformat()}
    )

    told = tick()

    assert requested(told) == []
    assert told.skip_message == "15 outcomes wait for runs of these days to end"
    instance.report_run_canceled(busy)
    assert requested(tick()) == [span(days[1:])]


def test_a_run_of_other_days_is_not_waited_for(
    days: list[date], store: Store, tick: Tick, record_run
) -> None:
    commit(store, days)
    for day in (days[0] - timedelta(days=30), days[-1] + timedelta(days=30)):
        record_run(Status.STARTED, **{PARTITION_TAG: day.isoformat()})

    assert requested(tick()) == [span(days[1:])]


def test_a_requested_backfill_of_forecasts_is_waited_for(
    days: list[date], store: Store, tick: Tick, record_backfill
) -> None:
    commit(store, days)
    record_backfill("risk_metrics", days[2:4])

    assert requested(tick()) == [span(days[10:])]  # too late for its forecasts to matter


def test_a_run_that_failed_is_tried_again_later(
    days: list[date], store: Store, tick: Tick, clock: Clock, record_run, instance
) -> None:
    commit(store, days)
    run = record_run(Status.STARTED, **{OUTCOMES_TAG: span(days[1:])})
    instance.report_run_failed(run)

    assert tick().skip_message == "15 outcomes wait, for their last run failed"
    clock.advance(31)
    assert requested(tick()) == [span(days[1:])]


def test_all_of_history_is_looked_at_again_each_ten_minutes_and_only_then(
    days: list[date], store: Store, tick: Tick, clock: Clock, carry_out: CarryOut
) -> None:
    commit(store, days)
    carry_out(tick())
    told = tick()
    assert json.loads(told.cursor or "{}")["position"] == store.head()
    store.write_days({"var_backtests": []}, [days[7]], replace=True)

    clock.advance(599)
    assert tick().skip_message == "nothing is due"
    clock.advance(1)
    told = tick()
    assert requested(told) == [span(days[7:])]
    carry_out(told)
    assert days[7] in {row["day"] for row in store.backtests("equities")}
    assert tick().skip_message == "nothing is due"


def test_what_landed_and_is_not_measured_yet_is_not_passed_over(
    days: list[date], store: Store, tick: Tick, land, carry_out: CarryOut
) -> None:
    commit(store, days)
    carry_out(tick())
    waiting = land(datetime(2020, 1, 7, 23, tzinfo=UTC), world_id="late")
    told = tick()
    assert told.skip_message == "nothing is due"
    assert json.loads(told.cursor or "{}")["position"] == waiting - 1


def test_many_worlds_are_a_run_about_all(days: list[date], store: Store, tick: Tick) -> None:
    for number in range(21):
        commit(store, days[:1], world_id=f"w{number}")

    (request,) = tick().run_requests or []

    assert WORLDS_TAG not in request.tags
