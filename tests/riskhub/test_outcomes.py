"""Each forecast with the loss of the next trading day, and no other."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NOW, accept
from databases import migrate
from measured import PANEL, measured_hub
from stored import metrics, tail, verdict
from typer.testing import CliRunner

from riskhub.backtesting import Backtested, backtests_of
from riskhub.cli import app
from riskhub.days import each_day
from riskhub.demo.history import STAGE, documents, parse_periods
from riskhub.outcomes import due_outcomes, outcomes, outcomes_of_days
from riskhub.prices import PricePanel
from riskhub.risk import exceedances
from riskhub.store import Store, create_engine

# --- which forecast, which loss: on a week of two symbols ----------------------------------------

THURSDAY, FRIDAY, SATURDAY = date(2026, 1, 8), date(2026, 1, 9), date(2026, 1, 10)
MONDAY, TUESDAY, WEDNESDAY = date(2026, 1, 12), date(2026, 1, 13), date(2026, 1, 14)
WORLD, PAPER = "equities", "paper"
WEEK = [THURSDAY, FRIDAY, MONDAY, TUESDAY]
PRICES = [[100.0, 50.0], [110.0, 50.0], [99.0, 60.0], [99.0, 54.0]]
START = date(2026, 1, 1)


def panel(days: Sequence[date] = WEEK, prices: Any = PRICES) -> PricePanel:
    return PricePanel(("AAA", "BBB"), tuple(days), np.array(prices), f"sha256:{len(days)}")


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    postgres = request.param == "postgres"
    sqlite = f"sqlite:///{tmp_path / 'hub.db'}"
    engine = create_engine(request.getfixturevalue("postgres_url") if postgres else sqlite)
    migrate(engine)
    opened = Store(engine)
    yield opened
    opened.close()


Forecast = Callable[..., int]


@pytest.fixture
def forecast(store: Store) -> Forecast:
    """Lands a snapshot and gives it a VaR; gives its position."""

    def land(day: date, hour: int = 21, *, world_id: str = WORLD, **fields: Any) -> int:
        as_of = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
        has_tails = fields.pop("has_tails", True)
        received_at = fields.pop("received_at", as_of + timedelta(minutes=5))
        weights = fields.pop("weights", {"AAA": 1.0})
        snapshot = accept(
            version=f"v{store.head()}",
            as_of=as_of.isoformat(),
            world_id=world_id,
            received_at=received_at,
            weights=weights,
        )
        store.land([snapshot])
        its = {"day": day, "world_id": world_id}
        position = store.head()
        store.write_days(
            {
                "validated_snapshots": [verdict(position, as_of=as_of, **its)],
                "snapshot_weights": [
                    {"position": position, "symbol": symbol, "weight": weight, **its}
                    for symbol, weight in weights.items()
                ],
                "risk_metrics": [metrics(position, as_of=as_of, **its)],
                "risk_tails": [tail(position, day=day)] if has_tails else [],
            },
            [day],
            replace=False,
        )
        return position

    return land


def met(store: Store, *days: date, prices: PricePanel | None = None) -> list[tuple[int, date]]:
    found = outcomes_of_days(store, prices or panel(), days, worlds=None)
    return [(row["position"], row["day"]) for row in found.rows]


def materialize(store: Store, prices: PricePanel, *days: date) -> None:
    made = outcomes_of_days(store, prices, days, worlds=None)
    store.write_outcomes(made.rows, days)


def test_the_loss_is_that_of_the_next_trading_day_with_the_weights_of_the_forecast(
    store: Store, forecast: Forecast
) -> None:
    position = forecast(FRIDAY, weights={"BBB": -0.5, "AAA": 1.5})

    (row,) = outcomes_of_days(store, panel(), each_day(THURSDAY, TUESDAY), worlds=None).rows

    assert row["loss"] == pytest.approx(-(1.5 * (99 / 110 - 1) - 0.5 * (60 / 50 - 1)), rel=1e-12)
    assert (row["position"], row["day"], row["forecast_day"]) == (position, MONDAY, FRIDAY)
    assert (row["world_id"], row["stage"], row["hindsight"]) == (WORLD, PAPER, False)
    assert row["prices_digest"] == "sha256:4"


def test_the_newest_forecast_from_the_trading_day_before_on_counts(
    store: Store, forecast: Forecast
) -> None:
    friday, saturday = forecast(FRIDAY), forecast(SATURDAY, 9)
    assert met(store, MONDAY) == [(saturday, MONDAY)]

    forecast(MONDAY, 8)  # made on the day itself: a forecast of Tuesday
    forecast(SATURDAY, 10, has_tails=False)  # no forecast at all
    assert met(store, MONDAY) == [(saturday, MONDAY)]

    corrected = forecast(SATURDAY, 9)  # as old, landed later
    assert met(store, MONDAY) == [(corrected, MONDAY)]
    assert friday < saturday < corrected


def test_an_older_forecast_is_none(store: Store, forecast: Forecast) -> None:
    forecast(THURSDAY)

    assert met(store, MONDAY) == []


def test_days_without_trading_and_days_the_panel_does_not_know_have_no_outcome(
    store: Store, forecast: Forecast
) -> None:
    for day in (date(2026, 1, 7), THURSDAY, FRIDAY, TUESDAY):
        forecast(day)

    assert [day for _, day in met(store, *each_day(date(2026, 1, 5), WEDNESDAY))] == [
        FRIDAY,
        MONDAY,
    ]
    assert met(store, SATURDAY, WEDNESDAY) == []


def test_each_world_and_stage_has_its_own(store: Store, forecast: Forecast) -> None:
    ours, theirs = forecast(FRIDAY), forecast(FRIDAY, world_id="theirs")

    assert met(store, MONDAY) == [(ours, MONDAY), (theirs, MONDAY)]
    only = outcomes_of_days(store, panel(), [MONDAY], worlds={"theirs"})
    assert [row["world_id"] for row in only.rows] == ["theirs"]


def test_what_holds_something_without_prices_has_no_outcome_and_is_told(
    store: Store, forecast: Forecast
) -> None:
    position = forecast(FRIDAY, weights={"AAA": 0.5, "ZZZ": 0.5})

    found = outcomes_of_days(store, panel(), [MONDAY], worlds=None)

    assert found.rows == []
    (unknown,) = found.unknown
    assert (unknown["position"], unknown["day"], unknown["why"]) == (
        position,
        MONDAY,
        "no prices for ZZZ",
    )


@pytest.mark.parametrize(("minutes", "hindsight"), [(0, False), (1, True)])
def test_a_forecast_that_landed_after_the_close_of_its_outcome_is_hindsight(
    store: Store, forecast: Forecast, minutes: int, hindsight: bool
) -> None:
    close = datetime(2026, 1, 12, 21, tzinfo=UTC)
    forecast(FRIDAY, received_at=close + timedelta(minutes=minutes))

    (row,) = outcomes_of_days(store, panel(), [MONDAY], worlds=None).rows

    assert row["hindsight"] is hindsight


def test_nothing_after_the_day_is_read(store: Store, forecast: Forecast) -> None:
    for day in WEEK:
        forecast(day, weights={"AAA": 0.5, "BBB": 0.5})
    whole = outcomes_of_days(store, panel(), each_day(THURSDAY, MONDAY), worlds=None).rows

    future = panel(prices=[*PRICES[:3], [1.0, 900.0]])
    cut = panel(WEEK[:3], PRICES[:3])

    for other in (future, cut):
        again = outcomes_of_days(store, other, each_day(THURSDAY, MONDAY), worlds=None).rows
        stamp = {"prices_digest": whole[0]["prices_digest"]}
        assert [row | stamp for row in again] == whole
    assert len(whole) == 2


# --- what is due ----------------------------------------------------------------------------------


def due(store: Store, prices: PricePanel | None = None, *, after: int = 0) -> list[date]:
    found = due_outcomes(store, prices or panel(), after=after, first_day=START)
    assert {(world_id, stage) for world_id, stage, _ in found} <= {(WORLD, PAPER)}
    return sorted(day for _, _, day in found)


@pytest.fixture
def done(store: Store, forecast: Forecast) -> int:
    """Thursday's and Friday's forecasts have met their outcomes; gives the last position."""
    forecast(THURSDAY)
    position = forecast(FRIDAY)
    assert due(store) == [FRIDAY, MONDAY]
    materialize(store, panel(), *each_day(THURSDAY, TUESDAY))
    return position


def test_what_is_materialized_is_not_due(store: Store, done: int) -> None:
    assert due(store, after=done) == []


@pytest.mark.parametrize("after_what_is_done", [True, False])
def test_a_late_or_corrected_snapshot_makes_its_day_due(
    store: Store, forecast: Forecast, done: int, after_what_is_done: bool
) -> None:
    forecast(THURSDAY, 22)

    assert FRIDAY in due(store, after=done if after_what_is_done else 0)
    assert due(store, after=done) == [FRIDAY]

    materialize(store, panel(), FRIDAY)
    assert due(store, after=done) == []


def test_a_snapshot_that_is_older_than_the_forecast_changes_nothing(
    store: Store, forecast: Forecast, done: int
) -> None:
    forecast(THURSDAY, 20)

    assert due(store, after=done) == []


def test_a_forecast_is_due_once_the_panel_knows_its_day(
    store: Store, forecast: Forecast, done: int
) -> None:
    position = forecast(TUESDAY)
    assert due(store, after=done) == []
    longer = panel([*WEEK, WEDNESDAY], [*PRICES, [100.0, 50.0]])

    assert WEDNESDAY in due(store, longer)
    assert due(store, longer, after=done) == [WEDNESDAY]
    assert due(store, longer, after=position) == []  # so the sensor looks back when prices change


def test_what_cannot_be_known_is_not_due_until_there_are_prices(
    store: Store, forecast: Forecast, done: int
) -> None:
    forecast(MONDAY, weights={"ZZZ": 1.0})
    assert due(store, after=done) == []

    with_it = PricePanel(("AAA", "ZZZ"), tuple(WEEK), np.array(PRICES), "sha256:z")
    assert due(store, with_it, after=done) == [TUESDAY]


def test_a_known_outcome_is_due_when_a_newer_forecast_cannot_be_known(
    store: Store, forecast: Forecast, done: int
) -> None:
    forecast(FRIDAY, 22, weights={"ZZZ": 1.0})
    assert due(store, after=done) == [MONDAY]

    materialize(store, panel(), MONDAY)
    assert due(store, after=done) == []


def test_looking_back_finds_what_no_backtest_counts_and_what_was_rejected_since(
    store: Store, done: int
) -> None:
    assert due(store) == [FRIDAY, MONDAY]
    light = {"method": "historical", "level": "0.99", "window": 250, "observations": 1}
    light |= {"exceedances": 0, "exceeded": False, "zone": "green", "multiplier": None}
    light |= {"kupiec_p": 1.0, "christoffersen_p": 1.0, "z2": 1.0, "code_version": "riskhub/0"}
    its = {"world_id": WORLD, "stage": PAPER}
    rows = [{**light, **its, "day": day} for day in (FRIDAY, MONDAY)]
    store.write_days({"var_backtests": rows}, [FRIDAY, MONDAY], replace=True)
    assert due(store) == []

    rejected = verdict(done, day=FRIDAY, accepted=False, reasons=["the sum"])
    store.write_verdicts([rejected], [FRIDAY], now=NOW, replace=True)
    store.write_days({"risk_metrics": [], "risk_tails": []}, [FRIDAY], replace=True)
    assert due(store) == [MONDAY]

    materialize(store, panel(), MONDAY)
    assert due(store) == []
    assert [row["day"] for row in store.backtests(WORLD)] == [FRIDAY]


def test_days_before_the_first_partition_are_not_due(store: Store, done: int) -> None:
    assert due_outcomes(store, panel(), after=0, first_day=TUESDAY) == set()


# --- a year of the demo, and the command ----------------------------------------------------------

BANKS = "banks"
LEVEL = Fraction(99, 100)
DOCUMENTS = [one for one in documents(PANEL, parse_periods("2008")) if one["world_id"] == BANKS]
FIRST = DOCUMENTS[0]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outcomes")


@pytest.fixture(scope="module")
def year(home: Path) -> Iterator[Store]:
    """2008 of one world, its first day corrected to hold one bank alone."""
    as_of = FIRST["as_of"].replace("T21:", "T22:")
    corrected = FIRST | {"version": "corrected", "as_of": as_of, "weights": {"JPM": 1.0}}
    with measured_hub(home / "hub.db", [*DOCUMENTS, corrected]) as store:
        yield store


@pytest.fixture(scope="module")
def historical(year: Store) -> Backtested:
    return backtests_of(year, BANKS, stage=STAGE)["historical"]


def test_every_forecast_of_a_year_is_held_against_the_trading_day_after_it(
    historical: Backtested,
) -> None:
    found = historical.outcomes
    days = [date.fromisoformat(one["as_of"][:10]) for one in DOCUMENTS]
    assert found.forecast_days == tuple(days)
    assert found.days == tuple(PANEL.days[PANEL.days.index(day) + 1] for day in days)
    assert found.hindsight.all()  # it was filled in in 2026
    one, row = DOCUMENTS[40], PANEL.days.index(found.days[40])
    loss = -sum(
        weight * (PANEL.prices[row, column] / PANEL.prices[row - 1, column] - 1)
        for symbol, weight in one["weights"].items()
        for column in [PANEL.symbols.index(symbol)]
    )
    assert found.losses[40] == pytest.approx(loss, rel=1e-12)


def test_the_corrected_snapshot_is_the_forecast(historical: Backtested) -> None:
    row = PANEL.days.index(historical.outcomes.days[0])
    column = PANEL.symbols.index("JPM")
    alone = 1 - PANEL.prices[row, column] / PANEL.prices[row - 1, column]
    assert historical.outcomes.losses[0] == pytest.approx(alone, rel=1e-12)


def test_every_test_is_there_also_that_of_several_levels(historical: Backtested) -> None:
    tests, found = historical.tests, historical.outcomes
    assert tests.observations == len(DOCUMENTS) == len(found.days)
    assert tests.exceedances == int((found.losses > found.var).sum()) > 5
    assert tests.traffic_light.zone == "red"
    assert tests.multinomial is not None
    at_least_one = sum(
        loss > found.ladder[Fraction(95, 100)][day] for day, loss in enumerate(found.losses)
    )
    assert sum(tests.multinomial.counts[1:]) == at_least_one
    assert historical.zones.count(None) == min(249, len(found.days))
    assert historical.zones[249:] == [str(zone) for zone in tests.rolling.zones]


def test_days_and_methods_can_be_chosen(year: Store, historical: Backtested) -> None:
    half = backtests_of(
        year, BANKS, stage=STAGE, methods=["normal", "historical"], last=date(2008, 6, 30)
    )
    assert list(half) == ["historical", "normal"]
    cut = historical.outcomes.between(date.min, date(2008, 6, 30))
    assert half["historical"].outcomes.days == cut.days
    assert half["historical"].tests.exceedances == exceedances(cut.var, cut.losses).sum()


def test_nothing_is_found_of_a_world_or_method_without_numbers(year: Store) -> None:
    for world, method in (("nowhere", "historical"), (BANKS, "guesswork")):
        found = outcomes(year, world, stage=STAGE, method=method, level=LEVEL)
        assert (found.days, found.losses.shape) == ((), (0,))
        assert backtests_of(year, world, stage=STAGE, methods=[method]) == {}


def test_the_command_tells_what_the_tests_say(
    year: Store, home: Path, historical: Backtested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_HOME", str(home))
    shown = CliRunner().invoke(app, ["var-backtest", "--world", BANKS])
    assert shown.exit_code == 0, shown.output
    told = CliRunner().invoke(
        app, ["var-backtest", "--json", "--to", "2008-06-30", "--method", "historical"]
    )
    (row,) = map(json.loads, told.stdout.splitlines())
    half = historical.outcomes.between(date.min, date(2008, 6, 30))
    assert row["exceedances"] == exceedances(half.var, half.losses).sum()
    assert (row["days"], row["hindsight"]) == (len(half.days), len(half.days))
    assert (row["method"], row["to"]) == ("historical", "2008-06-30")

    nothing = CliRunner().invoke(app, ["var-backtest", "--stage", "live"])
    assert nothing.exit_code == 1
    assert "stage live" in nothing.stderr
    assert "var_outcomes" in nothing.stderr
