"""Telling a world's landings again: in landing order, with their ids, and only what verifies.

Of each landing the digest of the stored body is checked, with what its references stand for as the
blob store has it. What does not verify, and does not when it is read once more, is a dead letter
and not told.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from riskhub.controlbus import kafka
from riskhub.controlbus.events import CONTENT_TYPE, OutboxEvent, landing_id
from riskhub.controlbus.records import Letter, Record
from riskhub.controlbus.relay import BATCH_BYTES
from riskhub.digests import verify_digest
from riskhub.errors import BlobUnusable, RiskHubError
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store

HANDLER = "replay"
"""Whose dead letters are events that do not verify."""

_PAGE = 500
_HEADERS = [("content-type", CONTENT_TYPE.encode())]
_ADDED = frozenset({"event_version", "idempotency_key", "correlation_id"})

Emit = Callable[[Sequence[OutboxEvent]], int]
"""Tells events again; gives how many."""


class NotTold(RiskHubError):
    """The brokers have not taken what was to be told again; it is safe to begin anew."""


@dataclass(slots=True)
class Replayed:
    """How many events were told again, and which were not."""

    told: int = 0
    dead: list[Letter] = field(default_factory=list)


def replay(
    hub: Hub,
    world_id: str,
    first: date,
    last: date,
    emit: Emit,
    *,
    dry_run: bool = False,
    advanced: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Tell the landings of a world again whose `as_of` lies on the UTC days `first` to `last`.

    Args:
        dry_run: only check; tell nothing, and write nothing down.
        advanced: is told how many landings were gone through.

    Raises:
        BlobsUnavailable, StoreUnavailable, NotTold: what was told stays told.
    """
    done, gone_through, after = Replayed(), 0, 0
    since = datetime.combine(first, time(), tzinfo=UTC)
    before = datetime.combine(last, time(), tzinfo=UTC) + timedelta(days=1)
    while page := hub.store.landing_events(
        world_id, since=since, before=before, after=after, limit=_PAGE
    ):
        sound, dead = _sorted_out(hub, page)
        if dry_run:
            done.told += len(sound)
        else:
            hub.store.add_dead_letters([letter.row() for letter in dead])
            done.told += emit(sound) if sound else 0
            # What died in an earlier replay, and verifies now, is seen to.
            hub.store.remove_dead_letters(HANDLER, [event.id for event in sound])
        done.dead += dead
        gone_through += len(page)
        after = page[-1].sequence
        advanced(gone_through)
    return done


def into_outbox(store: Store) -> Emit:
    """Puts events into the outbox once more, for whoever reads it."""
    return lambda events: store.repeat_events([event.sequence for event in events])


@contextmanager
def onto_topic(settings: Settings, topic: str) -> Iterator[Emit]:
    """Sends events straight to a topic, which is made where there is none.

    Raises:
        NoBrokers: there is no setting that names any.
        NotTold: they can't be reached, or don't take an event; also while telling.
    """
    with asyncio.Runner() as runner:
        try:
            producer = runner.run(_started(settings, topic))
        except (KafkaError, OSError) as error:
            raise NotTold(f"Kafka: {error}") from error
        try:
            yield lambda events: runner.run(
                _send(producer, topic, events, settings.controlbus.ack_timeout_sec)
            )
        finally:
            runner.run(kafka.close_producer(producer))


async def _started(settings: Settings, topic: str) -> AIOKafkaProducer:
    await kafka.ensure_topic(settings, topic)
    return await kafka.start_producer(settings)


async def _send(
    producer: AIOKafkaProducer, topic: str, events: Sequence[OutboxEvent], within_sec: float
) -> int:
    sent: list[asyncio.Future[Any]] = []
    size = 0
    try:
        for event in events:
            raw = event.cloud_event()
            if size + len(raw) > BATCH_BYTES and sent:
                await _acknowledged(sent, within_sec)
                sent, size = [], 0
            key = event.key.encode()
            sent.append(await producer.send(topic, raw, key=key, headers=_HEADERS))
            size += len(raw)
        await _acknowledged(sent, within_sec)
    except (KafkaError, OSError) as error:
        raise NotTold(f"topic {topic} does not take events: {error}") from error
    return len(events)


async def _acknowledged(sent: Sequence["asyncio.Future[Any]"], within_sec: float) -> None:
    """Wait for the brokers; what they took of one world is in order, in its one partition."""
    try:
        async with asyncio.timeout(within_sec):
            await asyncio.gather(*sent)
    except TimeoutError as error:
        raise NotTold(f"no broker has acknowledged events in {within_sec:g} s") from error


def _sorted_out(hub: Hub, events: Sequence[OutboxEvent]) -> tuple[list[OutboxEvent], list[Letter]]:
    sound: list[OutboxEvent] = []
    dead: list[Letter] = []
    for event in events:
        if _why_not(hub, event) is None:
            sound.append(event)
            continue
        # What was read wrong may be read right.
        for again in hub.store.events_after(event.sequence - 1, limit=1, up_to=event.sequence):
            why = _why_not(hub, again)
            if why is None:
                sound.append(again)
            else:
                dead.append(_letter(again, why, hub))
    return sound, dead


def _why_not(hub: Hub, event: OutboxEvent) -> str | None:
    """Why an event does not tell what landed; None when it does."""
    try:
        data = json.loads(event.data)
    except ValueError:
        return "the stored body is not JSON"
    body = {name: value for name, value in data.items() if name not in _ADDED}
    try:
        resolved = hub.resolve(body)
    except BlobUnusable as error:
        return str(error)
    if not verify_digest(body, resolved):
        return f"the stored body does not have the digest that it names, {body.get('hash')}"
    if event.id != landing_id(str(body.get("world_id")), str(body.get("version")), body["hash"]):
        return "the stored body is not the one that landed"
    return None


def _letter(event: OutboxEvent, why: str, hub: Hub) -> Letter:
    return Letter(
        record=Record(event.cloud_event(), event.key, f"outbox {event.sequence}"),
        handler=HANDLER,
        event_id=event.id,
        type=event.type,
        reason=why,
        attempts=2,
        died_at=hub.clock(),
    )
