"""Freshness as an asset check, on demand and by a sensor that speaks only when it changes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from builders import Clock
from stored import verdict

from riskhub_dagster.checks import freshness
from riskhub_dagster.checks.freshness import worlds_are_fresh
from riskhub_dagster.definitions import defs
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import freshness_sensor

LANDED = dg.AssetKey("landed_snapshots")


@pytest.fixture
def clock(land, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the hub and of the check."""
    time: Clock = land.clock

    class AtTheTestsTime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return time.now.astimezone(tz)

    monkeypatch.setattr(freshness, "datetime", AtTheTestsTime)
    return time


@pytest.fixture
def check(clock: Clock) -> Callable[[], dg.AssetCheckResult]:
    """Evaluates the check once."""

    def evaluate() -> dg.AssetCheckResult:
        with dg.build_resources({"hub": RiskHub()}) as resources:
            result = worlds_are_fresh(hub=resources.hub)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    return evaluate


@pytest.fixture
def tick(clock: Clock) -> Callable[[], Any]:
    """Evaluates the sensor once, from the cursor of the evaluation before."""
    kept: dict[str, str | None] = {"cursor": None}

    def evaluate() -> Any:
        with dg.build_sensor_context(
            cursor=kept["cursor"], resources={"hub": RiskHub()}
        ) as context:
            told = freshness_sensor.evaluate_tick(context)
        kept["cursor"] = told.cursor
        return told

    return evaluate


