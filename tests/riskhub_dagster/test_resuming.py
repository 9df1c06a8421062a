"""A run over a range that stumbles goes on behind what it has written."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from waiting import Waits

from riskhub.errors import StoreUnavailable
from riskhub.store import Store
from riskhub.store.landing import Landed
from riskhub_dagster import partitions
from riskhub_dagster.assets import risk

FIRST = date(2020, 3, 9)
DAYS = [FIRST + timedelta(days=number) for number in range(5)]
WEIGHTS = {"AAPL": 0.5, "BAC": 0.5}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The days whose snapshots are measured, in order; a chunk is a day."""
    monkeypatch.setattr(partitions, "_DAYS_PER_WRITE", 1)
    days: list[date] = []
    numbers_of = risk.numbers_of

    def measure(snapshots: Sequence[Landed], *others: Any) -> Any:
        days.extend(snapshot.day for snapshot in snapshots)
        if days.count(DAYS[2]) == 1 and days[-1] == DAYS[2]:
            raise StoreUnavailable("the database went away for a moment")
        return numbers_of(snapshots, *others)

    monkeypatch.setattr(risk, "numbers_of", measure)
    return days


def test_what_was_written_before_the_stumble_is_not_computed_again(
    land: Any, compute: Any, store: Store, measured: list[date], waits: Waits
) -> None:
    for day in DAYS:
        land(day, weights=WEIGHTS)

    result = compute(DAYS[0], DAYS[-1])

    assert result.success
    assert waits.passed > 0
    assert measured == [*DAYS[:3], *DAYS[2:]]
    assert [row["day"] for row in store.metrics_on(DAYS[0], DAYS[-1])] == DAYS
    assert store.written_by(result.run_id, "risk_metrics") == set()  # it is done with it


def test_asked_again_it_begins_at_the_beginning(
    land: Any, compute: Any, measured: list[date], waits: Waits
) -> None:
    for day in DAYS:
        land(day, weights=WEIGHTS)
    compute(DAYS[0], DAYS[-1])
    del measured[:]

    compute(DAYS[0], DAYS[-1])

    assert measured == [*DAYS[:3], *DAYS[2:]]  # with the same stumble on its way
    assert waits.passed > 0
