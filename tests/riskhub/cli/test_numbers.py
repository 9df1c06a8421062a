"""`riskhub risk FILE`: every number of a snapshot file, without a hub."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from riskhub.cli import app
from riskhub.prices import load_panel
from riskhub.settings import Settings

SNAPSHOT = {
    "world_id": "tech",
    "as_of": "2022-06-30T21:00:00Z",
    "version": "v1",
    "weights": {"AAPL": 0.6, "AMD": 0.5, "MSFT": -0.1},
    "constraints": {"candidate_id": "KO", "candidate_weight": 0.1},
    "stress": {"own": {"pnl": -0.3}},
}


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path / "home"))


def written(tmp_path: Path, **overrides: Any) -> str:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(SNAPSHOT | overrides))
    return str(path)


def as_json(file: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["risk", "--json", file])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_numbers_of_a_file_are_those_of_its_returns(tmp_path: Path) -> None:
    found = as_json(written(tmp_path))
    panel = load_panel(Settings.model_fields["prices_path"].default)
    last = panel.return_days.index(
        max(day for day in panel.return_days if str(day) <= "2022-06-30")
    )
    columns = panel.columns(["AAPL", "AMD", "MSFT"])
    returns = panel.returns[last - 499 : last + 1, columns] @ np.array([0.6, 0.5, -0.1])
    tails = {(row["method"], row["level"]): row for row in found["tails"]}
    assert tails["historical", "0.99"]["var"] == pytest.approx(-np.sort(returns)[4])
    assert found["volatility"] == pytest.approx(returns.std(ddof=1))
    assert {row["symbol"] for row in found["contributions"]} == {"AAPL", "AMD", "MSFT"}
    assert found["candidate"][0]["candidate_id"] == "KO"


def test_stress_is_told_with_its_labels_and_the_producers_own_beside_it(tmp_path: Path) -> None:
    results = {row["scenario"]: row for row in as_json(written(tmp_path))["stress"]["results"]}
    assert results["covid-2020"]["label"].startswith("Covid")
    assert -1 < results["covid-2020"]["pnl"] < -0.2
    assert "2022-12-28" in results["rates-2022"]["unavailable"]  # it lay ahead
    assert results["own"]["origin"] == "producer"
    assert results["own"]["measures"] == {"pnl": -0.3}


def test_a_person_gets_tables(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["risk", written(tmp_path)])
    assert result.exit_code == 0, result.output
    for text in ("historical", "Monte Carlo", "Contributions at 99%", "Covid", "A loss of 10%"):
        assert text in result.stdout


def test_what_there_is_no_number_of_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["risk", written(tmp_path, weights={"ZZZ": 1.0})])
    assert result.exit_code == 0, result.output
    assert "no prices for ZZZ" in result.stdout
    assert "fallback" in result.stdout


def test_a_file_that_breaks_the_contract_is_refused_by_field(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["risk", written(tmp_path, weights={"AAPL": 0.4})])
    assert result.exit_code == 1
    assert "weights" in result.stderr


def test_a_file_comes_on_standard_input_too() -> None:
    result = CliRunner().invoke(app, ["risk", "--json", "-"], input=json.dumps(SNAPSHOT))
    assert json.loads(result.stdout)["version"] == "v1"


def test_nothing_is_kept_anywhere(tmp_path: Path) -> None:
    as_json(written(tmp_path))
    assert not (tmp_path / "home").exists()