@pytest.mark.parametrize(
    ("age_sec", "state", "passed", "severity"),
    [
        (0, "fresh", True, dg.AssetCheckSeverity.WARN),
        (600, "fresh", True, dg.AssetCheckSeverity.WARN),
        (601, "stale", False, dg.AssetCheckSeverity.WARN),
        (1800, "stale", False, dg.AssetCheckSeverity.WARN),
        (1801, "critical", False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_a_world_is_stale_after_10_minutes_and_critical_after_30(
    land, clock: Clock, check, records, age_sec: int, state: str, passed: bool, severity: Any
) -> None:
    landed_at = clock.now
    land(landed_at, stage="paper", ttl_sec=86_400)
    clock.advance(age_sec)

    result = check()

    assert (result.passed, result.severity) == (passed, severity)
    assert result.metadata[state] == dg.MetadataValue.int(1)
    if passed:
        assert "late" not in result.metadata
        return
    (row,) = records(result.metadata["late"])
    assert (row["world_id"], row["stage"], row["state"]) == ("equities", "paper", state)
    assert row["age_seconds"] == row["open_age_seconds"] == age_sec
    newest = datetime.fromisoformat(str(row["newest_as_of"]))
    assert newest == landed_at.replace(microsecond=0)


def test_history_is_exempt_however_old(land, clock: Clock, check) -> None:
    land(datetime(2020, 3, 16, tzinfo=UTC), stage="backtest")

    result = check()

    assert (result.passed, dict(result.metadata)) == (True, {"exempt": dg.MetadataValue.int(1)})


def test_a_world_that_is_expected_and_never_landed_is_an_error(
    land, clock: Clock, check, records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_FRESHNESS", '{"expected": ["fx/live", "equities/paper"]}')
    land(clock.now, stage="paper")

    result = check()

    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert result.description == "1 of 2 worlds is late or missing: fx live missing"
    (row,) = records(result.metadata["late"])
    assert (row["world_id"], row["state"], row["newest_as_of"]) == ("fx", "missing", None)


def test_a_snapshot_that_was_rejected_is_no_news_of_its_world(
    land, clock: Clock, check, records, store
) -> None:
    land(clock.now - timedelta(minutes=20), stage="paper")
    position = land(clock.now, stage="paper")
    assert check().passed
    row = {"world_id": "equities", "stage": "paper", "as_of": clock.now, "day": clock.now.date()}
    rejected = verdict(position, accepted=False, **row)
    store.write_verdicts([rejected], [clock.now.date()], now=clock.now, replace=False)

    (row,) = records(check().metadata["late"])

    assert (row["state"], row["age_seconds"]) == ("stale", 1200)


def test_age_is_that_of_the_newest_snapshot_whatever_landed_last(land, clock: Clock, check) -> None:
    land(clock.now, stage="paper")
    land(clock.now - timedelta(hours=2), stage="paper")

    assert check().passed


def test_one_late_world_among_many_fails_the_check_and_stands_first(
    land, clock: Clock, check, records
) -> None:
    land(clock.now - timedelta(minutes=31), stage="paper", world_id="rates")
    land(clock.now - timedelta(minutes=11), stage="paper", world_id="credit")
    land(clock.now, stage="paper")
    land(clock.now, stage="backtest", world_id="a-history")

    result = check()

    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert result.description == (
        "2 of 4 worlds are late or missing: rates paper critical, credit paper stale"
    )
    late = [(row["world_id"], row["state"]) for row in records(result.metadata["late"])]
    assert late == [("rates", "critical"), ("credit", "stale")]
    assert [name for name in result.metadata if name != "late"] == [
        "fresh", "stale", "critical", "exempt",
    ]  # fmt: skip


def test_the_limits_are_settings(
    land, clock: Clock, check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_STALE_AFTER_SEC", "5")
    monkeypatch.setenv("RISKHUB_CRITICAL_AFTER_SEC", "10")
    land(clock.now, stage="paper")
    clock.advance(11)

    assert check().severity == dg.AssetCheckSeverity.ERROR


def test_the_sensor_speaks_when_a_world_changes_its_state_and_only_then(
    land, clock: Clock, tick
) -> None:
    land(clock.now, stage="paper")
    told = []
    for seconds in (0, 300, 301, 298, 1, 901, 600):
        clock.advance(seconds)
        told.append(tick())
    land(clock.now, stage="paper")
    told.append(tick())

    spoke = [[(event.passed, event.severity) for event in one.asset_events] for one in told]
    assert spoke == [
        [(True, dg.AssetCheckSeverity.WARN)],
        [],
        [(False, dg.AssetCheckSeverity.WARN)],  # stale
        [],
        [(False, dg.AssetCheckSeverity.WARN)],  # expired, which it does when its ttl runs out
        [(False, dg.AssetCheckSeverity.ERROR)],  # still so, and too old by now
        [],
        [(True, dg.AssetCheckSeverity.WARN)],
    ]
    assert told[1].skip_message == "no world changed its state"
    assert not any(one.run_requests for one in told)


def test_the_sensor_speaks_of_the_check_on_landed_snapshots(land, clock: Clock, tick) -> None:
    land(clock.now, stage="paper")

    (evaluation,) = tick().asset_events

    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert (evaluation.asset_key, evaluation.check_name) == (LANDED, "worlds_are_fresh")


def test_a_new_world_is_a_change(land, clock: Clock, tick) -> None:
    land(clock.now, stage="paper")
    tick()
    land(clock.now, stage="paper", world_id="credit")

    assert len(tick().asset_events) == 1


def test_the_cursor_of_a_thousand_worlds_is_as_short_as_that_of_one(
    land, store, clock: Clock, tick
) -> None:
    land(clock.now, stage="paper")
    one = tick().cursor
    store.land([land.snapshot(clock.now, world_id=f"w{number}") for number in range(1_000)])

    told = tick()

    assert len(told.cursor) == len(one)
    assert told.asset_events[0].metadata["exempt"] == dg.MetadataValue.int(1_000)


def test_the_pulse_of_the_pipeline_is_an_asset_that_is_made_every_minute() -> None:
    policies = {
        spec.key.to_user_string(): spec.freshness_policy
        for spec in defs.resolve_all_asset_specs()
        if spec.freshness_policy is not None
    }
    schedules = {schedule.name: schedule for schedule in (defs.schedules or ())}

    assert set(policies) == {"symbol_budgets"}
    assert policies["symbol_budgets"] == dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=5), fail_window=timedelta(minutes=15)
    )
    assert schedules["budgets_every_minute"].cron_schedule == "* * * * *"  # type: ignore[union-attr]
