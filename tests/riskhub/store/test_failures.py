"""When the database can't: a failure with a name, and nothing half done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import accept
from databases import migrate
from stored import CREATED, DAY, metrics, outcomes, row_count

from riskhub.errors import StoreUnavailable
from riskhub.store import Store, create_engine, open_store
from riskhub.store.engine import MOST_CONNECTIONS, reading, writing
from riskhub.store.landing import land


def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'hub.db'}")
    store = Store(engine)
    migrate(engine)

    def limit_to(pages: int) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    store.land([accept(version="before")])
    with reading(engine) as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit_to(used + 2)
    padding = {"padding": "x" * 10_000}
    batch = [accept(version=f"v{n}", constraints=padding, stage="live") for n in range(20)]
    with pytest.raises(StoreUnavailable, match="full"):
        store.land(batch)
    with pytest.raises(StoreUnavailable, match="full"):
        store.write_days({"risk_metrics": [metrics(n) for n in range(1_000)]}, [DAY], replace=True)

    assert (row_count(store), store.metrics_on(DAY, DAY)) == (1, [])
    assert [stage for _, stage, *_ in store.newest_per_world()] == ["paper"]
    limit_to(used + 10_000)
    assert set(outcomes(store, *batch)) == {CREATED}
    store.close()


def test_a_database_that_stays_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.engine.SQLITE_BUSY_TIMEOUT_SEC", 0.01)
    holder, store = (Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}")) for _ in "ab")
    migrate(holder.engine)
    with writing(holder.engine):
        with pytest.raises(StoreUnavailable, match="locked"):
            store.land([accept()])
        assert store.head() == 0  # readers never wait for a writer
    assert outcomes(store, accept()) == [CREATED]
    holder.close()
    store.close()


def test_a_server_that_is_not_there_is_unavailable(free_port: Callable[[], int]) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with pytest.raises(StoreUnavailable, match="can't be used now"):
        open_store(url)


def test_a_connection_that_the_server_ended_costs_one_error_at_most(postgres_url: str) -> None:
    store, other = Store(create_engine(postgres_url)), Store(create_engine(postgres_url))
    migrate(store.engine)
    end_the_others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def land_and_lose_the_connection() -> None:
        with writing(store.engine) as connection:
            land(connection, [accept()])
            with reading(other.engine) as killer:
                killer.exec_driver_sql(end_the_others)
            connection.execute(sa.select(1))

    with pytest.raises(StoreUnavailable):
        land_and_lose_the_connection()
    assert outcomes(store, accept()) == [CREATED]
    store.close()
    other.close()


def test_too_many_at_once_are_told_so_not_left_hanging(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(create_engine(postgres_url))
    pool: Any = store.engine.pool
    monkeypatch.setattr(pool, "_timeout", 0.01)
    held = [store.engine.connect() for _ in range(MOST_CONNECTIONS)]
    with pytest.raises(StoreUnavailable, match="every database connection is busy"):
        store.ping()
    for connection in held:
        connection.close()
    store.ping()
    store.close()
