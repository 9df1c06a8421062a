"""What happened since an instant, and how much there is."""

from datetime import timedelta

from builders import NOW, accept
from stored import DAY, verdict

from riskhub.store import Store


def test_nothing_has_happened_yet(store: Store) -> None:
    happened = store.happened_since(NOW - timedelta(days=1))

    assert happened.landings == {}
    assert (happened.events, happened.quarantined, happened.in_quarantine) == (0, 0, 0)
    assert set(store.row_counts().values()) == {0}


def test_landings_count_by_stage_and_with_their_events_from_the_instant_on(store: Store) -> None:
    store.land([accept(version="v1"), accept(version="v2"), accept(version="v3", stage="live")])

    happened = store.happened_since(NOW)

    assert sum(happened.landings.values()) == happened.events == 3
    assert happened.landings["live"] == 1
    assert store.happened_since(NOW + timedelta(days=1)).landings == {}
    assert store.happened_since(NOW + timedelta(days=1)).events == 0
    assert store.row_counts()["snapshots"] == 3


def test_the_quarantine_counts_what_entered_and_what_is_there(store: Store) -> None:
    store.land([accept(version="v1"), accept(version="v2")])
    rejected = [verdict(position, accepted=False, reasons=["no"]) for position in (1, 2)]
    store.write_verdicts(rejected, [DAY], now=NOW, replace=False)
    later = NOW + timedelta(hours=1)
    store.write_verdicts([verdict(1), rejected[1]], [DAY], now=later, replace=True)

    happened = store.happened_since(NOW)

    assert (happened.quarantined, happened.in_quarantine) == (2, 1)
    assert store.happened_since(later).quarantined == 0


def test_a_database_has_a_size(store: Store) -> None:
    assert store.size_bytes() > 100_000
