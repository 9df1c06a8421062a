"""The outbox: an event of each landing, in the order of commits, and what reads it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from builders import NOW, WORLD, accept, wait_until
from stored import DAY, about_to_land, metrics, tail, verdict, waits_for_a_lock

from riskhub.controlbus.events import (
    BUDGET_VIOLATION,
    METRICS_UPDATED,
    SNAPSHOT_QUARANTINED,
    SNAPSHOT_UPDATED,
    NewEvent,
    landing_id,
    metrics_updated,
    parse,
)
from riskhub.snapshot import Snapshot
from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.events import RELAY
from riskhub.store.landing import land

HOUR = timedelta(hours=1)


def an_event(number: int = 1, key: str = WORLD) -> NewEvent:
    return NewEvent("exit_signal", key, f"{key}/x", f"exit_signal:{number}", NOW, {"n": number})


def types_of(store: Store, **asked: object) -> list[str]:
    return [event.type for event in store.events_after(0, limit=100, **asked)]  # type: ignore[arg-type]


def test_each_landing_is_an_event_in_landing_order_and_a_retry_is_none(store: Store) -> None:
    snapshots = [accept(version=f"v{n}", world_id=f"w{n % 2}") for n in range(5)]
    store.land(snapshots[:3])
    store.land(snapshots)  # three of them again

    events = store.events_after(0, limit=100)

    assert [event.subject for event in events] == [f"w{n % 2}/v{n}" for n in range(5)]
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    assert store.events_head() == events[-1].sequence


def test_the_event_of_a_landing_carries_the_stored_body_and_the_contracts_fields(
    store: Store,
) -> None:
    snapshot = accept(received_at=NOW)
    store.land([snapshot])

    (stored,) = store.events_after(0, limit=1)
    event = parse(stored.cloud_event())
    envelope = json.loads(stored.cloud_event())

    assert event.type == SNAPSHOT_UPDATED
    key = f"risk_snapshot_updated:{WORLD}:{snapshot.digest}:v1"
    assert event.data == json.loads(snapshot.body) | {
        "event_version": 1,
        "idempotency_key": key,
        "correlation_id": event.id,
    }
    assert event.id == landing_id(WORLD, "v1", snapshot.digest)
    assert envelope["datacontenttype"] == "application/json"
    assert envelope["partitionkey"] == event.key == WORLD
    assert event.time == NOW


def test_a_transaction_held_open_holds_back_sensor_and_consumers_alike(
    store: Store, open_another: Callable[[], Store]
) -> None:
    """Whoever has read "up to here" has seen all up to there, by position and by sequence."""
    late, reader = open_another(), open_another()
    store.land([accept(version="v0")])
    head, read_up_to = reader.events_head(), reader.pending_days().head
    begun = about_to_land(late)

    with ThreadPoolExecutor(1) as pool:
        with writing(store.engine) as held_open:
            land(held_open, [accept(version="v1")])
            second = pool.submit(late.land, [accept(version="v2")])
            begun.wait(30)
            wait_until(lambda: second.done() or waits_for_a_lock(reader))

            assert reader.events_after(head, limit=10) == []
            assert reader.pending_days(after=read_up_to).days == ()
        second.result(30)

    seen = [event.subject for event in reader.events_after(head, limit=10)]
    assert seen == [f"{WORLD}/v1", f"{WORLD}/v2"]
    (day,) = reader.pending_days(after=read_up_to).days
    assert (day.count, day.first_position) == (2, read_up_to + 1)


def test_a_page_ends_at_its_limit_or_its_bytes_and_goes_on_behind_it(store: Store) -> None:
    store.land([accept(version=f"v{n}") for n in range(6)])
    size = len(accept(version="v0").body)

    first = store.events_after(0, limit=4)
    assert len(first) == 4
    rest = store.events_after(first[-1].sequence, limit=4)
    assert [event.subject for event in first + rest] == [f"{WORLD}/v{n}" for n in range(6)]
    assert len(store.events_after(0, limit=6, page_bytes=size + 1)) == 2
    assert len(store.events_after(0, limit=6, page_bytes=1)) == 1  # one goes always


def test_events_are_asked_for_by_type_and_key(store: Store) -> None:
    store.land([accept(world_id="a"), accept(world_id="b")])
    store.add_events([an_event(1, "a")])

    assert types_of(store, key="a") == [SNAPSHOT_UPDATED, "exit_signal"]
    assert types_of(store, types=["exit_signal"]) == ["exit_signal"]
    up_to = store.events_after(0, limit=10, key="b")[-1].sequence
    assert types_of(store, up_to=up_to) == [SNAPSHOT_UPDATED, SNAPSHOT_UPDATED]


def test_the_newest_are_behind_the_one_before_them(store: Store) -> None:
    store.land([accept(world_id=world) for world in "abab"])
    store.land([accept(version="v2", world_id=world) for world in "ab"])
    store.add_events([an_event(1, "a")])
    after = [event.sequence for event in store.events_after(0, limit=10)]

    assert store.behind_newest(2) == after[-3]
    assert store.behind_newest(2, key="a") == after[0]
    assert store.behind_newest(1, types=["exit_signal"]) == 0
    assert store.behind_newest(9) == 0


def test_the_same_event_is_put_there_once(store: Store) -> None:
    store.add_events([an_event(1), an_event(2), an_event(1)])
    store.add_events([an_event(2), an_event(3)])
    assert [json.loads(event.data)["n"] for event in store.events_after(0, limit=10)] == [1, 2, 3]


def test_repeated_events_keep_their_ids(store: Store) -> None:
    store.land([accept()])
    store.add_events([an_event()])
    first = store.events_after(0, limit=10)

    assert store.repeat_events([event.sequence for event in first]) == 2

    again = store.events_after(first[-1].sequence, limit=10)
    assert [event.id for event in again] == [event.id for event in first]
    assert [event.data for event in again] == [event.data for event in first]


def test_the_events_of_a_worlds_days_come_once_each(store: Store) -> None:
    for number, day in enumerate(("2026-01-05", "2026-01-06", "2026-01-07")):
        store.land([accept(version=f"v{number}", as_of=f"{day}T12:00:00Z")])
    store.land([accept(world_id="other", as_of="2026-01-06T12:00:00Z")])
    store.repeat_events([1, 2, 3])
    since = accept(as_of="2026-01-05T12:00:00Z").as_of

    found = store.landing_events(WORLD, since=since, before=since + 2 * 24 * HOUR, limit=10)

    assert [event.subject for event in found] == [f"{WORLD}/v0", f"{WORLD}/v1"]
    behind = store.landing_events(
        WORLD, since=since, before=since + 48 * HOUR, after=found[0].sequence, limit=10
    )
    assert [event.subject for event in behind] == [f"{WORLD}/v1"]


def test_a_cursor_begins_at_nothing_and_never_goes_back(store: Store) -> None:
    assert store.cursor("relay") == 0
    store.move_cursor("relay", 7, NOW)
    store.move_cursor("relay", 5, NOW + HOUR)
    store.move_cursor("other", 1, NOW)
    assert store.cursor("relay") == 7
    assert store.cursors() == {"relay": (7, NOW), "other": (1, NOW)}


def test_one_process_reads_as_a_reader_until_it_is_done(
    store: Store, open_another: Callable[[], Store]
) -> None:
    other = open_another()
    with store.reading_alone("relay") as ours:
        assert ours is not None
        ours()
        with other.reading_alone("relay") as theirs:
            assert theirs is None
        with other.reading_alone("another") as theirs:
            assert theirs is not None
    with other.reading_alone("relay") as theirs:
        assert theirs is not None


def test_entering_the_quarantine_is_told_once_and_leaving_it_is_not(store: Store) -> None:
    store.land([accept()])
    rejected = verdict(1, accepted=False)
    for instant in (NOW, NOW + HOUR):
        store.write_verdicts([rejected], [DAY], now=instant, replace=True)
    store.write_verdicts([verdict(1)], [DAY], now=NOW + 2 * HOUR, replace=True)
    store.write_verdicts([rejected], [DAY], now=NOW + 3 * HOUR, replace=True)

    told = store.events_after(0, limit=10, types=[SNAPSHOT_QUARANTINED])

    assert [json.loads(event.data)["since"][:13] for event in told] == [
        "2026-01-31T21",
        "2026-02-01T00",
    ]


def test_the_same_numbers_are_told_once_and_others_again(store: Store) -> None:
    store.land([accept()])
    measured, tails = metrics(1), [tail(1)]
    for at, change in ((NOW, {}), (NOW + HOUR, {}), (NOW + HOUR, {"volatility": 0.5})):
        store.write_days(
            {"risk_metrics": [measured | change], "risk_tails": tails},
            [DAY],
            replace=True,
            told=[metrics_updated(measured | change, tails, at)],
        )
    told = store.events_after(0, limit=10, types=[METRICS_UPDATED])
    assert [json.loads(event.data)["volatility"] for event in told] == [
        measured["volatility"],
        0.5,
    ]


def test_a_violation_is_an_event_of_its_symbol(store: Store) -> None:
    row = {
        "at": NOW, "symbol": "BTCUSDT", "position_notional": -3000.0, "budget_usd": 1868.0,
        "over_budget": 1132.0, "mode": "shadow",
    }  # fmt: skip
    store.add_violations([row])
    (told,) = store.events_after(0, limit=10, types=[BUDGET_VIOLATION])
    assert told.key == "BTCUSDT"
    assert json.loads(told.data)["position_notional"] == -3000.0


def test_what_retention_removes_takes_its_events_along(store: Store) -> None:
    store.land([old(1), accept(version="new")])
    store.remove_snapshots({"paper": NOW}, NOW)
    assert [event.subject for event in store.events_after(0, limit=10)] == [f"{WORLD}/new"]


def test_retention_keeps_what_a_relay_has_yet_to_tell(store: Store) -> None:
    store.land([old(1), old(2), accept(version="new")])
    store.move_cursor(f"{RELAY}topic", 1, NOW)
    policy = {"paper": NOW}

    assert [stage.count for stage in store.removable(policy, NOW)] == [1]
    assert store.remove_snapshots(policy, NOW) == 1

    store.move_cursor(f"{RELAY}topic", 3, NOW)
    assert store.remove_snapshots(policy, NOW) == 1


def old(number: int) -> Snapshot:
    received = NOW - 48 * HOUR
    return accept(version=f"old{number}", as_of=received.isoformat(), received_at=received)
