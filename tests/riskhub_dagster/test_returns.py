"""The returns of each day as an asset, on a small price file that the tests write."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from riskhub.prices import PriceSettings
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.tables import asset_returns as returns_table
from riskhub_dagster.assets.returns import asset_returns, prices_spec
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.returns_frame import reasons_against_days
from riskhub_dagster.schedules import returns_schedule
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

# Thursday, Friday, Monday, Tuesday; JPM did nothing on the last.
PRICES: dict[date, tuple[float, float]] = {
    date(2024, 1, 4): (100.0, 50.0),
    date(2024, 1, 5): (110.0, 40.0),
    date(2024, 1, 8): (99.0, 60.0),
    date(2024, 1, 9): (49.5, 60.0),
}
THURSDAY, FRIDAY, MONDAY, TUESDAY = PRICES
SATURDAY = date(2024, 1, 6)
SYMBOLS = ("AAPL", "JPM")

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@dataclass
class Prices:
    """The price file; writing it makes it another one for whoever looks."""

    path: Path
    written: int = 0

    def __call__(
        self, prices: Mapping[date, Sequence[float]], symbols: Sequence[str] = SYMBOLS
    ) -> None:
        lines = [",".join([str(day), *map(repr, of_day)]) for day, of_day in prices.items()]
        self.path.write_text("\n".join([",".join(["Date", *symbols]), *lines, ""]))
        self.written += 1
        os.utime(self.path, (self.written, self.written))


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prices:
    path = tmp_path / "prices.csv"
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(path))
    write = Prices(path)
    write(PRICES)
    return write


Compute = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def compute(prices: Prices, settings: Settings, instance: dg.DagsterInstance) -> Compute:
    """Materializes the returns of a day, or of a range of days in one run."""

    def run(first: date, last: date | None = None) -> dg.ExecuteInProcessResult:
        ends = {} if last is None else {RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)}
        return dg.materialize(
            [asset_returns],
            partition_key=None if last else str(first),
            tags=ends,
            instance=instance,
            resources={"hub": RiskHub()},
        )

    return run


@pytest.fixture
def rows(store: Store) -> Callable[[], Rows]:
    """The whole table."""

    def read() -> Rows:
        query = sa.select(returns_table).order_by(returns_table.c.day, returns_table.c.symbol)
        with store.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    return read


def numbers(rows: Rows) -> list[tuple[date, str, float]]:
    return [(row["day"], row["symbol"], row["simple_return"]) for row in rows]


def days_in(rows: Rows) -> list[date]:
    return sorted({row["day"] for row in rows})


# --- what is written -------------------------------------------------------------------------


def test_a_day_has_the_simple_return_of_every_symbol(compute: Compute, rows) -> None:
    compute(FRIDAY)
    assert numbers(rows()) == [
        (FRIDAY, "AAPL", pytest.approx(0.1, abs=1e-15)),
        (FRIDAY, "JPM", pytest.approx(-0.2, abs=1e-15)),
    ]


def test_after_a_weekend_it_is_since_the_friday(compute: Compute, rows) -> None:
    compute(MONDAY)
    assert numbers(rows()) == [
        (MONDAY, "AAPL", pytest.approx(-0.1, abs=1e-15)),
        (MONDAY, "JPM", pytest.approx(0.5, abs=1e-15)),
    ]


def test_a_row_names_the_prices_it_was_made_from(compute: Compute, rows, prices: Prices) -> None:
    compute(FRIDAY)
    first = {row["prices_digest"] for row in rows()}
    prices(PRICES | {TUESDAY: (50.0, 60.0)})
    compute(FRIDAY)
    second = {row["prices_digest"] for row in rows()}
    assert len(first | second) == 2


@pytest.mark.parametrize("day", [THURSDAY, SATURDAY, date(2024, 1, 15), date(2023, 12, 29)])
def test_a_day_without_a_return_has_no_rows_and_fails_nothing(
    compute: Compute, rows, checks, materialized, day: date
) -> None:
    result = compute(day)
    assert result.success
    assert rows() == []
    assert checks(result)["returns_complete"].passed
    assert materialized(result) == {"asset_returns": [str(day)]}


def test_twice_is_as_good_as_once(compute: Compute, rows) -> None:
    compute(THURSDAY, TUESDAY)
    once = rows()
    assert days_in(once) == [FRIDAY, MONDAY, TUESDAY]
    compute(THURSDAY, TUESDAY)
    compute(MONDAY)
    assert rows() == once


def test_day_by_day_is_what_the_range_is(compute: Compute, rows) -> None:
    compute(THURSDAY, TUESDAY)
    of_the_range = rows()
    compute(FRIDAY, FRIDAY)  # so that the rest is known to be replaced, not kept
    for day in PRICES:
        compute(day)
    assert rows() == of_the_range


def test_a_symbol_that_left_the_source_leaves_the_day(
    compute: Compute, rows, prices: Prices
) -> None:
    compute(THURSDAY, TUESDAY)
    prices({day: of_day[:1] for day, of_day in PRICES.items()}, ["AAPL"])
    compute(MONDAY)
    kept = [(row["day"], row["symbol"]) for row in rows() if row["day"] in (MONDAY, TUESDAY)]
    assert kept == [(MONDAY, "AAPL"), (TUESDAY, "AAPL"), (TUESDAY, "JPM")]


def test_a_price_that_comes_late_is_picked_up(compute: Compute, rows, prices: Prices) -> None:
    prices({day: of_day for day, of_day in PRICES.items() if day < TUESDAY})
    compute(THURSDAY, TUESDAY)
    assert days_in(rows()) == [FRIDAY, MONDAY]
    prices(PRICES)
    compute(THURSDAY, TUESDAY)
    assert days_in(rows()) == [FRIDAY, MONDAY, TUESDAY]


@pytest.mark.parametrize("end", [FRIDAY, MONDAY])
def test_the_future_changes_nothing(compute: Compute, rows, prices: Prices, end: date) -> None:
    compute(THURSDAY, end)
    known = numbers(rows())
    assert days_in(rows())[-1] == end

    prices({day: of_day for day, of_day in PRICES.items() if day <= end})
    compute(THURSDAY, end)
    assert numbers(rows()) == known

    prices({day: of_day if day <= end else (0.01, 9e9) for day, of_day in PRICES.items()})
    compute(THURSDAY, end)
    assert numbers(rows()) == known


def test_a_run_has_one_panel_from_its_beginning_to_its_end(
    settings: Settings, prices: Prices
) -> None:
    with dg.build_resources({"hub": RiskHub()}) as resources:
        first = resources.hub.panel
        prices(PRICES | {TUESDAY: (50.0, 60.0)})
        assert resources.hub.panel is first
    with dg.build_resources({"hub": RiskHub()}) as resources:
        assert resources.hub.panel.digest != first.digest


# --- what is checked -------------------------------------------------------------------------


def told(result: dg.ExecuteInProcessResult, checks) -> dg.AssetCheckEvaluation:
    return checks(result)["returns_complete"]


def test_ordinary_days_are_complete(compute: Compute, checks) -> None:
    found = told(compute(THURSDAY, FRIDAY), checks)
    assert found.passed
    assert "0 of 1 trading days lack returns" in found.description
    assert "prices end on 2024-01-09" in found.description


@pytest.mark.parametrize(
    ("price", "is_one"),
    [
        (49.5, True),  # 2:1, and nothing else happened
        (49.5 * 1.09, True),  # 2:1, on a day with a gain of 9 %
        (99.0 * 2.0, True),  # 1:2
        (99.0 * 0.6, False),
        (99.0 * 1.4, False),
    ],
)
def test_a_return_like_a_split_is_listed_and_kept(
    compute: Compute, rows, checks, records, prices: Prices, price: float, is_one: bool
) -> None:
    prices(PRICES | {TUESDAY: (price, 60.0)})
    result = compute(TUESDAY)
    found = told(result, checks)
    assert result.success
    assert (found.passed, found.severity) == (not is_one, dg.AssetCheckSeverity.WARN)
    assert len(rows()) == 2
    listed = [(row["day"], row["symbol"]) for row in records(found.metadata["may_be_splits"])]
    assert listed == ([("2024-01-09", "AAPL")] if is_one else [])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (5e-324, 1e10, "a return is not finite"),
        (1e300, 5e-324, "a return is -100 % or worse"),
    ],
)
def test_a_day_with_an_impossible_return_has_no_rows_and_the_others_have(
    compute: Compute, rows, checks, records, materialized, prices: Prices, before, after, why
) -> None:
    compute(THURSDAY, TUESDAY)  # what stood there goes, too
    prices(
        {
            THURSDAY: (100.0, before),
            FRIDAY: (101.0, before),
            MONDAY: (102.0, after),
            TUESDAY: (103.0, after),
        }
    )
    result = compute(THURSDAY, TUESDAY)
    assert result.success
    assert days_in(rows()) == [FRIDAY, TUESDAY]
    found = told(result, checks)
    assert not found.passed
    assert records(found.metadata["lacking"]) == [{"day": "2024-01-08", "why": why}]

    alone = compute(MONDAY)
    assert alone.success
    assert not told(alone, checks).passed
    assert materialized(alone) == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[:-1], "a symbol of the panel has no return"),
        (lambda rows: [*rows, rows[-1]], "a symbol has several returns"),
        (lambda rows: [rows[0], rows[1] | {"simple_return": float("inf")}], "not finite"),
        (lambda rows: [rows[0], rows[1] | {"simple_return": float("nan")}], "not_nullable"),
        (lambda rows: [rows[0], rows[1] | {"symbol": "J" * 129}], "1 to 128 characters"),
    ],
)
def test_the_schema_speaks_against_the_day_that_breaks_it(change, why: str) -> None:
    def of(day: date) -> list[dict[str, Any]]:
        shared = {"day": day, "prices_digest": "sha256:0"}
        return [shared | {"symbol": symbol, "simple_return": 0.01} for symbol in SYMBOLS]

    assert reasons_against_days(of(FRIDAY) + of(MONDAY), SYMBOLS) == {}
    against = reasons_against_days(of(FRIDAY) + change(of(MONDAY)), SYMBOLS)
    assert list(against) == [MONDAY]
    assert any(why in reason for reason in against[MONDAY])


# --- what a person is shown ------------------------------------------------------------------


def test_each_day_shows_its_count_and_its_mean(compute: Compute) -> None:
    result = compute(THURSDAY, TUESDAY)
    shown = {
        event.partition: {
            name: event.materialization.metadata[name].value
            for name in ("dagster/row_count", "mean_return")
            if name in event.materialization.metadata
        }
        for event in result.get_asset_materialization_events()
    }
    assert len(shown) == 6
    assert shown["2024-01-06"] == {"dagster/row_count": 0}
    assert shown["2024-01-05"] == {
        "dagster/row_count": 2,
        "mean_return": pytest.approx(-0.05, abs=1e-15),
    }
    assert shown["2024-01-09"]["mean_return"] == pytest.approx(-0.25, abs=1e-15)


def test_the_run_shows_its_prices_and_its_extremes(compute: Compute, rows, records) -> None:
    result = compute(THURSDAY, TUESDAY)
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    assert {row["prices_digest"] for row in rows()} == {metadata["prices_digest"].value}
    assert (metadata["first_day"].value, metadata["last_day"].value) == ("2024-01-04", "2024-01-09")
    assert metadata["symbols"].value == 2
    assert [(row["symbol"], row["simple_return"]) for row in records(metadata["extremes"])] == [
        ("AAPL", -0.5),
        ("JPM", -0.2),
        ("AAPL", -0.1),
        ("JPM", 0.0),
        ("AAPL", 0.1),
        ("JPM", 0.5),
    ]


def test_of_many_returns_the_five_worst_and_best_are_shown(
    compute: Compute, records, prices: Prices
) -> None:
    names = [f"S{number:02}" for number in range(30)]
    factors = [0.80 + 0.01 * number for number in range(30)]
    prices({THURSDAY: [100.0] * 30, FRIDAY: [100.0 * factor for factor in factors]}, names)
    (event,) = compute(FRIDAY).get_asset_materialization_events()
    shown = [row["symbol"] for row in records(event.materialization.metadata["extremes"])]
    assert shown == names[:5] + names[-5:]


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        (PriceSettings(), "`prices_path`"),
        (PriceSettings(kind="s3", s3_bucket="market", s3_key="p.csv"), "S3"),
        (PriceSettings(kind="table", table="prices"), "a table"),
    ],
)
def test_the_source_says_of_what_kind_it_is(prices: PriceSettings, said: str) -> None:
    spec = prices_spec(Settings(prices=prices))
    assert said in str(spec.description)
    assert spec.kinds == {prices.kind}


# --- when it runs ----------------------------------------------------------------------------


def tick(when: datetime) -> Any:
    context = dg.build_schedule_context(scheduled_execution_time=when)
    return returns_schedule.evaluate_tick(context)


def test_each_evening_the_last_seven_days_are_asked_for_as_one_run() -> None:
    (request,) = tick(datetime(2024, 1, 9, 22, 30, tzinfo=UTC)).run_requests or ()
    assert request.tags[RANGE_START_TAG] == "2024-01-03"
    assert request.tags[RANGE_END_TAG] == "2024-01-09"
    assert request.partition_key is None


def test_no_day_is_asked_for_before_the_first_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_PARTITIONS_START", "2024-01-08")
    (request,) = tick(datetime(2024, 1, 9, 22, 30, tzinfo=UTC)).run_requests or ()
    assert request.tags[RANGE_START_TAG] == "2024-01-08"

    skipped = tick(datetime(2024, 1, 5, 22, 30, tzinfo=UTC))
    assert not skipped.run_requests
    assert "2024-01-08" in str(skipped.skip_message)


def test_what_the_evening_asks_for_is_what_a_run_computes(
    compute: Compute, rows, materialized
) -> None:
    (request,) = tick(datetime(2024, 1, 9, 22, 30, tzinfo=UTC)).run_requests or ()
    first, last = (
        date.fromisoformat(request.tags[tag]) for tag in (RANGE_START_TAG, RANGE_END_TAG)
    )
    result = compute(first, last)
    assert len(materialized(result)["asset_returns"]) == 7
    assert days_in(rows()) == [FRIDAY, MONDAY, TUESDAY]
