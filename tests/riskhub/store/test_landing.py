"""Landing: what is new is added once, in an order that never surprises a reader."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import NOW, WORLD, accept, wait_until
from sqlalchemy import event
from stored import (
    CONFLICT,
    CREATED,
    DAY,
    DUPLICATE,
    THREADS,
    Stumbled,
    about_to_land,
    body_of,
    outcomes,
    references,
    row_count,
    together,
    waits_for_a_lock,
)

from riskhub.digests import digest
from riskhub.snapshot import Snapshot
from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.landing import land


def test_lands_once_then_recognises_the_same_and_refuses_the_other(store: Store) -> None:
    first = accept()
    assert outcomes(store, first) == [CREATED]

    again, other = store.land([accept(received_at=NOW + timedelta(1)), accept(ttl_sec=60)])

    assert (again.outcome, other.outcome) == (DUPLICATE, CONFLICT)
    assert (again.body, again.digest) == (first.body, first.digest)
    assert (other.body, other.digest) == (first.body, first.digest)
    assert body_of(store, "v1") == first.body
    assert row_count(store) == 1


def test_tells_duplicates_and_conflicts_apart_inside_one_batch(store: Store) -> None:
    first, elsewhere = accept(), accept(world_id="fx")
    landings = store.land([first, accept(), accept(ttl_sec=60), elsewhere, accept(version="v2")])
    assert [landing.outcome for landing in landings] == [
        CREATED, DUPLICATE, CONFLICT, CREATED, CREATED,
    ]  # fmt: skip
    assert [landing.body for landing in landings[:4]] == [first.body] * 3 + [elsewhere.body]
    assert row_count(store) == 3


@pytest.mark.parametrize("batched", [True, False], ids=["one batch", "two calls"])
@pytest.mark.parametrize("stored_as", ["sha256", "blake3"])
def test_the_same_content_is_the_same_under_either_algorithm(
    store: Store, stored_as: str, batched: bool
) -> None:
    offered_as = {"sha256": "blake3", "blake3": "sha256"}[stored_as]
    first = accept(hash=digest(accept().payload, stored_as))
    again = accept(hash=digest(accept().payload, offered_as))
    other = accept(ttl_sec=60, hash=digest(accept(ttl_sec=60).payload, offered_as))

    landings = (
        store.land([first, again, other])
        if batched
        else store.land([first]) + store.land([again]) + store.land([other])
    )

    assert [landing.outcome for landing in landings] == [CREATED, DUPLICATE, CONFLICT]
    assert {landing.digest for landing in landings} == {first.digest}
    assert first.digest.startswith(stored_as)


def test_nothing_offered_lands_nothing(store: Store) -> None:
    assert store.land([]) == []
    assert (store.head(), row_count(store)) == (0, 0)


def test_a_batch_longer_than_one_statement_keeps_its_order(store: Store) -> None:
    offered = [accept(version=f"v{number}") for number in range(2_500)]
    assert set(outcomes(store, *offered)) == {CREATED}
    landed = store.landed_on(DAY, DAY)
    assert [row.version for row in landed] == [snapshot.version for snapshot in offered]
    assert set(outcomes(store, *offered)) == {DUPLICATE}


def test_a_batch_that_fails_lands_nothing(store: Store) -> None:
    def stumble() -> None:
        with writing(store.engine) as connection:
            land(connection, [accept()])
            raise Stumbled

    with pytest.raises(Stumbled):
        stumble()
    assert (row_count(store), store.newest_per_world()) == (0, [])


def test_one_object_offered_twice_is_created_once(store: Store) -> None:
    snapshot = accept()
    assert outcomes(store, snapshot, snapshot) == [CREATED, DUPLICATE]


def referring(*refs: str, **overrides: Any) -> Snapshot:
    return replace(accept(**overrides), refs=refs)


def test_references_are_noted_once_and_only_of_what_was_created(store: Store) -> None:
    store.land([referring("file:a", "file:b", "file:a"), referring("file:c", ttl_sec=60)])
    assert references(store) == [("file:a", "v1"), ("file:b", "v1")]

    again, other = referring("file:a", "file:b"), referring("file:c", ttl_sec=60)
    store.land([again, other, referring("file:a", version="v2"), accept(version="v3")])
    assert references(store) == [("file:a", "v1"), ("file:a", "v2"), ("file:b", "v1")]


def test_a_landing_changes_the_stamp_of_its_world_and_stage_alone(store: Store) -> None:
    live = accept(version="live", stage="live")
    store.land([accept(), live, accept(world_id="fx", version="fx")])
    before = store.stamps([WORLD, "fx", "rates"])
    assert {world: set(stages) for world, stages in before.items()} == {
        WORLD: {"paper", "live"},
        "fx": {"paper"},
    }
    assert len({stamp for stages in before.values() for stamp in stages.values()}) == 3

    # A late arrival is a landing too: what it does not change today it may when others expire.
    store.land([accept(version="v2", as_of="2026-01-31T20:00:00Z")])

    after = store.stamps([WORLD, "fx"])
    assert after[WORLD]["paper"] != before[WORLD]["paper"]
    assert after[WORLD]["live"] == before[WORLD]["live"]
    assert after["fx"] == before["fx"]


def test_duplicates_and_conflicts_leave_the_stamps_alone(store: Store) -> None:
    store.land([accept()])
    before = store.stamps([WORLD])
    store.land([accept(), accept(ttl_sec=60)])
    store.land([accept(version="v1", stage="live")])
    assert store.stamps([WORLD]) == before

    # Nor is a duplicate's stage touched by what is new beside it in its batch.
    store.land([accept(), accept(version="v2", stage="live")])
    assert store.stamps([WORLD])[WORLD]["paper"] == before[WORLD]["paper"]
    assert store.stamps([]) == {}


def test_every_landing_has_a_stamp_that_there_never_was(store: Store) -> None:
    seen = set()
    for number in range(30):
        store.land([accept(version=str(number))])
        seen.add(store.stamps([WORLD])[WORLD]["paper"])
    assert len(seen) == 30


def test_a_version_that_retention_removes_meanwhile_is_not_missed(
    store: Store, open_another: Callable[[], Store]
) -> None:
    """A retry finds its version in its way; what it then reads of it must still be there."""
    store.land([accept()])
    retention, later = open_another(), NOW + timedelta(days=9)
    begun = about_to_land(retention)
    with ThreadPoolExecutor(1) as pool:

        def remove(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith("SELECT snapshots.digest") and not removals:
                removals.append(pool.submit(retention.remove_snapshots, {"paper": later}, later))
                begun.wait(30)
                wait_until(lambda: removals[0].done() or waits_for_a_lock(store))

        removals: list[Future[int]] = []
        event.listen(store.engine, "before_cursor_execute", remove)
        assert outcomes(store, accept()) == [DUPLICATE]
        assert removals[0].result(30) == 1
    assert row_count(store) == 0


def test_many_at_once_with_the_same_content_make_one_row(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    offered = [accept(version=f"v{number}") for number in range(5)]
    answers = together(*(lambda store=store: outcomes(store, *offered) for store in stores))
    for of_one_version in zip(*answers, strict=True):
        assert sorted(of_one_version, key=str) == [CREATED] + [DUPLICATE] * (THREADS - 1)
    assert row_count(store) == 5


def test_many_at_once_with_different_content_have_one_winner(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    offered = [accept(ttl_sec=60 + number) for number in range(THREADS)]
    answers = together(
        *(
            lambda store=store, snapshot=snapshot: store.land([snapshot])[0]
            for store, snapshot in zip(stores, offered, strict=True)
        )
    )
    (winner,) = [n for n, landing in enumerate(answers) if landing.outcome is CREATED]
    assert [landing.outcome for landing in answers].count(CONFLICT) == THREADS - 1
    assert {landing.body for landing in answers} == {offered[winner].body}
    assert body_of(store, "v1") == offered[winner].body


# -- landing order --------------------------------------------------------------------------------


def test_nothing_becomes_visible_before_what_took_its_position_earlier(
    store: Store, open_another: Callable[[], Store]
) -> None:
    late, reader = open_another(), open_another()
    store.land([accept(version="v0")])
    remembered = reader.head()
    begun = about_to_land(late)

    with ThreadPoolExecutor(1) as pool:
        with writing(store.engine) as held_open:
            land(held_open, [accept(version="v1")])
            second = pool.submit(late.land, [accept(version="v2")])
            begun.wait(30)
            wait_until(lambda: second.done() or waits_for_a_lock(reader))

            assert reader.head() == remembered
            assert [row.version for row in reader.landed_on(DAY, DAY)] == ["v0"]
        second.result(30)

    new = [row for row in reader.landed_on(DAY, DAY) if row.position > remembered]
    assert [row.version for row in new] == ["v1", "v2"]
    assert [day.count for day in reader.pending_days(after=remembered).days] == [2]


def test_a_transaction_that_gives_up_frees_the_way_and_leaves_nothing(
    store: Store, open_another: Callable[[], Store]
) -> None:
    late = open_another()
    begun = about_to_land(late)
    with ThreadPoolExecutor(1) as pool:

        def stumble() -> None:
            with writing(store.engine) as held_open:
                land(held_open, [accept(version="v1")])
                waiting.append(pool.submit(late.land, [accept(version="v2")]))
                begun.wait(30)
                raise Stumbled

        waiting: list[Future[Any]] = []
        with pytest.raises(Stumbled):
            stumble()
        waiting[0].result(30)
    assert [row.version for row in store.landed_on(DAY, DAY)] == ["v2"]


def test_positions_grow_also_under_load(store: Store, open_another: Callable[[], Store]) -> None:
    stores = [open_another() for _ in range(4)]
    done = threading.Event()

    def produce(number: int) -> None:
        for round_ in range(10):
            stores[number].land([accept(version=f"{number}-{round_}-{i}") for i in range(3)])

    def consume() -> list[str]:
        seen, position = [], 0
        while True:
            last_look = done.is_set()
            for row in store.landed_on(DAY, DAY):
                if row.position > position:
                    seen.append(row.version)
                    position = row.position
            if last_look:
                return seen

    with ThreadPoolExecutor(1) as pool:
        consumer = pool.submit(consume)
        together(*(lambda number=number: produce(number) for number in range(4)))
        done.set()
        seen = consumer.result(60)
    assert len(seen) == len(set(seen)) == row_count(store) == 120
