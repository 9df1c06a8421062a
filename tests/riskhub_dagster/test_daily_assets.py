"""From landed snapshots to risk numbers, in this process, on each database."""

import csv
import gzip
import hashlib
import json
import statistics
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from riskhub import __version__
from riskhub.settings import Settings
from riskhub.store import Filter, Store
from riskhub.store.tables import metadata

DAY = date(2020, 3, 16)
SYMBOLS = ("AAPL", "BAC", "JPM", "XOM")
EQUAL = dict.fromkeys(SYMBOLS, 0.25)
Tables = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@cache
def equal_weight_returns(end: date, length: int) -> list[float]:
    """The returns of `SYMBOLS` in equal parts up to a day, from the price file and nothing else."""
    with gzip.open(Settings().prices_path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Date"] <= end.isoformat()]
    rows = rows[-length - 1 :]
    return [
        sum(float(after[s]) / float(before[s]) - 1 for s in SYMBOLS) / len(SYMBOLS)
        for before, after in pairwise(rows)
    ]


# --- numbers -------------------------------------------------------------------------------------


def test_historical_var99_is_the_5th_worst_of_500_returns(land, compute, store: Store) -> None:
    land(DAY, weights=EQUAL)

    assert compute(DAY).success

    worst_first = sorted(equal_weight_returns(DAY, 500))
    assert len(worst_first) == 500
    tails = {(row["method"], row["level"]): row for row in store.tails_on(DAY, DAY)}
    tail = tails["historical", "0.99"]
    assert tail["rank"] == 5
    assert tail["var"] == pytest.approx(-worst_first[4], rel=1e-12)
    assert tail["var_next"] == pytest.approx(-worst_first[5], rel=1e-12)
    assert tail["es"] == pytest.approx(-statistics.fmean(worst_first[:5]), rel=1e-12)
    assert tails["historical", "0.95"]["var"] == pytest.approx(-worst_first[24], rel=1e-12)
    assert tails["historical", "0.975"]["var"] == pytest.approx(-worst_first[12], rel=1e-12)


def test_normal_var99_is_mean_and_deviation_of_the_same_returns(
    land, compute, store: Store
) -> None:
    land(DAY, weights=EQUAL)

    compute(DAY)

    returns = equal_weight_returns(DAY, 500)
    expected = statistics.NormalDist.from_samples(returns)
    (metrics,) = store.metrics_on(DAY, DAY)
    assert metrics["mean"] == pytest.approx(expected.mean, rel=1e-9)
    assert metrics["volatility"] == pytest.approx(expected.stdev, rel=1e-9)
    assert metrics["annualised_volatility"] == pytest.approx(expected.stdev * 252**0.5, rel=1e-9)
    (tail,) = [
        row
        for row in store.tails_on(DAY, DAY)
        if (row["method"], row["level"]) == ("normal", "0.99")
    ]
    assert tail["var"] == pytest.approx(-expected.inv_cdf(0.01), rel=1e-9)


def test_a_snapshot_has_a_tail_for_each_method_and_level(land, compute, store: Store) -> None:
    first, second = land(DAY, weights=EQUAL), land(DAY, world_id="credit", weights=EQUAL)

    compute(DAY)

    methods = {
        *("historical", "normal", "cornish_fisher", "student_t", "ewma"),
        *("filtered_historical", "monte_carlo"),
    }
    for position, metrics in zip((first, second), store.metrics_on(DAY, DAY), strict=True):
        # Cornish and Fisher's expansion is refused for a month like this one.
        assert metrics["absent"].keys() == {"cornish_fisher"}
        assert "Maillard" in metrics["absent"]["cornish_fisher"]
        assert {
            (row["method"], row["level"])
            for row in store.tails_on(DAY, DAY)
            if row["position"] == position
        } == {
            (method, level)
            for method in methods - {"cornish_fisher"}
            for level in ("0.95", "0.975", "0.99")
        }


def test_a_number_names_its_window_its_returns_and_their_digests(
    land, compute, store: Store, settings: Settings
) -> None:
    land(DAY, weights=EQUAL)

    compute(DAY)

    (metrics,) = store.metrics_on(DAY, DAY)
    (verdict,) = store.verdicts_on(DAY, DAY)
    stored = store.by_version("equities", "v1", Filter(include_expired=True), now=datetime.now(UTC))
    body = stored.body if stored else None
    with gzip.open(settings.prices_path) as file:
        prices = hashlib.sha256(file.read()).hexdigest()
    assert (metrics["window"], metrics["n"], metrics["horizon_days"]) == (500, 500, 1)
    assert (metrics["returns_source"], metrics["returns_digest"]) == ("prices", f"sha256:{prices}")
    assert metrics["snapshot_digest"] == verdict["digest"] == json.loads(body or "")["hash"]
    assert metrics["code_version"] == f"riskhub/{__version__}"
    assert metrics["unavailable"] is None
    assert metrics["day"] == DAY
    assert metrics["as_of"] == datetime(2020, 3, 16, 21, tzinfo=UTC)


def test_weights_are_laid_out_as_they_were_sent(land, compute, tables: Tables) -> None:
    position = land(DAY, weights={"XOM": 1.5, "AAPL": -0.5})

    compute(DAY)

    rows = tables()
    assert [
        (row["position"], row["symbol"], row["weight"]) for row in rows["snapshot_weights"]
    ] == [
        (position, "AAPL", -0.5),
        (position, "XOM", 1.5),
    ]
    (metrics,) = rows["risk_metrics"]
    assert (metrics["gross"], metrics["net"], metrics["largest"]) == (2.0, 1.0, 1.5)


def test_realized_returns_come_before_prices(land, compute, store: Store) -> None:
    realized = [-0.001 * n for n in range(1, 301)]
    land(DAY, weights=EQUAL, realized_returns={"portfolio": realized})

    compute(DAY)

    (metrics,) = store.metrics_on(DAY, DAY)
    assert (metrics["returns_source"], metrics["n"]) == ("realized_returns", 300)
    assert metrics["mean"] == pytest.approx(statistics.fmean(realized), rel=1e-12)
    tails = {(row["method"], row["level"]): row["var"] for row in store.tails_on(DAY, DAY)}
    assert tails["historical", "0.99"] == 0.298  # the third worst of 300
    assert metrics["returns_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("day", "overrides", "why"),
    [
        (DAY, {"realized_returns": {"portfolio": [0.01] * 249}}, "249 returns; 250 are needed"),
        (
            DAY,
            {"weights": EQUAL, "realized_returns": {"AAPL": [0.01] * 300, "BAC": [0.01] * 300}},
            "realized_returns has no series for JPM, XOM",
        ),
    ],
    ids=["a short series", "a missing series"],
)  # fmt: skip
def test_without_enough_returns_numbers_are_unavailable_never_guessed(
    land, compute, checks, store: Store, day: date, overrides: dict[str, Any], why: str
) -> None:
    land(day, **({"weights": EQUAL} | overrides))

    result = compute(day)

    (metrics,) = store.metrics_on(day, day)
    assert metrics["unavailable"] == why
    assert [metrics[name] for name in ("mean", "volatility", "max_drawdown")] == [None] * 3
    assert store.tails_on(day, day) == []
    check = checks(result)["numbers_available"]
    assert result.success
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "1 of 1 snapshots have no risk numbers"


@pytest.mark.parametrize(
    ("day", "weights", "why"),
    [
        (date(1990, 3, 1), EQUAL, "41 returns; 250 are needed"),
        (DAY, {"AAPL": 0.5, "NOPE": 0.5}, "no prices for NOPE"),
    ],
    ids=["the first days of the panel", "an unknown symbol"],
)
def test_what_nothing_is_known_of_is_measured_on_the_fallback_and_marked(
    land, compute, checks, records, store: Store, day: date, weights: dict[str, float], why: str
) -> None:
    land(day, weights=weights)

    result = compute(day)

    (metrics,) = store.metrics_on(day, day)
    assert (metrics["unavailable"], metrics["covariance_source"]) == (None, "fallback")
    assert metrics["passed_over"] == {"prices": why}
    assert {(row["method"], row["source"]) for row in store.tails_on(day, day)} == {
        ("normal", "fallback"),
        ("monte_carlo", "fallback"),
    }
    check = checks(result)["nothing_guessed"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [row["why"] for row in records(check.metadata["guessed"])] == [why]


def test_checks_pass_on_good_snapshots(land, compute, checks) -> None:
    land(DAY, weights=EQUAL)

    evaluations = checks(compute(DAY))

    assert {name: check.passed for name, check in evaluations.items()} == {
        "nothing_quarantined": True,
        "nothing_flagged": True,
        "numbers_available": True,
        "nothing_guessed": True,
        "es_covers_var": True,
        "components_add_up": True,
        "scenarios_available": True,
    }


def test_a_day_on_which_nothing_landed_is_computed_and_empty(
    compute, tables: Tables, materialized
) -> None:
    result = compute(DAY)

    assert set(materialized(result)) == {
        "validated_snapshots", "snapshot_weights", "risk_metrics", "risk_contributions",
        "stress_results",
    }  # fmt: skip
    assert not any(tables().values())


# --- days, ranges, and days again ----------------------------------------------------------------


def test_a_range_run_gives_the_rows_of_a_run_per_day_bit_for_bit(
    land, compute, tables: Tables, empty_derived
) -> None:
    days = [DAY - timedelta(days=n) for n in (95, 94, 64, 63, 33, 32, 31, 7, 1, 0)]
    for number, day in enumerate(days):
        tilt = number / 100
        land(day, weights=EQUAL | {"AAPL": 0.25 + tilt, "XOM": 0.25 - tilt})
        land(day, world_id="credit", weights={"BAC": 0.5, "JPM": 0.5})
    land(days[2], weights={"AAPL": 1}, realized_returns={"portfolio": [0.1, -1.0]})

    for day in days:
        assert compute(day).success
    by_day = tables()
    empty_derived()
    assert compute(days[0], days[-1]).success

    assert len(by_day["risk_metrics"]) == 20
    assert len(by_day["validated_snapshots"]) == 21
    assert tables() == by_day


def test_computing_a_day_again_changes_nothing(land, compute, tables: Tables) -> None:
    land(DAY, weights=EQUAL)
    land(DAY, weights={"AAPL": 1}, realized_returns={"portfolio": [0.1, -1.0]})
    compute(DAY)
    before = tables()

    compute(DAY)

    assert tables() == before


def test_a_run_leaves_the_days_around_its_own_alone(land, compute, tables: Tables) -> None:
    days = [DAY + timedelta(days=n) for n in (-1, 0, 1)]
    for day in days:
        land(day, weights=EQUAL)
    compute(days[0], days[-1])
    before = tables()

    compute(DAY)
    land(datetime(2020, 3, 16, tzinfo=UTC), weights=EQUAL)
    land(datetime(2020, 3, 16, 23, 59, 59, 999_999, tzinfo=UTC), weights=EQUAL)
    compute(DAY)

    after = tables()["risk_metrics"]
    assert [row for row in after if row["position"] <= 3] == before["risk_metrics"]
    assert [row["day"] for row in after] == [*days, DAY, DAY]


def test_only_new_adds_what_landed_since_and_touches_no_other_row(
    land, compute, tables: Tables, store: Store
) -> None:
    candidate = {"candidate_id": "XOM", "candidate_weight": 0.1}
    first = land(DAY, weights=EQUAL, constraints=candidate)
    compute(DAY)
    mark = {
        "validated_snapshots": "schema_version",
        "risk_metrics": "code_version",
        "snapshot_stress": "code_version",
    }
    with store.engine.begin() as connection:
        for name, column in mark.items():
            connection.execute(sa.update(metadata.tables[name]).values({column: "older"}))
    before = tables()

    second = land(DAY, weights={"BAC": 0.5, "JPM": 0.5}, constraints=candidate)
    compute(DAY, only_new=True)

    after = tables()
    for name, rows in after.items():
        assert [row for row in rows if row["position"] == first] == before[name]
        assert {row["position"] for row in rows} == {first, second}, name
    assert {row["code_version"] for row in after["risk_metrics"]} == {
        "older", f"riskhub/{__version__}",
    }  # fmt: skip


def test_only_new_over_a_range_gives_the_rows_of_computing_it_anew(
    land, compute, tables: Tables
) -> None:
    days = [DAY + timedelta(days=n) for n in range(3)]
    land(days[0], weights=EQUAL)
    compute(days[0], days[-1], only_new=True)
    for day in days:
        land(day, weights={"BAC": 0.5, "JPM": 0.5})
    compute(days[0], days[-1], only_new=True)
    added = tables()

    compute(days[0], days[-1])

    assert len(added["risk_metrics"]) == 4
    assert tables() == added


def test_a_full_run_makes_every_row_of_the_day_anew(land, compute, tables: Tables, store) -> None:
    land(DAY, weights=EQUAL)
    compute(DAY)
    before = tables()
    with store.engine.begin() as connection:
        for name, column in (("risk_metrics", "volatility"), ("snapshot_weights", "weight")):
            connection.execute(sa.update(metadata.tables[name]).values({column: 42.0}))

    compute(DAY)

    assert tables() == before


# --- quarantine ----------------------------------------------------------------------------------

# One of each kind; the others are in test_frames.py.
BAD = {
    "not semidefinite": (
        {"covariance": {"AAPL,AAPL": 1e-4, "BAC,BAC": 1e-4, "AAPL,BAC": 2e-4}},
        "the covariance is not positive semidefinite",
    ),
    "a pair is missing": (
        {"covariance": {"AAPL,AAPL": 1e-4, "BAC,BAC": 1e-4}},
        "the covariance lacks a pair of symbols that carry weight",
    ),
    "all was lost": (
        {"realized_returns": {"portfolio": [0.1, -1.0, 0.2]}},
        "a realized return is -100 % or worse",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_snapshot_is_quarantined_with_its_reason_and_the_run_succeeds(
    land, compute, checks, tables: Tables, materialized, name: str
) -> None:
    overrides, reason = BAD[name]
    good = land(DAY, weights=EQUAL)
    bad = land(DAY, **({"weights": {"AAPL": 0.5, "BAC": 0.5}} | overrides))

    result = compute(DAY)

    rows = tables()
    assert result.success
    verdicts = rows["validated_snapshots"]
    assert [(row["position"], row["accepted"], row["reasons"]) for row in verdicts] == [
        (good, True, []),
        (bad, False, [reason]),
    ]
    for table in ("snapshot_weights", "risk_metrics", "risk_tails"):
        assert {row["position"] for row in rows[table]} == {good}, table
    assert set(materialized(result)) == {
        "validated_snapshots", "snapshot_weights", "risk_metrics", "risk_contributions",
        "stress_results",
    }  # fmt: skip
    check = checks(result)["nothing_quarantined"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "1 snapshots of these days are quarantined"


def test_a_day_of_bad_snapshots_alone_is_not_materialized_and_nothing_follows(
    land, compute, checks, tables: Tables, materialized, instance: dg.DagsterInstance
) -> None:
    bad = land(DAY, weights={"AAPL": 1}, realized_returns={"portfolio": [0.1, -1.0]})

    result = compute(DAY)

    assert result.success
    assert materialized(result) == {}
    assert {name: check.passed for name, check in checks(result).items()} == {
        "nothing_quarantined": False,
        "nothing_flagged": True,
    }
    skipped = {event.step_key for event in result.all_events if event.is_step_skipped}
    assert skipped == {"snapshot_weights", "risk_metrics", "stress_results"}
    assert instance.get_materialized_partitions(dg.AssetKey("validated_snapshots")) == set()
    rows = tables()
    assert [row["position"] for row in rows.pop("validated_snapshots")] == [bad]
    assert not any(rows.values())


# --- what Dagster is told ------------------------------------------------------------------------


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dict[str, Any]]:
    return {
        str(event.partition): dict(event.materialization.metadata)
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    }


def test_each_partition_of_a_range_carries_its_own_numbers(land, compute, store: Store) -> None:
    days = [DAY, DAY + timedelta(days=1)]
    land(days[0], weights=EQUAL)
    land(days[1], weights={"BAC": 0.5, "JPM": 0.5})
    land(days[1], weights={"AAPL": 1}, realized_returns={"portfolio": [0.1, -1.0]})

    result = compute(days[0], days[1])

    first, second = (day.isoformat() for day in days)
    judged = metadata_of(result, "validated_snapshots")
    assert {
        key: (found["dagster/row_count"].value, found["quarantined"].value)
        for key, found in judged.items()
    } == {first: (1, 0), second: (2, 1)}
    laid_out = metadata_of(result, "snapshot_weights")
    assert {key: found["dagster/row_count"].value for key, found in laid_out.items()} == {
        first: 4,
        second: 2,
    }
    measured = metadata_of(result, "risk_metrics")
    var99 = {
        row["day"].isoformat(): row["var"]
        for row in store.tails_on(*days)
        if (row["method"], row["level"]) == ("historical", "0.99")
    }
    assert {key: found["var99_equities"].value for key, found in measured.items()} == var99
    assert {key: found["dagster/row_count"].value for key, found in measured.items()} == {
        first: 1, second: 1,
    }  # fmt: skip


def test_the_charted_var_of_a_world_is_that_of_its_newest_snapshot_however_it_arrived(
    land, compute, store: Store
) -> None:
    evening = land(datetime(2020, 3, 16, 21, tzinfo=UTC), weights=EQUAL)
    land(datetime(2020, 3, 16, 9, tzinfo=UTC), weights={"BAC": 0.5, "JPM": 0.5})

    result = compute(DAY)

    (newest,) = [
        row["var"]
        for row in store.tails_on(DAY, DAY)
        if (row["position"], row["method"], row["level"]) == (evening, "historical", "0.99")
    ]
    charted = metadata_of(result, "risk_metrics")[DAY.isoformat()]
    assert charted["var99_equities"].value == newest


def test_tables_in_metadata_hold_plain_values_and_null_where_there_is_no_number(
    land, compute, checks, records
) -> None:
    land(DAY, weights=EQUAL)
    land(DAY, weights={"NOPE": 1}, realized_returns={"portfolio": [0.01] * 9})

    result = compute(DAY)

    newest = records(metadata_of(result, "risk_metrics")[DAY.isoformat()]["newest"])
    assert sorted(row["var99"] is None for row in newest) == [False, True]
    assert {row["at"] for row in newest} == {"21:00Z"}
    evaluations = checks(result)
    assert records(evaluations["numbers_available"].metadata["without"]) == [
        {
            "world_id": "equities",
            "version": "v2",
            "stage": "backtest",
            "unavailable": "9 returns; 250 are needed",
        }
    ]
    assert records(evaluations["es_covers_var"].metadata["wrong"]) == []
    assert records(evaluations["nothing_quarantined"].metadata["quarantined"]) == []


def test_a_check_names_the_quarantined_snapshot_and_why(land, compute, checks, records) -> None:
    land(DAY, weights=EQUAL)
    land(DAY, weights={"AAPL": 1}, realized_returns={"portfolio": [-1.0]})

    evaluation = checks(compute(DAY))["nothing_quarantined"]

    assert records(evaluation.metadata["quarantined"]) == [
        {
            "world_id": "equities",
            "version": "v2",
            "stage": "backtest",
            "why": (
                "realized_returns has fewer than 2 points; a realized return is -100 % or worse"
            ),
            "evidence": (
                '{"realized_returns": {"series": 1, "points": 1, "worst": -1.0, "points_used": 1}}'
            ),
        }
    ]
