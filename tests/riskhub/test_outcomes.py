"""Each forecast with the loss of the next trading day, and no other."""

import json
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from measured import PANEL, measured_hub
from typer.testing import CliRunner

from riskhub.cli import app
from riskhub.demo.history import STAGE, documents, parse_periods
from riskhub.outcomes import Outcomes, outcomes
from riskhub.risk import exceedances
from riskhub.store import Store

WORLD = "banks"
LEVEL = Fraction(99, 100)
DOCUMENTS = [one for one in documents(PANEL, parse_periods("2008")) if one["world_id"] == WORLD]
FIRST = DOCUMENTS[0]


def later(version: str, **overrides: Any) -> dict[str, Any]:
    """A correction of the first day's snapshot, an hour after it."""
    as_of = FIRST["as_of"].replace("T21:", "T22:")
    assert as_of != FIRST["as_of"]
    return FIRST | {"version": version, "as_of": as_of} | overrides


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outcomes")


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[Store]:
    """2008 of one world, its first day corrected to hold one bank alone."""
    corrected = later("corrected", weights={"JPM": 1.0})
    with measured_hub(home / "hub.db", [*DOCUMENTS, corrected]) as store:
        yield store


@pytest.fixture(scope="module")
def found(store: Store) -> Outcomes:
    return outcomes(store, PANEL, WORLD, stage=STAGE, method="historical", level=LEVEL)


def test_every_forecast_is_held_against_the_trading_day_after_it(found: Outcomes) -> None:
    days = [date.fromisoformat(one["as_of"][:10]) for one in DOCUMENTS]
    assert found.forecast_days == tuple(days)
    assert found.days == tuple(PANEL.days[PANEL.days.index(day) + 1] for day in days)
    assert found.left_out == 0
    one, row = DOCUMENTS[40], PANEL.days.index(found.days[40])
    loss = -sum(
        weight * (PANEL.prices[row, column] / PANEL.prices[row - 1, column] - 1)
        for symbol, weight in one["weights"].items()
        for column in [PANEL.symbols.index(symbol)]
    )
    assert found.losses[40] == pytest.approx(loss, rel=1e-12)


def test_of_a_day_the_last_snapshot_is_the_forecast(found: Outcomes) -> None:
    row = PANEL.days.index(found.days[0])
    column = PANEL.symbols.index("JPM")
    alone = 1 - PANEL.prices[row, column] / PANEL.prices[row - 1, column]
    assert found.losses[0] == pytest.approx(alone, rel=1e-12)


def test_a_forecast_without_an_outcome_is_counted_and_left_out(tmp_path: Path) -> None:
    last = [one for one in documents(PANEL, parse_periods("2022")) if one["world_id"] == WORLD]
    with measured_hub(tmp_path / "hub.db", last[-3:]) as store:
        found = outcomes(store, PANEL, WORLD, stage=STAGE, method="normal", level=LEVEL)
    assert (len(found.days), found.left_out) == (2, 1)


def test_nothing_is_found_of_a_world_or_method_without_numbers(store: Store) -> None:
    for world, method in (("nowhere", "historical"), (WORLD, "guesswork")):
        found = outcomes(store, PANEL, world, stage=STAGE, method=method, level=LEVEL)
        assert (found.days, found.losses.shape, found.left_out) == ((), (0,), 0)


def test_the_command_tells_what_the_tests_say(
    store: Store, home: Path, found: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_HOME", str(home))
    shown = CliRunner().invoke(app, ["var-backtest", "--world", WORLD])
    assert shown.exit_code == 0, shown.output
    told = CliRunner().invoke(app, ["var-backtest", "--json", "--to", "2008-06-30"])
    rows = {row["method"]: row for row in map(json.loads, told.stdout.splitlines())}
    half = found.between(date.min, date(2008, 6, 30))
    assert rows["historical"]["exceedances"] == exceedances(half.var, half.losses).sum()
    assert rows["historical"]["days"] == len(half.days)
    assert rows["normal"]["to"] == "2008-06-30"

    nothing = CliRunner().invoke(app, ["var-backtest", "--stage", "live"])
    assert nothing.exit_code == 1
    assert "stage live" in nothing.stderr
