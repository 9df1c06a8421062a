"""Retention as a nightly asset: what it did is told, and it starts where a policy asks for it."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from riskhub.blobs import open_blobs
from riskhub.settings import RetentionSettings, Settings
from riskhub.store import Store
from riskhub_dagster.assets import retention as module
from riskhub_dagster.assets.retention import retention
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.schedules import retention_schedule

DAY = date(2020, 3, 16)
WEIGHTS = {"AAPL": 0.5, "JPM": 0.5}
Forget = Callable[[], dg.ExecuteInProcessResult]


@pytest.fixture(autouse=True)
def _policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backtests are kept for a week; whatever has more than one number is offloaded."""
    monkeypatch.setenv("RISKHUB_RETENTION__DAYS", '{"backtest": 7}')
    monkeypatch.setenv("RISKHUB_BLOBS__KIND", "file")
    monkeypatch.setenv("RISKHUB_INLINE_COV_THRESHOLD", "1")


@pytest.fixture
def forget(
    settings: Settings, instance: dg.DagsterInstance, land, monkeypatch: pytest.MonkeyPatch
) -> Forget:
    """Runs the asset, at the time of the test's clock."""
    monkeypatch.setattr(module, "utc_now", land.clock)
    return lambda: dg.materialize(
        [retention], instance=instance, resources={"hub": RiskHub()}, raise_on_error=False
    )


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def figures(result: dg.ExecuteInProcessResult) -> tuple[int, ...]:
    names = ("snapshots_removed", "blobs_condemned", "blobs_removed")
    return tuple(told(result)[name].value for name in names)


def test_it_tells_what_was_removed_of_each_stage(land, forget: Forget, records) -> None:
    land(DAY, weights=WEIGHTS)
    land(DAY + timedelta(days=1), weights=WEIGHTS)
    land(DAY, weights=WEIGHTS, stage="live")
    land.clock.advance(timedelta(days=8).total_seconds())

    result = forget()

    assert figures(result) == (2, 0, 0)
    assert records(told(result)["removed"]) == [
        {
            "stage": "backtest",
            "count": 2,
            "oldest_as_of": "2020-03-16 21:00:00Z",
            "newest_as_of": "2020-03-17 21:00:00Z",
        }
    ]


def test_what_was_made_from_a_snapshot_goes_with_it_and_is_not_pending_again(
    land, compute, forget: Forget, tables, store: Store
) -> None:
    land(DAY, weights=WEIGHTS)
    compute(DAY)
    land.clock.advance(timedelta(days=8).total_seconds())

    forget()

    assert not any(tables().values())
    assert store.pending_days().days == ()


def test_blobs_go_in_two_nights(land, forget: Forget, settings: Settings) -> None:
    land(DAY, weights=WEIGHTS, realized_returns={"portfolio": [0.1, 0.2]})
    land.clock.advance(timedelta(days=8).total_seconds())

    assert figures(forget()) == (1, 1, 0)
    land.clock.advance(timedelta(days=1).total_seconds())
    assert figures(forget()) == (0, 0, 1)
    assert figures(forget()) == (0, 0, 0)

    blobs = open_blobs(settings)
    assert blobs is not None
    assert list(blobs.refs()) == []


def test_a_blob_store_that_is_down_fails_the_run_and_the_next_goes_on(
    land, forget: Forget, settings: Settings
) -> None:
    land(DAY, weights=WEIGHTS, realized_returns={"portfolio": [0.1, 0.2]})
    land.clock.advance(timedelta(days=8).total_seconds())
    directory = Path(settings.home) / "blobs"
    aside = directory.rename(directory.with_name("aside"))
    directory.touch()

    result = forget()

    assert not result.success
    assert result.get_asset_materialization_events() == []
    directory.unlink()
    aside.rename(directory)
    assert figures(forget()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ({}, dg.DefaultScheduleStatus.STOPPED),
        ({"days": {"live": None}}, dg.DefaultScheduleStatus.STOPPED),
        ({"days": {"backtest": 7}}, dg.DefaultScheduleStatus.RUNNING),
        ({"default_days": 0}, dg.DefaultScheduleStatus.RUNNING),
    ],
)
def test_the_schedule_runs_by_itself_only_where_a_policy_asks_for_removal(
    policy: dict[str, Any], status: dg.DefaultScheduleStatus
) -> None:
    schedule = retention_schedule(Settings(retention=RetentionSettings(**policy)))

    assert schedule.default_status is status
    assert schedule.job_name == "apply_retention"
