"""The demo's six portfolios, against weights made by hand."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from riskhub.demo.worlds import World, weights_by_day, worlds_of
from riskhub.prices import PricePanel, load_panel
from riskhub.settings import Settings

PANEL = load_panel(Settings.model_fields["prices_path"].default)
WORLDS = {world.world_id: world for world in worlds_of(PANEL)}


def panel_of(tmp_path: Path, *rows: str) -> PricePanel:
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(["Date,A,B", *rows]) + "\n")
    return load_panel(path)


def weights(world_id: str) -> dict[date, np.ndarray]:
    return dict(weights_by_day(WORLDS[world_id], PANEL))


def test_there_are_six_worlds_of_known_symbols() -> None:
    assert {world_id: len(world.symbols) for world_id, world in WORLDS.items()} == {
        "ew20": 20,
        "buyhold": 20,
        "banks": 2,
        "energy": 3,
        "tech3": 3,
        "defensive": 5,
    }
    assert all(set(world.symbols) <= set(PANEL.symbols) for world in WORLDS.values())


@pytest.mark.parametrize("world_id", sorted(WORLDS))
def test_weights_are_positive_and_sum_to_one_on_every_day_of_the_panel(world_id: str) -> None:
    found = weights(world_id)
    assert tuple(found) == PANEL.days
    matrix = np.array(list(found.values()))
    assert matrix.shape == (len(PANEL.days), len(WORLDS[world_id].symbols))
    assert (matrix > 0).all()
    assert np.allclose(matrix.sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("world_id", ["ew20", "banks", "energy", "tech3", "defensive"])
def test_a_rebalanced_world_is_equal_on_each_last_trading_day_of_a_month_and_only_then(
    world_id: str,
) -> None:
    found = weights(world_id)
    equal = 1 / len(WORLDS[world_id].symbols)
    last_of_month = {(day.year, day.month): day for day in PANEL.days}
    # The panel ends within a month, which is no month-end.
    last_of_month.pop((PANEL.days[-1].year, PANEL.days[-1].month))
    columns = PANEL.columns(WORLDS[world_id].symbols)
    moved = {PANEL.return_days[row] for row in np.flatnonzero(np.ptp(PANEL.returns[:, columns], 1))}
    month_ends = set(last_of_month.values())
    evened = {day for day, row in found.items() if (row == equal).all()}
    assert month_ends <= evened
    assert evened & moved <= month_ends


def test_buyhold_is_never_rebalanced() -> None:
    found = weights("buyhold")
    assert [day for day, row in found.items() if (row == 1 / 20).all()] == [PANEL.days[0]]
    # Bought once, in equal parts: what it is worth is what the prices made of each part.
    worth = PANEL.prices[-1] / PANEL.prices[0]
    assert np.allclose(found[PANEL.days[-1]], worth / worth.sum(), rtol=1e-9)


def test_ew20_drifts_with_prices_between_month_ends() -> None:
    found = weights("ew20")
    rows = {day: row for row, day in enumerate(PANEL.days)}
    rebalanced, later = date(2008, 9, 30), date(2008, 10, 30)
    by_hand = np.full(20, 1 / 20)
    for row in range(rows[rebalanced] + 1, rows[later] + 1):
        worth = by_hand * PANEL.prices[row] / PANEL.prices[row - 1]
        by_hand = worth / sum(worth)
        assert np.allclose(found[PANEL.days[row]], by_hand, rtol=1e-12)
    assert not np.allclose(by_hand, 1 / 20, rtol=1e-2)


def test_a_small_panel_by_hand(tmp_path: Path) -> None:
    panel = panel_of(
        tmp_path, "2020-01-30,10,10", "2020-01-31,10,30", "2020-02-03,20,30", "2020-02-04,20,60"
    )
    kept = dict(weights_by_day(World("kept", ("A", "B"), rebalanced=False), panel))
    evened = dict(weights_by_day(World("evened", ("A", "B"), rebalanced=True), panel))
    assert [row.tolist() for row in kept.values()] == [
        pytest.approx([1 / 2, 1 / 2]),
        pytest.approx([1 / 4, 3 / 4]),
        pytest.approx([2 / 5, 3 / 5]),
        pytest.approx([1 / 4, 3 / 4]),
    ]
    assert [row.tolist() for row in evened.values()] == [
        pytest.approx([1 / 2, 1 / 2]),
        pytest.approx([1 / 2, 1 / 2]),
        pytest.approx([2 / 3, 1 / 3]),
        pytest.approx([1 / 2, 1 / 2]),
    ]
