"""From forecasts to outcomes, backtests and lights, in this process, on each database."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from forecasting import CALM, CRASH, ES, VAR, commit, write_prices

from riskhub.bootstrap import price_panel
from riskhub.outcomes import outcomes_of_days
from riskhub.settings import load_settings
from riskhub.store import Store
from riskhub.store.tables import metadata
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.daily import WORLDS_TAG
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

METHODS = {
    *("historical", "normal", "cornish_fisher", "student_t", "ewma"),
    *("filtered_historical", "monte_carlo"),
}
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def prices(tmp_path: Path, settings, monkeypatch: pytest.MonkeyPatch):
    """Writes the price file that the assets read; gives its days."""
    path = tmp_path / "prices.csv"
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(path))
    return lambda returns: write_prices(path, returns)


@pytest.fixture
def run(settings, instance: dg.DagsterInstance) -> Run:
    """Materializes outcomes and backtests of a day, or of a range in one run."""

    def materialize(
        first: date,
        last: date | None = None,
        assets: Sequence[Any] = (var_outcomes, var_backtests),
        **tags: str,
    ) -> dg.ExecuteInProcessResult:
        if last is not None:
            tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        result = dg.materialize(
            list(assets),
            partition_key=None if last else first.isoformat(),
            tags=tags,
            instance=instance,
            resources={"hub": RiskHub()},
        )
        assert result.success
        return result

    return materialize


@pytest.fixture
def meet(store: Store, settings, prices) -> Callable[[Sequence[date]], None]:
    """Writes the outcomes of days without Dagster, whose events of a year take seconds."""

    def write(days: Sequence[date]) -> None:
        panel = price_panel(load_settings())
        made = outcomes_of_days(store, panel, days, worlds=None)
        store.write_outcomes(made.rows, days)

    return write


def rows_of(store: Store, name: str) -> list[dict[str, Any]]:
    table = metadata.tables[name]
    with store.engine.connect() as connection:
        query = sa.select(table).order_by(*table.primary_key.columns)
        return [dict(row._mapping) for row in connection.execute(query)]


def returns_with(crashes: int, days: int = 260) -> list[float]:
    """So many days of small gains, with so many crashes among the last, four days apart."""
    returns = [CALM] * days
    for n in range(crashes):
        returns[days - 1 - 4 * n] = CRASH
    return returns


def light(result: dg.ExecuteInProcessResult, method: str) -> dg.AssetCheckEvaluation:
    (found,) = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == f"light_{method}"
    ]
    return found


# --- rows -----------------------------------------------------------------------------------------


def test_each_day_has_the_outcome_of_its_forecast_and_the_backtest_of_its_window(
    prices, run: Run, store: Store
) -> None:
    days = prices(returns_with(6))
    commit(store, days[:-1])

    run(days[0], days[-1])

    outcomes = rows_of(store, "var_outcomes")
    assert [(row["forecast_day"], row["day"]) for row in outcomes] == list(pairwise(days))
    assert [row["day"] for row in outcomes if row["loss"] > VAR] == [
        days[-1 - 4 * n] for n in range(5, -1, -1)
    ]
    last = [row for row in rows_of(store, "var_backtests") if row["day"] == days[-1]]
    for row in last:
        assert (row["window"], row["observations"], row["exceedances"]) == (250, 250, 6)
        assert (row["exceeded"], row["zone"], row["multiplier"]) == (True, "yellow", 3.5)
        assert row["z2"] == pytest.approx(1 - 6 * (-CRASH / ES) / 2.5, rel=1e-9)
        assert row["kupiec_p"] == pytest.approx(0.0407, abs=5e-4)  # 1 - P(X <= 5) of 250 at 1 %
        assert row["level"] == "0.99"
    assert {row["method"] for row in last} == {"historical", "normal"}
    first = [row for row in rows_of(store, "var_backtests") if row["day"] == days[1]]
    assert {(row["observations"], row["zone"], row["multiplier"]) for row in first} == {
        (1, "green", None)
    }


def test_recomputed_rows_are_the_same_to_the_last_bit_however_the_days_are_cut(
    prices, meet, run: Run, store: Store
) -> None:
    days = prices(returns_with(9, 330))
    commit(store, days[:-1])
    commit(store, days[40:-1:2], world_id="sparse", weights={"AAA": 0.7, "CASH": 0.3})
    meet(days)
    run(days[255], days[-1])
    before = {name: rows_of(store, name) for name in ("var_outcomes", "var_backtests")}

    for first, last in ((days[300], days[-1]), (days[270], days[310]), (days[320], None)):
        run(first, last)

    assert {name: rows_of(store, name) for name in before} == before
    assert {row["world_id"] for row in before["var_backtests"]} == {"equities", "sparse"}


def test_a_method_that_skips_days_looks_back_over_its_own(
    prices, meet, run: Run, store: Store
) -> None:
    days = prices([CRASH, *returns_with(0, 299)])
    skipping = [days[0], *days[2:-1:2]]
    commit(store, [day for day in days[:-1] if day not in skipping])
    commit(store, skipping, methods=("historical", "cornish_fisher"))
    meet(days)

    run(days[-2], days[-1], assets=[var_backtests])

    newest = {row["method"]: row for row in store.backtests("equities", first=days[-2])}
    assert newest["historical"]["observations"] == 250
    assert newest["historical"]["exceedances"] == 0
    assert newest["cornish_fisher"]["observations"] == len(skipping)
    assert newest["cornish_fisher"]["exceedances"] == 1  # the very first day's, long ago


def test_no_partition_reads_what_comes_after_it(prices, run: Run, store: Store) -> None:
    days = prices(returns_with(3, 40))
    commit(store, days)
    run(days[0], days[-1])
    middle = days[30]

    def up_to_then() -> dict[str, list[dict[str, Any]]]:
        return {
            name: [
                {key: value for key, value in row.items() if key != "prices_digest"}
                for row in rows_of(store, name)
                if row["day"] <= middle
            ]
            for name in ("var_outcomes", "var_backtests")
        }

    before = up_to_then()
    assert len(before["var_outcomes"]) == 30
    for future in ([CRASH] * 60, [], [0.5, -0.5] * 10):
        prices(returns_with(3, 40)[:30] + future)
        run(days[0], middle)
        assert up_to_then() == before, future


def test_a_run_about_some_worlds_leaves_the_others_alone(prices, run: Run, store: Store) -> None:
    days = prices(returns_with(0, 20))
    commit(store, days[:-1])
    commit(store, days[:-1], world_id="other")
    run(days[0], days[-1])
    others = [row for row in rows_of(store, "var_outcomes") if row["world_id"] == "other"]
    prices([CRASH] * 20)

    run(days[0], days[-1], **{WORLDS_TAG: "equities"})

    rows = rows_of(store, "var_outcomes")
    assert [row for row in rows if row["world_id"] == "other"] == others
    assert all(row["loss"] > VAR for row in rows if row["world_id"] == "equities")
    zones = {(row["world_id"], row["zone"]) for row in store.newest_backtests()}
    assert zones == {("equities", "red"), ("other", "green")}


def test_a_correction_changes_its_outcome_and_takes_back_what_followed(
    prices, run: Run, store: Store
) -> None:
    days = prices(returns_with(0, 30))
    commit(store, days[:-1])
    run(days[0], days[-1])
    (corrected,) = commit(store, [days[9]], hour=22, weights={"AAA": -30.0, "CASH": 31.0})

    run(days[10], assets=[var_outcomes])

    (row,) = store.outcomes_on(days[10], days[10])
    assert (row["position"], row["loss"]) == (corrected, pytest.approx(0.03))
    assert max(each["day"] for each in rows_of(store, "var_backtests")) == days[9]

    run(days[10], days[-1])
    assert {row["exceedances"] for row in store.newest_backtests()} == {1}


# --- what a person is shown -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crashes", "zone", "passed", "severity"),
    [(4, "green", True, WARN), (5, "yellow", False, WARN), (10, "red", False, ERROR)],
)
def test_a_light_passes_warns_or_is_an_error_and_fails_no_run(
    prices, meet, run: Run, store: Store, crashes: int, zone: str, passed: bool, severity: Any
) -> None:
    days = prices(returns_with(crashes))
    commit(store, days[:-1])
    meet(days)

    result = run(days[-2], days[-1])  # which succeeds

    found = light(result, "historical")
    assert (found.passed, found.severity) == (passed, severity)
    assert not found.blocking
    assert found.description == f"{zone} at worst on {days[-1]}: 1 {zone}"
    assert {
        evaluation.check_name
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name.startswith("light_")
    } == {f"light_{method}" for method in METHODS}


def test_the_worst_world_decides_and_comes_first_with_a_link_to_its_plot(
    prices, meet, run: Run, store: Store, settings, records
) -> None:
    days = prices(returns_with(10))
    commit(store, days[:-1], world_id="calm:one", weights={"AAA": 0.1, "CASH": 0.9})
    commit(store, days[:-1], world_id="wild")
    meet(days)

    result = run(days[-2], days[-1])

    found = light(result, "normal")
    assert (found.passed, found.severity) == (False, ERROR)
    assert found.description == f"red at worst on {days[-1]}: 1 red, 1 green"
    rows = records(found.metadata["lights"])
    assert [(row["world_id"], row["zone"], row["exceedances"]) for row in rows] == [
        ("wild", "red", 10),
        ("calm:one", "green", 0),
    ]
    assert rows[0]["expected"] == 2.5
    assert rows[0]["day"] == days[-1].isoformat()
    assert found.metadata["plot of wild, backtest"] == dg.MetadataValue.url(
        f"{settings.api_url}/risk-hub/worlds/wild/backtests.svg"
        "?stage=backtest&method=normal&level=0.99"
    )
    quoted = found.metadata["plot of calm:one, backtest"]
    assert "/worlds/calm%3Aone/" in str(quoted.value)


def test_a_method_without_a_forecast_says_so_and_passes(prices, run: Run, store: Store) -> None:
    days = prices(returns_with(0, 10))
    commit(store, days[:-1])

    found = light(run(days[0], days[-1]), "ewma")

    assert found.passed
    assert found.description == "no forecast by this method has met an outcome yet"


def test_a_run_of_days_without_trading_tells_the_lights_of_the_last_one_before(
    prices, meet, run: Run, store: Store
) -> None:
    days = prices(returns_with(10))
    commit(store, days[:-1])
    meet(days)
    friday = next(day for day in reversed(days) if day.weekday() == 4)
    run(friday)

    found = light(run(friday + timedelta(days=2)), "historical")

    assert not found.passed
    assert str(friday) in (found.description or "")


def test_the_outcome_of_what_has_no_prices_is_missing_and_told(
    prices, run: Run, store: Store, checks, records
) -> None:
    days = prices(returns_with(0, 10))
    commit(store, days[:-1])
    commit(store, days[3:5], world_id="strange", weights={"AAA": 0.5, "ZZZ": 0.5})

    told = checks(run(days[0], days[-1]))["outcomes_known"]

    assert (told.passed, told.severity) == (False, WARN)
    assert told.description == "2 of 12 outcomes are not known"
    assert [(row["day"], row["why"]) for row in records(told.metadata["unknown"])] == [
        (day.isoformat(), "no prices for ZZZ") for day in days[4:6]
    ]
    assert {row["world_id"] for row in rows_of(store, "var_outcomes")} == {"equities"}


def test_each_day_has_numbers_that_the_ui_charts(prices, meet, run: Run, store: Store) -> None:
    days = prices(returns_with(10))
    commit(store, days[:-1])
    meet(days)

    result = run(days[-2], days[-1])

    by_day = {
        (
            event.asset_key.to_user_string(),
            event.partition,
        ): event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    told = by_day["var_backtests", days[-1].isoformat()]
    assert told["exceedances_equities"].value == 10
    assert told["red_share"].value == 1.0
    assert told["dagster/row_count"].value == 2
    told = by_day["var_outcomes", days[-1].isoformat()]
    assert (told["dagster/row_count"].value, told["hindsight"].value) == (1, 0)
