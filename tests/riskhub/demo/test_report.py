"""The demo's table, against brute force on the panel."""

import io
import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from measured import PANEL, measured_hub
from rich.console import Console

from riskhub.demo.history import documents, parse_periods
from riskhub.demo.report import WorldReport, as_table, report
from riskhub.store import Store

DOCUMENTS = [
    one
    for one in documents(PANEL, parse_periods("2008"))
    if one["world_id"] in ("banks", "defensive")
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A hub that holds two worlds of 2008 with their risk numbers."""
    with measured_hub(tmp_path_factory.mktemp("report") / "hub.db", DOCUMENTS) as store:
        yield store


def loss(weights: dict[str, float], row: int) -> float:
    """What a portfolio lost on the day of a row of the panel's prices."""
    made = 0.0
    for symbol, weight in weights.items():
        column = PANEL.symbols.index(symbol)
        made += weight * (PANEL.prices[row][column] / PANEL.prices[row - 1][column] - 1)
    return -made


def tail(weights: dict[str, float], row: int) -> tuple[float, float]:
    """VaR and ES at 99 %: the fifth worst of 500 losses, and the mean of the five worst."""
    losses = sorted((loss(weights, day) for day in range(row - 499, row + 1)), reverse=True)
    return losses[4], math.fsum(losses[:5]) / 5


@pytest.mark.parametrize("world_id", ["banks", "defensive"])
def test_the_reports_numbers_equal_those_counted_by_hand(filled: Store, world_id: str) -> None:
    found = next(one for one in report(filled, PANEL) if one.world_id == world_id)
    hits = days = 0
    worst, worst_day = -math.inf, None
    for one in DOCUMENTS:
        if one["world_id"] != world_id:
            continue
        row = PANEL.days.index(date.fromisoformat(one["as_of"][:10]))
        var, es = tail(one["weights"], row)
        next_loss = loss(one["weights"], row + 1)
        if PANEL.days[row + 1].year == 2008:
            days += 1
            hits += next_loss > var
        if next_loss > worst:
            worst, worst_day = next_loss, PANEL.days[row + 1]
    assert found.exceeded == {2008: (hits, days), 2020: (0, 0)}
    assert hits > 10  # of 252: the year when VaR failed
    assert (found.worst_day, found.last_day) == (worst_day, date(2008, 12, 31))
    assert found.worst_return == pytest.approx(-worst, rel=1e-12)
    assert (found.var99, found.es99) == pytest.approx((var, es), rel=1e-12)


def test_worlds_without_history_are_left_out(filled: Store) -> None:
    assert [one.world_id for one in report(filled, PANEL)] == ["banks", "defensive"]


def test_a_history_with_no_next_day_to_hold_it_against_is_left_out(tmp_path: Path) -> None:
    last = [one for one in documents(PANEL, parse_periods("2022")) if "2022-12-28" in one["as_of"]]
    assert len(last) == 6
    with measured_hub(tmp_path / "hub.db", last) as store:
        assert report(store, PANEL) == []


def test_the_table_fits_80_columns_and_nothing_in_it_is_wrapped_or_cut() -> None:
    widest = WorldReport(
        world_id="defensive",
        last_day=date(2022, 12, 28),
        var99=0.1629,
        es99=0.1926,
        worst_day=date(2009, 1, 20),
        worst_return=-0.2411,
        exceeded={2008: (100, 253), 2020: (100, 253)},
    )
    narrowest = WorldReport(
        world_id="banks",
        last_day=date(2022, 12, 28),
        var99=0.01,
        es99=0.01,
        worst_day=date(2009, 1, 20),
        worst_return=-0.01,
        exceeded={2008: (1, 2), 2020: (0, 0)},
    )
    for rows in ([widest], [narrowest], [widest, narrowest]):
        shown = io.StringIO()
        Console(file=shown, width=80).print(as_table(rows))
        lines = [line.rstrip() for line in shown.getvalue().splitlines()]
        assert max(map(len, lines)) <= 80
        assert "…" not in shown.getvalue()
    assert any("defensive" in line and "16.29%" in line and "100/253" in line for line in lines)
    assert lines[0].endswith("as of 2022-12-28")
    assert lines[-1].endswith("1 % expected")


def test_a_year_without_history_is_a_dash_not_a_zero() -> None:
    row = WorldReport(
        world_id="banks",
        last_day=date(2008, 12, 31),
        var99=0.1,
        es99=0.1,
        worst_day=date(2008, 10, 15),
        worst_return=-0.2,
        exceeded={2008: (20, 252), 2020: (0, 0)},
    )
    shown = io.StringIO()
    Console(file=shown, width=80).print(as_table([row]))
    (line,) = [line for line in shown.getvalue().splitlines() if "banks" in line]
    assert [cell.strip() for cell in line.split("│")][-3:-1] == ["20/252", "–"]
