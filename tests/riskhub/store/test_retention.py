"""Retention takes what has expired and is past its stage's days, and no blob that is needed."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD, accept, wait_until
from stored import (
    ALL,
    CREATED,
    DAY,
    DUPLICATE,
    about_to_land,
    metrics,
    outcomes,
    references,
    row_count,
    stressed,
    tail,
    together,
    verdict,
    versions,
    waits_for_a_lock,
    weight,
)

from riskhub.errors import StoreUnavailable
from riskhub.snapshot import Snapshot
from riskhub.store import Store
from riskhub.store.engine import reading, writing
from riskhub.store.landing import land
from riskhub.store.retention import _GO_WITH_A_SNAPSHOT, Removable
from riskhub.store.tables import condemned_blobs, metadata, snapshots

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
REF = "file:blob"


def kept(store: Store, world: str = WORLD) -> list[str]:
    return sorted(versions(store.newest_first(world, ALL, now=NOW, limit=9_999).bodies))


def referring(*refs: str, **overrides: Any) -> Snapshot:
    return replace(accept(**overrides), refs=refs)


# -- snapshots ------------------------------------------------------------------------------------


def test_only_what_has_expired_and_is_past_its_stages_days_goes(store: Store) -> None:
    old, border = NOW - 9 * HOUR, NOW - 5 * HOUR
    store.land(
        [
            accept(version="old", received_at=old, as_of="2026-01-30T01:00:00Z"),
            accept(version="older still", received_at=old - HOUR, as_of="2026-01-30T00:00:00Z"),
            accept(version="alive", received_at=old, as_of="2026-01-30T00:00:00Z", ttl_sec=86_400),
            accept(version="at the border", received_at=border, as_of="2026-01-30T00:00:00Z"),
            accept(version="live", received_at=old, stage="live", as_of="2026-01-30T02:00:00Z"),
            accept(version="none", received_at=old, stage="test", as_of="2026-01-30T00:00:00Z"),
            accept(version="fx", received_at=old, world_id="fx", as_of="2026-01-30T03:00:00Z"),
        ]
    )
    policy = {"paper": border, "live": border, "backtest": NOW}
    hour = datetime.fromisoformat("2026-01-30T00:00:00Z")

    assert store.removable(policy, NOW) == [
        Removable("live", 1, hour + 2 * HOUR, hour + 2 * HOUR),
        Removable("paper", 3, hour, hour + 3 * HOUR),
    ]
    told: list[int] = []
    assert store.remove_snapshots(policy, NOW, told.append) == sum(told) == 4
    assert kept(store) == ["alive", "at the border", "none"]
    assert kept(store, "fx") == []
    assert store.removable(policy, NOW) == []
    assert store.remove_snapshots(policy, NOW) == 0
    assert store.stages() == ["live", "paper", "test"]


def test_expiry_is_exclusive_what_is_served_to_the_last_moment_stays(store: Store) -> None:
    store.land([accept(ttl_sec=60)])
    last = NOW + 60 * SECOND - timedelta(microseconds=1)
    everything = {"paper": NOW + HOUR}
    assert store.remove_snapshots(everything, last) == 0
    assert store.latest(WORLD, now=last) is not None
    assert store.remove_snapshots(everything, NOW + 60 * SECOND) == 1


def test_without_a_policy_nothing_goes(store: Store) -> None:
    store.land([accept()])
    assert store.removable({}, NOW + 99 * HOUR) == []
    assert store.remove_snapshots({}, NOW + 99 * HOUR) == 0
    assert kept(store) == ["v1"]


def test_what_was_made_from_a_removed_snapshot_goes_with_it(store: Store) -> None:
    store.land([referring(REF, "file:1"), referring(REF, version="v2", ttl_sec=86_400)])
    one, two = (row.position for row in store.landed_on(DAY, DAY))
    store.write_days(
        {
            "validated_snapshots": [verdict(one), verdict(two)],
            "risk_metrics": [metrics(one), metrics(two)],
            "snapshot_stress": [stressed(one), stressed(two)],
            "risk_tails": [tail(one), tail(one, "0.95"), tail(two)],
            "snapshot_weights": [weight(one, "BAC", 1.0), weight(two, "BAC", 1.0)],
        },
        [DAY],
        replace=True,
    )

    assert store.remove_snapshots({"paper": NOW + HOUR}, NOW + HOUR) == 1

    assert [row["position"] for row in store.verdicts_on(DAY, DAY)] == [two]
    assert [row["position"] for row in store.metrics_on(DAY, DAY)] == [two]
    assert [row["position"] for row in store.tails_on(DAY, DAY)] == [two]
    assert list(store.weights_of(DAY, DAY)) == [two]
    assert references(store) == [(REF, "v2")]
    assert store.pending_days().days == ()


def test_every_table_with_positions_is_cleared_of_them() -> None:
    """A table that is added one day must not keep rows of snapshots that are gone."""
    with_positions = {table for table in metadata.tables.values() if "position" in table.c}
    assert with_positions == {*_GO_WITH_A_SNAPSHOT, snapshots}


def test_the_walk_goes_on_to_the_end_in_short_transactions(store: Store) -> None:
    template = accept(ttl_sec=60)
    stages = itertools.cycle(["paper", "live", "paper"])
    store.land(
        [
            replace(template, version=str(n), stage=next(stages), as_of=NOW - n * SECOND)
            for n in range(5_300)
        ]
    )
    told: list[int] = []
    later = NOW + HOUR
    (removable,) = store.removable({"paper": later}, later)
    assert store.remove_snapshots({"paper": later}, later, told.append) == removable.count
    assert (sum(told), max(told) <= 500) == (removable.count, True)
    assert row_count(store) == 5_300 - removable.count
    assert store.removable({"paper": later}, later) == []


def test_a_position_is_never_given_out_again(store: Store) -> None:
    store.land([accept(version=str(number)) for number in range(3)])
    newest = store.head()
    store.remove_snapshots({"paper": NOW + HOUR}, NOW + HOUR)
    assert store.head() == 0
    assert outcomes(store, accept(version="0", ttl_sec=60)) == [CREATED]
    assert store.head() > newest


def test_producers_and_retention_at_once_lose_nothing_that_is_alive(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(4)]
    past, long, noon = NOW - HOUR, 86_400, "2026-01-31T12:00:00Z"

    def produce(number: int) -> None:
        for round_ in range(6):
            stores[number].land([accept(version=f"{number}-{round_}", ttl_sec=long)])
            # Everybody retries one that retention removes in turns with them.
            landings = stores[number].land([accept(version="gone", received_at=past, as_of=noon)])
            assert landings[0].outcome in (CREATED, DUPLICATE)

    def remove(number: int) -> None:
        for _ in range(6):
            stores[number].remove_snapshots({"paper": NOW}, NOW)

    together(*(lambda n=n: (produce if n < 2 else remove)(n) for n in range(4)))
    store.remove_snapshots({"paper": NOW}, NOW)
    assert kept(store) == sorted(f"{n}-{round_}" for n in range(2) for round_ in range(6))


# -- blobs ----------------------------------------------------------------------------------------


class Blobs:
    """A blob store: a set of references that several may use at once."""

    def __init__(self, *refs: str) -> None:
        self.held = set(refs)

    def put(self, ref: str) -> None:
        self.held.add(ref)

    def delete(self, ref: str) -> None:
        self.held.remove(ref)


def test_unreferenced_is_what_no_snapshot_has_in_the_order_asked(store: Store) -> None:
    store.land([referring("file:b"), referring("file:d", version="v2")])
    assert store.unreferenced(["file:c", "file:b", "file:a", "file:d"]) == ["file:c", "file:a"]
    assert store.unreferenced([]) == []


def test_a_blob_stays_condemned_since_it_was_first(store: Store) -> None:
    store.condemn_blobs(["b", "a"], NOW)
    store.condemn_blobs(["a", "c"], NOW + HOUR)
    store.condemn_blobs([], NOW)
    assert store.condemned_blobs(NOW - SECOND) == []
    assert store.condemned_blobs(NOW) == ["a", "b"]
    assert store.condemned_blobs(NOW + HOUR) == ["a", "b", "c"]

    store.pardon_blobs(["a", "unknown"])
    store.pardon_blobs([])
    assert store.condemned_blobs(NOW + HOUR) == ["b", "c"]


def test_two_that_condemn_the_same_at_once_do_no_harm(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(4)]
    refs = [f"file:{number}" for number in range(200)]
    together(*(lambda one=one: one.condemn_blobs(refs, NOW) for one in stores))
    assert store.condemned_blobs(NOW) == sorted(refs)


def test_only_what_is_condemned_for_long_and_unreferenced_is_removed(store: Store) -> None:
    blobs = Blobs("old", "young", "wanted", "innocent")
    store.condemn_blobs(["old", "wanted"], NOW)
    store.condemn_blobs(["young"], NOW + HOUR)
    store.land([referring("wanted")])

    removed = [ref for ref in sorted(blobs.held) if store.remove_blob(ref, NOW, blobs.delete)]

    assert removed == ["old"]
    assert blobs.held == {"young", "wanted", "innocent"}
    # What turned out to be wanted is condemned no longer: its time of grace would begin anew.
    assert store.condemned_blobs(NOW + HOUR) == ["young"]
    assert not store.remove_blob("old", NOW, blobs.delete)


def test_a_blob_that_could_not_be_deleted_stays_condemned(store: Store) -> None:
    store.condemn_blobs([REF], NOW)

    def fail(_ref: str) -> None:
        raise StoreUnavailable("not now")

    with pytest.raises(StoreUnavailable):
        store.remove_blob(REF, NOW, fail)
    assert store.condemned_blobs(NOW) == [REF]
    blobs = Blobs(REF)
    assert store.remove_blob(REF, NOW, blobs.delete)
    assert blobs.held == set()


def interleavings(one: list[str], other: list[str]) -> Iterator[list[str]]:
    """Every order of the steps of two that each keep their own order."""
    for places in itertools.combinations(range(len(one) + len(other)), len(one)):
        first, second = iter(one), iter(other)
        yield [next(first if n in places else second) for n in range(len(one) + len(other))]


@pytest.mark.parametrize("condemned_before", [True, False])
def test_in_no_order_of_steps_does_a_landing_lose_its_blob(
    store: Store, condemned_before: bool
) -> None:
    """The producer's and retention's transactions in each order that they may come in.

    A producer takes less than the time of grace from its pardon to its landing.
    """
    grace = HOUR
    steps = interleavings(["pardon", "put", "land"], ["look", "remove", "look", "remove"])
    for number, order in enumerate(steps):
        ref, now = f"file:{condemned_before}:{number}", NOW
        blobs = Blobs(ref)
        if condemned_before:
            store.condemn_blobs([ref], now - 9 * grace)
        for step in order:
            now += SECOND
            if step == "pardon":
                store.pardon_blobs([ref])
            elif step == "put":
                blobs.put(ref)
            elif step == "land":
                store.land([referring(ref, version=ref)])
            elif step == "look":
                store.condemn_blobs(store.unreferenced([ref]), now)
            else:
                store.remove_blob(ref, now - grace, blobs.delete)
        assert blobs.held == {ref}, order
        assert not store.remove_blob(ref, now + 9 * grace, blobs.delete)


def test_retention_waits_for_a_landing_that_is_about_to_commit(
    store: Store, open_another: Callable[[], Store]
) -> None:
    retention, watcher, blobs = open_another(), open_another(), Blobs(REF)
    store.condemn_blobs([REF], NOW)
    begun = about_to_land(retention)
    with ThreadPoolExecutor(1) as pool:
        with writing(store.engine) as held_open:
            land(held_open, [referring(REF)])
            removal = pool.submit(retention.remove_blob, REF, NOW, blobs.delete)
            begun.wait(30)
            wait_until(lambda: removal.done() or waits_for_a_lock(watcher))
        assert removal.result(30) is False
    assert blobs.held == {REF}


def test_a_pardon_waits_for_a_removal_so_that_what_is_put_next_stays(
    store: Store, open_another: Callable[[], Store]
) -> None:
    producer, watcher, blobs = open_another(), open_another(), Blobs(REF)
    store.condemn_blobs([REF], NOW)
    begun, pardoned = about_to_land(producer), threading.Event()

    def pardon_then_put() -> bool:
        producer.pardon_blobs([REF])
        was_there = REF in blobs.held
        pardoned.set()
        blobs.put(REF)
        return was_there

    with ThreadPoolExecutor(1) as pool:
        waiting: list[Any] = []

        def delete(ref: str) -> None:
            waiting.append(pool.submit(pardon_then_put))
            begun.wait(30)
            wait_until(lambda: pardoned.is_set() or waits_for_a_lock(watcher))
            assert not pardoned.is_set()
            blobs.delete(ref)

        assert store.remove_blob(REF, NOW, delete)
        assert waiting[0].result(30) is False
    assert blobs.held == {REF}
    with reading(store.engine) as connection:
        assert connection.execute(sa.select(condemned_blobs)).all() == []


def test_many_that_refer_while_retention_removes_all_keep_their_blobs(
    store: Store, open_another: Callable[[], Store]
) -> None:
    refs = [f"file:{number}" for number in range(30)]
    blobs = Blobs(*refs)
    store.condemn_blobs(refs, NOW)
    stores = [open_another() for _ in range(4)]

    def produce(number: int) -> None:
        for ref in refs[number::2]:
            stores[number].pardon_blobs([ref])
            blobs.put(ref)
            stores[number].land([referring(ref, version=ref)])

    def remove(number: int) -> None:
        for ref in refs if number % 2 else reversed(refs):
            stores[number].remove_blob(ref, NOW, blobs.delete)

    together(*(lambda n=n: (produce if n < 2 else remove)(n) for n in range(4)))
    assert blobs.held == set(refs)
    assert [version for _, version in references(store)] == sorted(refs)
