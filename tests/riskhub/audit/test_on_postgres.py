"""The audit of a Postgres finds what that of an SQLite does; doubles are as they were stored."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from auditing import add_cycle, audit, fill, found, settings_in
from tampering import history, landings, telling

from riskhub.blobs import open_blobs
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing
from riskhub.store.exit_tables import exit_episodes, exit_signals, exit_states
from riskhub.store.tables import budget_cycles, budget_violations, events, symbol_budgets

TABLES = (
    *(budget_violations, exit_signals, exit_episodes, exit_states, events),
    *(budget_cycles, symbol_budgets),
)
TOGETHER = (
    *("a landing's event is doubled", "an event of numbers is doubled", "a body is altered"),
    *("a blob is lost", "a verdict is of something else", "tails are lost"),
    *("a stress result is lost", "rows of a landing that is gone", "a world is said to be dead"),
)


@contextmanager
def undone(store: Store) -> Iterator[None]:
    """Whatever is done to these tables in the block is undone after it."""
    with store.engine.connect() as connection:
        kept: dict[sa.Table, list[dict[str, Any]]] = {
            each: [row._asdict() for row in connection.execute(sa.select(each))] for each in TABLES
        }
    yield
    with writing(store.engine) as connection:
        for table, rows in kept.items():
            connection.execute(sa.delete(table))
            connection.execute(sa.insert(table), rows)


def test_each_fault_is_found_there_too(tmp_path: Path, postgres_url: str) -> None:
    settings = settings_in(tmp_path, tmp_path / "blobs", postgres_url)
    fill(settings)
    blobs = open_blobs(settings)
    assert blobs is not None
    with closing(Store(create_engine(postgres_url))) as store:
        assert found(audit(store, blobs)) == set()
        for name, (do, expected) in (telling.BREAKS | history.BREAKS).items():
            with undone(store):
                do(store, blobs)
                assert found(audit(store, blobs)) == {expected}, name
        for number, case in enumerate(history.CASES.values(), start=2):
            add_cycle(store, number, **case)
        ledger = audit(store, blobs)
        assert (found(ledger), ledger.notes) == (set(), [])
        for name in TOGETHER:
            landings.BREAKS[name][0](store, blobs)
        assert {landings.BREAKS[name][1] for name in TOGETHER} <= found(audit(store, blobs))
