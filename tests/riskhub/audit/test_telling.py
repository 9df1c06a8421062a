"""Violations and exit signals against their events, both ways: each fault is found by name."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from auditing import CYCLE, Break, audit, fill, found, settings_in, sql, violation
from tampering.telling import BREAKS

from riskhub.blobs import BlobStore
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing
from riskhub.store.exit_tables import exit_episodes, exit_signals, exit_states
from riskhub.store.tables import budget_violations, events


@pytest.mark.parametrize(("do", "expected"), BREAKS.values(), ids=BREAKS)
def test_that_and_nothing_else_is_found(
    store: Store, blobs: BlobStore, do: Break, expected: tuple[str, str]
) -> None:
    do(store, blobs)
    assert found(audit(store, blobs)) == {expected}


@contextmanager
def undone(store: Store) -> Iterator[None]:
    """Whatever is done to these tables in the block is undone after it."""
    tables = (budget_violations, exit_signals, exit_episodes, exit_states, events)
    with store.engine.connect() as connection:
        kept = {
            each: [row._asdict() for row in connection.execute(sa.select(each))] for each in tables
        }
    yield
    with writing(store.engine) as connection:
        for table, rows in kept.items():
            connection.execute(sa.delete(table))
            connection.execute(sa.insert(table), rows)


def test_on_postgres_too(tmp_path: Path, postgres_url: str) -> None:
    fill(settings_in(tmp_path, tmp_path / "blobs", postgres_url))
    with closing(Store(create_engine(postgres_url))) as store:
        elsewhere = {("blobs", "missing")}  # no store of blobs is asked
        assert found(audit(store, None)) == elsewhere
        for name, (do, expected) in BREAKS.items():
            with undone(store):
                do(store, None)  # type: ignore[arg-type]
                assert found(audit(store, None)) == elsewhere | {expected}, name


def test_an_altered_violation_is_named_by_what_was_told(store: Store, blobs: BlobStore) -> None:
    BREAKS["a violation is altered"][0](store, blobs)
    counted = audit(store, blobs).findings["violations", "altered"]
    assert counted.count == 1
    assert counted.examples == [
        "AMD 2026-01-31T21:05:00.000000Z: position_notional -2000.0 was told, -1600.0 is stored"
    ]


def test_amounts_without_a_fraction_are_the_same(store: Store, blobs: BlobStore) -> None:
    row = violation(9, "SPY").row() | {"position_notional": -2_000, "over_budget": 500}
    store.add_violations([row])
    assert found(audit(store, blobs)) == set()


def test_only_what_happened_since(store: Store, blobs: BlobStore) -> None:
    sql("DELETE FROM budget_violations", "DELETE FROM events WHERE type = 'exit_signal'")(
        store, blobs
    )
    later = audit(store, blobs, since=CYCLE + timedelta(days=9))
    assert found(later) == set()
    assert "exit signals" not in later.looked_at
    assert found(audit(store, blobs)) == {
        ("violations", "missing"), ("events of exit signals", "missing"),
    }  # fmt: skip
