"""From accepted snapshots to stress results, in this process, on each database."""

import csv
import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from riskhub import __version__
from riskhub.scenarios import load_scenarios
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.stress import StressFilter
from riskhub.store.tables import run_progress, scenario_books, snapshot_stress, stress_results
from riskhub_dagster.assets.daily import ONLY_NEW_TAG
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results as stress_asset
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

DAY = date(2020, 3, 23)  # the last day of the scenario covid-2020
EQUAL = {"BAC": 0.5, "JPM": 0.5}
Rows = list[dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def compute(settings: Settings, instance: dg.DagsterInstance) -> Callable[..., Any]:
    """Materializes what leads to stress results, of a day or of a range in one run."""

    def run(first: date, last: date | None = None, *, only_new: bool = False) -> Any:
        tags = {ONLY_NEW_TAG: "true"} if only_new else {}
        if last is not None:
            tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        return dg.materialize(
            [landed_snapshots, validated_snapshots, snapshot_weights, stress_asset],
            partition_key=None if last else first.isoformat(),
            tags=tags,
            instance=instance,
            resources={"hub": RiskHub()},
        )

    return run


@pytest.fixture
def stressed(store: Store) -> Callable[[], dict[str, Rows]]:
    """Reads what the asset has written, whole, in the order of the keys."""

    def read() -> dict[str, Rows]:
        with store.engine.connect() as connection:
            return {
                table.name: [
                    dict(row._mapping)
                    for row in connection.execute(
                        sa.select(table).order_by(*table.primary_key.columns)
                    )
                ]
                for table in (snapshot_stress, stress_results)
            }

    return read


def told(result: Any) -> dict[str, dict[str, Any]]:
    """What each partition's materialization says."""
    return {
        str(event.partition): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("stress_results")
    }


def results_of(store: Store, world_id: str = "equities", **which: Any) -> dict[str, Any]:
    (row,) = store.stress(world_id, StressFilter(**which), limit=1).rows
    return {each["scenario"]: each for each in row["results"] if each["origin"] == "riskhub"}


def earned(settings: Settings, first: str, last: str) -> float:
    """What half BAC and half JPM returned from one close to another, by the price file."""
    with gzip.open(settings.prices_path, "rt") as file:
        prices = {row["Date"]: row for row in csv.DictReader(file)}
    return sum(float(prices[last][s]) / float(prices[first][s]) - 1 for s in EQUAL) / 2


def test_a_snapshot_has_a_result_for_every_scenario_of_the_book(
    land, compute, store: Store, settings: Settings
) -> None:
    land(DAY, weights=EQUAL)

    assert compute(DAY).success

    book = load_scenarios(settings.scenarios_path)
    (row,) = store.stress("equities", limit=1).rows
    assert [each["scenario"] for each in row["results"]] == [each.id for each in book.scenarios]
    assert [each["label"] for each in row["results"]] == [each.label for each in book.scenarios]
    assert (row["book_digest"], row["covariance_source"]) == (book.digest, "prices")
    assert (row["loss_limit"], row["against"], row["market"]) == (0.1, 0.1, -0.1)
    assert row["code_version"] == f"riskhub/{__version__}"
    results = results_of(store)
    assert results["covid-2020"]["pnl"] == pytest.approx(
        earned(settings, "2020-02-19", "2020-03-23"), rel=1e-12
    )
    assert results["lehman-2008"]["pnl"] == pytest.approx(
        earned(settings, "2008-09-12", "2008-10-14"), rel=1e-12
    )
    assert results["single-name-50"]["pnl"] == -0.25
    assert results["volatility-x2"]["var"] > 0
    assert "mapped by beta" in results["black-monday-1987"]["label"]
    assert results["rates-2022"]["unavailable"] == "2022-12-28 lies after 2020-03-23"


def test_what_a_producer_sent_is_kept_beside(land, compute, store: Store) -> None:
    land(DAY, weights=EQUAL, stress={"covid-2020": {"pnl": -0.9}, "flood": {"loss": 0.5}})

    compute(DAY)

    (row,) = store.stress("equities", StressFilter(origin="producer"), limit=1).rows
    assert {each["scenario"]: each["measures"] for each in row["results"]} == {
        "covid-2020": {"pnl": -0.9},
        "flood": {"loss": 0.5},
    }
    assert results_of(store)["covid-2020"]["pnl"] != -0.9


def test_a_book_is_kept_once(land, compute, store: Store, settings: Settings) -> None:
    land(DAY, weights=EQUAL)

    compute(DAY)
    compute(DAY)

    book = load_scenarios(settings.scenarios_path)
    with store.engine.connect() as connection:
        kept = connection.execute(sa.select(scenario_books.c.digest)).scalars().all()
    assert kept == [book.digest] * len(book.scenarios)


def test_a_range_run_gives_the_rows_of_a_run_per_day_bit_for_bit(
    land, compute, stressed, store: Store
) -> None:
    days = [DAY - timedelta(days=n) for n in (95, 64, 33, 32, 31, 7, 1, 0)]
    for number, day in enumerate(days):
        tilt = number / 100
        land(day, weights={"AAPL": 0.4 + tilt, "XOM": 1.0 - tilt, "KO": -0.4})
        land(day, world_id="credit", weights=EQUAL)
    for day in days:
        assert compute(day).success
    by_day = stressed()
    with store.engine.begin() as connection:
        connection.execute(sa.delete(stress_results))
        connection.execute(sa.delete(snapshot_stress))

    assert compute(days[0], days[-1]).success

    assert len(by_day["snapshot_stress"]) == 16
    assert len(by_day["stress_results"]) == 16 * 19
    assert stressed() == by_day


def test_a_day_computed_again_is_the_same_and_repairs_what_was_changed(
    land, compute, stressed, store: Store
) -> None:
    land(DAY, weights=EQUAL)
    compute(DAY)
    before = stressed()
    with store.engine.begin() as connection:
        connection.execute(sa.update(stress_results).values(pnl=42.0))

    compute(DAY)

    assert stressed() == before


def test_a_late_snapshot_only_adds(land, compute, stressed, store: Store) -> None:
    first = land(DAY, weights=EQUAL)
    compute(DAY)
    with store.engine.begin() as connection:
        connection.execute(sa.update(snapshot_stress).values(code_version="older"))
        connection.execute(sa.update(stress_results).values(pnl=42.0))
    before = stressed()

    second = land(DAY, world_id="credit", weights={"BAC": 1.0})
    result = compute(DAY, only_new=True)

    for name, rows in stressed().items():
        assert [row for row in rows if row["position"] == first] == before[name]
        added = [row for row in rows if row["position"] == second]
        assert len(added) == {"snapshot_stress": 1, "stress_results": 19}[name]
    assert told(result)[str(DAY)]["snapshots"] == 1


def test_every_accepted_snapshot_is_done_whatever_is_unavailable(
    land, compute, store: Store
) -> None:
    land(DAY, weights={"NOPE": 0.5, "BAC": 0.5})
    land(date(2026, 1, 5), weights=EQUAL)  # years after the prices end

    compute(DAY)
    compute(date(2026, 1, 5))

    with store.engine.connect() as connection:
        positions = connection.execute(sa.select(snapshot_stress.c.position)).scalars().all()
        left = connection.execute(sa.select(run_progress)).all()
    assert (sorted(positions), left) == ([1, 2], [])
    late = results_of(store, since=datetime(2026, 1, 1, tzinfo=UTC))
    assert late["rates-2022"]["pnl"] == pytest.approx(
        earned(Settings(), "2021-12-31", "2022-12-28"), rel=1e-12
    )
    assert late["black-monday-1987"]["unavailable"].startswith("prices end on 2022-12-28, ")
    unknown = results_of(store, up_to=datetime(2021, 1, 1, tzinfo=UTC))
    assert unknown["covid-2020"]["unavailable"] == "no prices for NOPE"
    assert unknown["covid-2020"]["pnl"] is None
    assert unknown["single-name-50"]["pnl"] == -0.25


def test_the_check_tells_what_is_unavailable_and_why_but_not_what_lay_ahead(
    land, compute, checks, records
) -> None:
    land(DAY, weights=EQUAL)
    (good,) = [checks(compute(DAY))["scenarios_available"]]
    assert good.passed

    land(DAY, weights={"NOPE": 0.5, "BAC": 0.5})
    land(DAY, world_id="credit", weights={"NOPE": 0.2, "BAC": 0.8})
    check = checks(compute(DAY))["scenarios_available"]

    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    rows = records(check.metadata["unavailable"])
    # Eleven windows of twelve lie behind, and the betas need prices, too.
    assert len(rows) == 12
    assert {(row["reason"], row["count"]) for row in rows} == {("no prices for NOPE", 2)}
    assert "rates-2022" not in {row["scenario"] for row in rows}
    assert check.description == "24 results can't be had"


def test_each_partition_tells_its_counts_and_the_worst_of_each_worlds_newest(
    land, compute, store: Store, records
) -> None:
    days = [DAY - timedelta(days=1), DAY]
    land(days[0], weights=EQUAL)
    land(datetime(2020, 3, 23, 22, tzinfo=UTC), weights=EQUAL)
    land(DAY, weights={"BAC": 3.0, "JPM": -2.0})
    land(DAY, world_id="credit", weights={"BAC": 1.0})

    found = told(compute(days[0], days[1]))

    assert found[str(days[0])]["snapshots"] == 1
    assert found[str(days[0])]["dagster/row_count"] == 19
    assert found[str(DAY)]["dagster/row_count"] == 3 * 19
    assert found[str(DAY)]["unavailable"] == 0
    for world in ("equities", "credit"):
        results = results_of(store, world, up_to=datetime(2020, 3, 23, 23, tzinfo=UTC)).values()
        worst = min(each["pnl"] for each in results if each["pnl"] is not None)
        assert found[str(DAY)][f"worst_pnl_{world}"] == worst
    assert "worst" not in found[str(DAY)]

    (event,) = [
        event
        for event in compute(DAY).get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("stress_results")
    ]
    rows = records(event.materialization.metadata["worst"])
    assert [(row["world_id"], row["scenario"]) for row in rows] == [
        ("credit", "crisis-2007"),
        ("equities", "crisis-2007"),
    ]
    assert rows[0]["pnl"] < rows[1]["pnl"]


def test_cutting_the_future_off_changes_nothing_but_the_digest_of_the_prices(
    land, compute, stressed, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (DAY, DAY - timedelta(days=1)):  # a Monday and the Sunday before
        land(day, weights={"AAPL": 0.6, "XOM": 1.0, "KO": -0.6})
        land(day, world_id="credit", weights=EQUAL)
    compute(DAY - timedelta(days=1), DAY)
    whole = stressed()
    with gzip.open(settings.prices_path, "rt") as file:
        header, *lines = file
    cut = tmp_path / "cut.csv"
    cut.write_text("".join([header, *(line for line in lines if line[:10] <= str(DAY))]))
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(cut))

    compute(DAY - timedelta(days=1), DAY)

    up_to_the_day = stressed()
    assert up_to_the_day["stress_results"] == whole["stress_results"]
    digests = [
        {row.pop("prices_digest") for row in found["snapshot_stress"]}
        for found in (whole, up_to_the_day)
    ]
    assert digests[0] != digests[1]
    assert up_to_the_day["snapshot_stress"] == whole["snapshot_stress"]
