"""Violations and exit signals against their events, both ways: each fault is found by name."""

from datetime import timedelta

import pytest
from auditing import CYCLE, Break, audit, found, sql, violation
from tampering.telling import BREAKS

from riskhub.blobs import BlobStore
from riskhub.store import Store


@pytest.mark.parametrize(("do", "expected"), BREAKS.values(), ids=BREAKS)
def test_that_and_nothing_else_is_found(
    store: Store, blobs: BlobStore, do: Break, expected: tuple[str, str]
) -> None:
    do(store, blobs)
    assert found(audit(store, blobs)) == {expected}


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
