"""A backfill in pieces, in any order and side by side, leaves what one run leaves, bit for bit."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from riskhub.bootstrap import price_panel
from riskhub.days import cut
from riskhub.outcomes import due_outcomes
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.tables import metadata, run_progress
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

FIRST, LAST = date(2020, 3, 2), date(2020, 3, 27)
MET = date(2020, 3, 30)  # when the last forecasts are met
LOOKING_BACK = ("var_outcomes", "var_backtests")
PIECES = cut([(FIRST, LAST)], 4)
Rows = dict[str, Sequence[Any]]


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """Postgres: several write at once."""
    return postgres_url


@pytest.fixture
def land_history(land) -> None:
    """A month of two worlds; the second has more snapshots a day, and one that is rejected."""
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(days=number)
        land(day, weights={"AAPL": 0.5, "BAC": 0.5})
        land(day, world_id="banks", weights={"BAC": 0.25, "JPM": 0.75})
        land(day, world_id="banks", weights={"BAC": 0.5, "JPM": 0.5})
    land(FIRST, weights={"AAPL": 1}, realized_returns={"portfolio": [0.1, -1.0]})


@pytest.fixture
def look_back(settings) -> Callable[..., None]:
    """Makes outcomes and backtests of a range of days, in one run."""

    def run(first: date, last: date, on: dg.DagsterInstance | None = None) -> None:
        tags = {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        assets = [var_outcomes, var_backtests]
        resources = {"hub": RiskHub()}
        assert dg.materialize(assets, tags=tags, instance=on, resources=resources).success

    return run


@pytest.mark.usefixtures("land_history")
def test_pieces_side_by_side_in_any_order_leave_what_one_run_leaves(
    compute, tables, empty_derived, look_back: Callable[..., None], store: Store, settings: Settings
) -> None:
    assert compute(FIRST, LAST).success
    look_back(FIRST, MET)
    whole = tables() | looking_back(store)
    assert all(whole[name] for name in ("risk_tails", "stress_results", *LOOKING_BACK))
    empty_derived()
    with store.engine.begin() as connection:
        for name in LOOKING_BACK:
            connection.execute(sa.delete(metadata.tables[name]))

    shuffled = [PIECES[number] for number in (3, 0, 5, 6, 2, 1, 4)]

    def piece(days: tuple[date, date]) -> bool:
        with dg.DagsterInstance.ephemeral() as own:
            computed = compute(*days, on=own).success
            look_back(*days, on=own)
        return bool(computed)

    with ThreadPoolExecutor(3) as workers:
        assert all(workers.map(piece, shuffled))

    assert sorted(shuffled) == PIECES
    for name, rows in tables().items():
        assert rows == whole[name], name
    # What looks back could not see all of it, and the outcome sensor knows from where on.
    due = due_outcomes(store, price_panel(settings), after=0, first_day=FIRST)
    look_back(min(day for _, _, day in due), MET)
    for name, rows in looking_back(store).items():
        assert rows == whole[name], name
    assert due_outcomes(store, price_panel(settings), after=0, first_day=FIRST) == set()
    with store.engine.connect() as connection:
        assert connection.execute(sa.select(run_progress)).all() == []


def looking_back(store: Store) -> Rows:
    """Every row of the tables that read other days than their own."""
    with store.engine.connect() as connection:
        return {
            name: connection.execute(
                sa.select(metadata.tables[name]).order_by(*metadata.tables[name].primary_key)
            ).all()
            for name in LOOKING_BACK
        }
