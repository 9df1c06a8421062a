"""The relay: every event on the topic at least once, in order, whatever goes wrong meanwhile."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import accept, wait_until
from databases import migrate
from on_topic import all_on, count_on, first_told
from service_resolution import KafkaBroker, resolve_kafka

from riskhub.controlbus import kafka
from riskhub.controlbus.events import OutboxEvent
from riskhub.controlbus.relay import HANDLER, Relay, reader_of
from riskhub.errors import StoreUnavailable
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store, create_engine


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'hub.db'}" if sqlite else request.getfixturevalue("postgres_url")
    store = Store(create_engine(url))
    migrate(store.engine)
    yield store
    store.close()


@pytest.fixture
def settings(kafka_server: str, kafka_topic: str) -> Settings:
    return Settings(controlbus_brokers=kafka_server, controlbus_topic=kafka_topic)


@contextmanager
def relaying(store: Store, settings: Settings) -> Iterator[list[dict[str, object]]]:
    """A relay at work in a thread of its own, and what it tells; ended with the block."""
    told: list[dict[str, object]] = []
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    relay = Relay(
        store,
        settings,
        clock=utc_now,
        tell=lambda event, **more: told.append({"event": event, **more}),
    )
    thread = threading.Thread(target=lambda: loop.run_until_complete(relay.run(stop)))
    thread.start()
    try:
        yield told
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()
        loop.close()


def land(store: Store, count: int, *, since: int = 0, worlds: int = 7) -> None:
    numbers = range(since, since + count)
    store.land([accept(world_id=f"w{n % worlds}", version=f"v{n}") for n in numbers])


def relayed(store: Store, settings: Settings) -> bool:
    return store.cursor(reader_of(settings)) == store.events_head()


def outbox(store: Store) -> list[OutboxEvent]:
    return store.events_after(0, limit=100_000, page_bytes=2**40)


def assert_all_told(store: Store, settings: Settings) -> None:
    """Each event is on the topic, with its own bytes, and of each world in order."""
    records = all_on(str(settings.controlbus_brokers), settings.controlbus_topic)
    kept = outbox(store)
    assert {record.event.raw for record in records} == {event.cloud_event() for event in kept}
    for key, events in first_told(records).items():
        assert [event.id for event in events] == [event.id for event in kept if event.key == key]


def test_the_backlog_and_what_lands_meanwhile_arrive_in_order(
    store: Store, settings: Settings
) -> None:
    land(store, 300)
    with relaying(store, settings):
        land(store, 50, since=300)
        wait_until(lambda: relayed(store, settings))
    assert_all_told(store, settings)
    assert count_on(str(settings.controlbus_brokers), settings.controlbus_topic) == 350


def test_records_are_structured_cloud_events_keyed_by_world(
    store: Store, settings: Settings
) -> None:
    land(store, 3)
    with relaying(store, settings):
        wait_until(lambda: relayed(store, settings))
    for record in all_on(str(settings.controlbus_brokers), settings.controlbus_topic):
        assert record.key == record.event.data["world_id"] == record.event.key
        assert record.headers == {"content-type": b"application/cloudevents+json; charset=UTF-8"}


def test_it_goes_on_where_it_stopped(store: Store, settings: Settings) -> None:
    for since in (0, 20):
        land(store, 20, since=since)
        with relaying(store, settings):
            wait_until(lambda: relayed(store, settings))
    assert count_on(str(settings.controlbus_brokers), settings.controlbus_topic) == 40


def test_of_two_one_relays_and_the_other_takes_over(store: Store, settings: Settings) -> None:
    land(store, 20)
    with relaying(store, settings) as second_told:
        wait_until(lambda: relayed(store, settings))
        with relaying(store, settings) as told:
            wait_until(lambda: told != [])
            assert told[0]["event"] == "stands by"
            land(store, 20, since=20)
            wait_until(lambda: relayed(store, settings))
        assert second_told[-1]["event"] == "relays"
    with relaying(store, settings) as told:
        land(store, 20, since=40)
        wait_until(lambda: relayed(store, settings))
    assert_all_told(store, settings)
    assert count_on(str(settings.controlbus_brokers), settings.controlbus_topic) == 60


@pytest.mark.parametrize("whose", ["our limit", "the topic's"])
def test_an_event_that_the_topic_never_takes_is_a_dead_letter_and_holds_up_nobody(
    store: Store, settings: Settings, whose: str
) -> None:
    if whose == "the topic's" and not resolve_kafka().real:
        pytest.skip("the stand-in's topics have no limit of their own")
    topic = f"{settings.controlbus_topic}-small"
    less = settings.controlbus.model_copy(update={"max_event_bytes": 64 * 1024})
    small = settings.model_copy(update={"controlbus_topic": topic, "controlbus": less})
    assert asyncio.run(kafka.ensure_topic(small, topic))
    large = {f"S{n:05}": 1 / 4000 for n in range(4000)}
    store.land([accept(version="before"), accept(version="large", weights=large)])
    store.land([accept(version="after")])

    ours = (
        small if whose == "our limit" else settings.model_copy(update={"controlbus_topic": topic})
    )
    with relaying(store, ours):
        wait_until(lambda: relayed(store, ours))

    (letter,) = store.dead_letters(limit=10)
    assert (letter["handler"], letter["key"]) == (HANDLER, "equities")
    assert letter["raw"] == outbox(store)[1].cloud_event()
    told = first_told(all_on(str(ours.controlbus_brokers), topic))["equities"]
    assert [event.data["version"] for event in told] == ["before", "after"]


def test_a_database_that_is_away_is_waited_for(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(store, 10)
    away = threading.Event()
    away.set()
    read = store.events_after

    def events_after(*args: Any, **asked: Any) -> list[OutboxEvent]:
        if away.is_set():
            raise StoreUnavailable("the database can't be used now")
        return read(*args, **asked)

    monkeypatch.setattr(store, "events_after", events_after)
    with relaying(store, settings) as told:
        wait_until(lambda: any(line["event"] == "failed" for line in told))
        away.clear()
        wait_until(lambda: relayed(store, settings))
    assert_all_told(store, settings)


def impatient(broker: KafkaBroker) -> Settings:
    settings = Settings(controlbus_brokers=broker.bootstrap)
    quick = settings.controlbus.model_copy(update={"ack_timeout_sec": 1.0})
    return settings.model_copy(update={"controlbus": quick})


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_landings_go_on_without_the_broker_and_their_events_arrive_after(
    store: Store, kafka_broker: KafkaBroker
) -> None:
    settings = impatient(kafka_broker)
    with relaying(store, settings) as told:
        land(store, 30)
        wait_until(lambda: relayed(store, settings))
        kafka_broker.kill()
        for since in range(30, 90, 10):
            land(store, 10, since=since)
        wait_until(lambda: told[-1]["event"] == "failed")
        land(store, 30, since=90)
        kafka_broker.start()
        wait_until(lambda: relayed(store, settings), within_sec=60)
        assert told[-1]["event"] == "relays"
    assert_all_told(store, settings)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_a_relay_whose_brokers_are_silent_begins_anew_with_another_producer(
    store: Store, kafka_broker: KafkaBroker
) -> None:
    settings = impatient(kafka_broker)
    with relaying(store, settings) as told:
        land(store, 10)
        wait_until(lambda: relayed(store, settings))
        with kafka_broker.frozen():
            land(store, 10, since=10)
            wait_until(lambda: any(line.get("error") == "ProducerStuck" for line in told))
        wait_until(lambda: relayed(store, settings), within_sec=60)
    assert_all_told(store, settings)
