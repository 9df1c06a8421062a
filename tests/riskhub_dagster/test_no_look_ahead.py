"""No asset reads tomorrow: with another future, every row up to today is the same."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from riskhub.prices import PricePanel, load_panel
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.tables import metadata
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.returns import asset_returns
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

TODAY = date(2020, 3, 16)
FIRST = date(2020, 3, 9)
ASSETS = [
    landed_snapshots,
    validated_snapshots,
    snapshot_weights,
    risk_metrics,
    stress_results,
    asset_returns,
    var_outcomes,
    var_backtests,
]
TABLES = (
    *("validated_snapshots", "snapshot_weights", "risk_metrics", "risk_tails"),
    *("risk_contributions", "candidate_risk", "snapshot_stress", "stress_results"),
    *("asset_returns", "var_outcomes", "var_backtests"),
)


def with_another_future(panel: PricePanel, path: Path) -> Path:
    """The panel as a file, in which every price after `TODAY` is another."""
    factors = np.random.default_rng(1).uniform(0.5, 2.0, panel.prices.shape)
    later = np.array([day > TODAY for day in panel.days])[:, np.newaxis]
    prices = np.where(later, panel.prices * factors, panel.prices)
    lines = [",".join(["Date", *panel.symbols])]
    lines += [
        ",".join([day.isoformat(), *(repr(float(price)) for price in row)])
        for day, row in zip(panel.days, prices, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def computed(store: Store, instance: dg.DagsterInstance) -> dict[str, list[dict[str, Any]]]:
    """Every row of the days up to `TODAY`, without the digests of prices."""
    tags = {RANGE_START_TAG: FIRST.isoformat(), RANGE_END_TAG: TODAY.isoformat()}
    result = dg.materialize(ASSETS, tags=tags, instance=instance, resources={"hub": RiskHub()})
    assert result.success
    with store.engine.connect() as connection:
        return {
            name: [
                {key: value for key, value in row._mapping.items() if not key.endswith("_digest")}
                for row in connection.execute(
                    sa.select(metadata.tables[name]).order_by(*metadata.tables[name].primary_key)
                )
            ]
            for name in TABLES
        }


def test_another_future_changes_no_row_up_to_today(
    land: Any,
    store: Store,
    settings: Settings,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panel = load_panel(settings.prices_path)
    for number in range((TODAY - FIRST).days + 1):
        land(
            FIRST + timedelta(days=number),
            weights={"AAPL": 0.6, "BAC": 0.6, "XOM": -0.2},
            constraints={"candidate_id": "KO", "candidate_weight": 0.1},
        )
    with_this_future = computed(store, instance)

    another = with_another_future(panel, tmp_path / "prices.csv")
    assert load_panel(another).prices[-1, 0] != panel.prices[-1, 0]
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(another))
    with_that_one = computed(store, instance)

    for name in TABLES:
        assert with_this_future[name], name
        assert with_that_one[name] == with_this_future[name], name


def test_another_past_does_change_them(
    land: Any,
    store: Store,
    settings: Settings,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the test above could not tell, were the rows made from something else."""
    panel = load_panel(settings.prices_path)
    land(TODAY - timedelta(days=3), weights={"AAPL": 0.6, "BAC": 0.4})
    before = computed(store, instance)

    path = with_another_future(panel, tmp_path / "prices.csv")
    text = path.read_text().replace(
        "2020-03-13,", "2020-03-13,9", 1
    )  # AAPL, ninety-odd times dearer
    path.write_text(text)
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(path))
    after = computed(store, instance)

    for name in ("risk_metrics", "risk_tails", "asset_returns", "var_outcomes"):
        assert after[name] != before[name], name
