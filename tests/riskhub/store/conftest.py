"""Each test of the store is asked alike of SQLite and of Postgres."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from builders import accept
from databases import migrate
from stored import DAY, metrics, tail, verdict, weight

from riskhub.store import Store, create_engine
from riskhub.store.engine import writing


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that nobody has touched."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def open_another(url: str) -> Iterator[Callable[[], Store]]:
    """Opens the database as one more process would: with an engine of its own."""
    opened: list[Store] = []

    def another() -> Store:
        opened.append(Store(create_engine(url)))
        return opened[-1]

    yield another
    for store in opened:
        store.close()


@pytest.fixture
def store(open_another: Callable[[], Store]) -> Store:
    store = open_another()
    migrate(store.engine)
    return store


@pytest.fixture
def filled(store: Store) -> Store:
    """Enough rows, in worlds and days enough, for an index to be worth its while."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    store.land(
        [
            accept(
                version=f"v{number}",
                world_id=f"w{number % 20}",
                as_of=(start + timedelta(days=number % 500)).isoformat(),
            )
            for number in range(4_000)
        ]
    )
    landed = store.landed_on(date(2020, 1, 1), DAY)
    days = sorted({row.day for row in landed})
    tables = {
        "validated_snapshots": [verdict(row.position, day=row.day) for row in landed],
        "risk_metrics": [metrics(row.position, day=row.day) for row in landed],
        "risk_tails": [tail(row.position, day=row.day) for row in landed],
        "snapshot_weights": [weight(row.position, "BAC", 1.0, day=row.day) for row in landed],
    }
    store.write_days(tables, days, replace=True)
    with writing(store.engine) as connection:
        connection.exec_driver_sql("ANALYZE")
    return store
