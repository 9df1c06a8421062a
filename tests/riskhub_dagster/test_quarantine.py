"""From what landed to what is served: a run judges, and what it rejects is no latest any more."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Filter, Store
from riskhub.store.reading import Lookup
from riskhub.strict_json import parse_json
from riskhub_dagster.assets import snapshots as assets
from riskhub_dagster.assets.daily import ONLY_NEW_TAG, WORLDS_TAG
from riskhub_dagster.assets.snapshots import (
    landed_snapshots,
    snapshot_weights,
    validated_snapshots,
)
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

DAY = date(2020, 3, 16)
EVENING = datetime(2020, 3, 16, 21, tzinfo=UTC)
PAIR = {"AAPL": 0.5, "BAC": 0.5}
# Higham (2002): the nearest correlation matrix is 0.5278 away.
NOT_A_COVARIANCE = {
    "weights": {"A": 0.5, "B": 0.25, "C": 0.25},
    "covariance": {"A,A": 1, "B,B": 1, "C,C": 1, "A,B": 1, "B,C": 1, "A,C": 0},
}
LOST_ALL = {"weights": {"AAPL": 1}, "realized_returns": {"portfolio": [0.1, -1.0]}}

Judge = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def judge(settings: Settings, instance: dg.DagsterInstance) -> Judge:
    """Materializes verdicts and weights of a day, or of a range of days."""

    def run(
        first: date = DAY,
        last: date | None = None,
        *,
        only_new: bool = False,
        worlds: str | None = None,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        tags = {ONLY_NEW_TAG: "true"} if only_new else {}
        if worlds:
            tags[WORLDS_TAG] = worlds
        if last is not None:
            tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        return dg.materialize(
            [landed_snapshots, validated_snapshots, snapshot_weights],
            partition_key=None if last else first.isoformat(),
            tags=tags,
            instance=instance,
            resources={"hub": RiskHub()},
            **options,
        )

    return run


@pytest.fixture
def hub(store: Store, settings: Settings) -> Hub:
    """The hub that consumers ask, with what it remembers."""
    return Hub(store, settings)


def version(body: str | None) -> str | None:
    return parse_json(body.encode())["version"] if body else None


def reads(hub: Hub) -> list[str | None]:
    """The latest in each way that it can be asked for."""
    lookups = [
        Lookup("equities", None, Filter(include_expired=True)),
        Lookup("equities", None, Filter(up_to=EVENING + timedelta(hours=2), include_expired=True)),
    ]
    return [
        version(hub.latest("equities")),
        version(hub.latest("equities", Filter(stage="backtest"))),
        *(version(found.body if found else None) for found in hub.look_up_many(lookups)),
    ]


def test_a_bad_snapshot_is_the_latest_until_it_is_judged_and_then_the_good_one_before_it_is(
    land, judge: Judge, hub: Hub
) -> None:
    lasting = {"ttl_sec": 86_400}
    land(EVENING, weights=PAIR, **lasting)
    judge(only_new=True)
    land(EVENING + timedelta(hours=1), **NOT_A_COVARIANCE, **lasting)
    assert reads(hub) == ["v2"] * 4
    before = datetime.now(UTC)

    assert judge(only_new=True).success

    assert reads(hub) == ["v1"] * 4
    then = Lookup("equities", None, Filter(known_at=before, include_expired=True))
    assert version(hub.lookup(then)) == "v2"
    assert version(hub.lookup(Lookup("equities", "v2", Filter(include_expired=True)))) == "v2"
    land(EVENING + timedelta(hours=2), weights=PAIR, **lasting)
    assert reads(hub) == ["v3"] * 4


def test_the_check_shows_what_was_rejected_why_and_what_was_measured(
    land, judge: Judge, checks, records
) -> None:
    land(DAY, weights=PAIR)
    land(DAY, **NOT_A_COVARIANCE)

    found = checks(judge())

    check = found["nothing_quarantined"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    (row,) = records(check.metadata["quarantined"])
    assert (row["version"], row["why"]) == ("v2", "the covariance is not positive semidefinite")
    assert '"nearest_distance": 0.52779' in row["evidence"]
    assert found["nothing_flagged"].passed


def test_what_is_flagged_is_accepted_and_shown(
    land, judge: Judge, checks, records, store: Store
) -> None:
    land(DAY, weights=PAIR)
    land(DAY, weights={"NOPE": 1.0})

    result = judge()

    check = checks(result)["nothing_flagged"]
    assert result.success
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "1 accepted snapshots of these days are flagged"
    assert [(row["version"], row["flags"]) for row in records(check.metadata["flagged"])] == [
        ("v2", "no returns, covariance or prices of NOPE")
    ]
    assert [row["accepted"] for row in store.verdicts_on(DAY, DAY)] == [True, True]
    assert store.verdicts_on(DAY, DAY)[1]["evidence"] == {"symbols": {"unknown": ["NOPE"]}}
    assert len(store.weights_of(DAY, DAY)) == 2


def test_prices_that_are_gone_keep_nobody_out_of_the_quarantine(
    land, judge: Judge, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(tmp_path / "gone.csv"))
    land(DAY, weights=PAIR)
    land(DAY, **LOST_ALL)

    assert judge().success

    good, bad = store.verdicts_on(DAY, DAY)
    assert (good["accepted"], bad["accepted"]) == (True, False)
    (flag,) = good["flags"]
    assert flag.startswith("whether there are prices of its symbols is not known: ")


def test_a_run_that_adds_what_is_new_tells_of_the_whole_day(land, judge: Judge) -> None:
    land(DAY, weights=PAIR)
    land(DAY, **LOST_ALL)
    judge(only_new=True)
    land(DAY, weights=PAIR)

    result = judge(only_new=True)

    (told,) = [
        event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("validated_snapshots")
    ]
    names = ("dagster/row_count", "accepted", "quarantined", "flagged")
    assert [told[name].value for name in names] == [3, 2, 1, 0]


def test_a_run_for_some_worlds_judges_these_and_leaves_the_others(
    land, judge: Judge, store: Store, tables
) -> None:
    for world in ("equities", "credit", "fx"):
        land(DAY, world_id=world, weights=PAIR)
    judge(worlds="credit,fx")
    assert [row["world_id"] for row in store.verdicts_on(DAY, DAY)] == ["credit", "fx"]
    judge()
    before = tables()

    judge(worlds="credit")

    assert tables() == before


def test_bodies_are_read_a_few_at_a_time_and_nothing_depends_on_how_many(
    land, judge: Judge, tables, empty_derived, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [DAY, DAY + timedelta(days=1)]
    for day in days:
        for bad in (False, True, False, False):
            land(day, **(NOT_A_COVARIANCE if bad else {"weights": PAIR}))
    judge(*days)
    at_once = tables()
    empty_derived()
    monkeypatch.setattr(assets, "_BATCH", 3)
    read: list[int] = []
    for name in ("landed_on", "accepted_on"):
        monkeypatch.setattr(Store, name, _counting(getattr(Store, name), read))

    judge(*days)

    assert tables() == at_once
    assert len(at_once["validated_snapshots"]) == 8
    assert len(at_once["snapshot_weights"]) == 12
    assert read == [3, 3, 2, 0, 3, 3, 0]


def _counting(method: Callable[..., list[Any]], counts: list[int]) -> Callable[..., list[Any]]:
    def counted(*args: Any, **kwargs: Any) -> list[Any]:
        found = method(*args, **kwargs)
        counts.append(len(found))
        return found

    return counted


def test_judging_a_day_again_gives_the_same_rows_and_the_same_beginning_of_the_quarantine(
    land, judge: Judge, store: Store, tables
) -> None:
    land(DAY, weights=PAIR)
    land(DAY, **NOT_A_COVARIANCE)
    judge()
    before, (held,) = tables(), store.quarantined(limit=9).rows

    judge()

    assert tables() == before
    assert list(store.quarantined(limit=9).rows) == [held]
