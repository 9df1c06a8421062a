"""An audit of a topic: what it lacks, says otherwise than the outbox, or has out of order."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import accept
from databases import migrate

from riskhub.audit.findings import Ledger
from riskhub.audit.look import Auditor, Scope
from riskhub.audit.topic import TopicReader
from riskhub.controlbus import kafka
from riskhub.controlbus.events import OutboxEvent
from riskhub.controlbus.relay import HANDLER
from riskhub.controlbus.replay import onto_topic
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing
from riskhub.store.scratch import seen_events

TOPIC = "events on the topic"


@pytest.fixture
def settings(tmp_path: Path, kafka_server: str, kafka_topic: str) -> Settings:
    return Settings(home=tmp_path, controlbus_brokers=kafka_server, controlbus_topic=kafka_topic)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """Three landings of one world."""
    with closing(Store(create_engine(settings.effective_database_url))) as opened:
        migrate(opened.engine)
        opened.land([accept(version=f"v{number}") for number in range(3)])
        yield opened


def tell(settings: Settings, events: Sequence[OutboxEvent]) -> None:
    with onto_topic(settings, settings.controlbus_topic) as emit:
        emit(events)


def told(store: Store) -> list[OutboxEvent]:
    return store.events_after(0, limit=10)


def audit(store: Store, settings: Settings) -> Ledger:
    scope = Scope(now=utc_now(), settle_sec=0.0)
    auditor = Auditor(store, None, scope, lambda *_: None)
    with seen_events() as seen:
        reader = TopicReader(seen, auditor.ledger, lambda *_: None)
        auditor.topic(seen, asyncio.run(reader.read(settings)))
    return auditor.ledger


def found(ledger: Ledger) -> dict[tuple[str, str], list[str]]:
    return {key: counted.examples for key, counted in ledger.findings.items()}


def test_a_topic_that_has_all_is_clean_also_where_it_has_it_twice(
    store: Store, settings: Settings
) -> None:
    tell(settings, told(store))
    assert found(audit(store, settings)) == {}
    tell(settings, told(store)[1:])
    ledger = audit(store, settings)
    assert found(ledger) == {}
    assert ledger.notes == ["the topic has 2 events more than once, as it may"]


def test_what_was_not_told_is_missing_unless_a_dead_letter_says_so(
    store: Store, settings: Settings
) -> None:
    first, second, third = told(store)
    tell(settings, [first, third])
    assert [*found(audit(store, settings))] == [(TOPIC, "missing")]
    letter: dict[str, Any] = {
        "handler": HANDLER, "event_id": second.id, "type": second.type, "key": second.key,
        "origin": "outbox 2", "reason": "too large", "attempts": 1, "raw": b"",
        "died_at": utc_now(),
    }  # fmt: skip
    store.add_dead_letters([letter])
    assert found(audit(store, settings)) == {}


def test_an_event_that_says_something_else_by_now_is_altered(
    store: Store, settings: Settings
) -> None:
    tell(settings, told(store))
    with writing(store.engine) as connection:
        connection.execute(
            sa.text("UPDATE snapshots SET body = replace(body, '0.5', '0.4') WHERE version = 'v1'")
        )
    assert [*found(audit(store, settings))] == [(TOPIC, "altered")]


def test_what_is_told_behind_a_later_event_is_out_of_order(
    store: Store, settings: Settings
) -> None:
    first, second, third = told(store)
    tell(settings, [first, third, second])
    [(key, examples)] = found(audit(store, settings)).items()
    assert key == (TOPIC, "altered")
    assert "v1 (2): out of order" in examples[0]


def test_records_of_others_are_noted(store: Store, settings: Settings) -> None:
    tell(settings, told(store))
    asyncio.run(_send(settings, b"not ours"))
    ledger = audit(store, settings)
    assert (found(ledger), ledger.notes) == ({}, ["1 records on the topic are not the hub's"])


async def _send(settings: Settings, raw: bytes) -> None:
    producer = kafka.producer(settings)
    await producer.start()
    try:
        await producer.send_and_wait(settings.controlbus_topic, raw)
    finally:
        await kafka.close_producer(producer)
