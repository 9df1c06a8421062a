"""What is wrong with an event of the outbox, by itself. Pure.

All that an event has beside its data follows from that: key, subject, id, correlation id, time. Of
numbers and violations the id follows from every byte of the data, too; of the others what can be
altered unseen is held against the row that the event tells of.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from riskhub.audit.findings import Finding
from riskhub.controlbus.events import (
    BUDGET_VIOLATION,
    EXIT_SIGNAL,
    METRICS_UPDATED,
    SNAPSHOT_QUARANTINED,
    SNAPSHOT_UPDATED,
    OutboxEvent,
    id_of,
    landing_id,
    landing_key,
)
from riskhub.digests import canonical_json, digest
from riskhub.snapshot import parse_instant

Data = Mapping[str, Any]

_ADDED_TO_EVENTS = ("event_version", "idempotency_key", "correlation_id")


@dataclass(frozen=True, slots=True)
class _Told:
    """What an event has beside its data, as its data has it. None: it does not say."""

    key: str
    subject: str
    idempotency_key: str
    occurred_at: datetime | None = None
    correlation_id: str | None = None


def content_of(data: Data) -> dict[str, Any]:
    """What an event tells of: its data without what each event has."""
    return {name: value for name, value in data.items() if name not in _ADDED_TO_EVENTS}


def event_findings(event: OutboxEvent) -> Iterator[Finding]:
    """Whether an event of the outbox is the one that its id says."""
    try:
        data = json.loads(event.data)
        key = data["idempotency_key"]
    except (ValueError, KeyError, TypeError):
        yield _altered(event, "its data can't be read")
        return
    if id_of(key) != event.id:
        yield _altered(event, "another one's key")
        return
    try:
        told = _TOLD[event.type](data)
    except KeyError as error:  # of the type, or of the data
        yield _altered(event, f"there is no {error}")
        return
    except (TypeError, ValueError) as error:
        yield _altered(event, f"its data can't be read: {error}")
        return
    if told.idempotency_key != key:
        yield _altered(event, "other data")
    elif (told.key, told.subject) != (event.key, event.subject):
        yield _altered(event, f"told of {event.key}, its data of {told.subject}")
    elif told.occurred_at is not None and told.occurred_at != event.occurred_at:
        yield _altered(event, "of another time")
    elif {event.correlation_id, data.get("correlation_id")} != {told.correlation_id or event.id}:
        yield _altered(event, "goes back to another event")


def _altered(event: OutboxEvent, why: str) -> Finding:
    return Finding("events", "altered", f"{event.id} of {event.subject}: {why}")


def _digest_of(data: Data) -> str:
    return digest(canonical_json(content_of(data)))


def _of_landing(data: Data) -> _Told:
    world_id, version, hash_ = data["world_id"], data["version"], data["hash"]
    key = landing_key(world_id, version, hash_)
    return _Told(world_id, f"{world_id}/{version}", key)


def _of_quarantine(data: Data) -> _Told:
    world_id, version, hash_, since = (
        data[name] for name in ("world_id", "version", "hash", "since")
    )
    return _Told(
        world_id,
        f"{world_id}/{version}",
        f"{SNAPSHOT_QUARANTINED}:{world_id}:{hash_}:{version}:{since}",
        parse_instant(since),
        landing_id(world_id, version, hash_),
    )


def _of_numbers(data: Data) -> _Told:
    world_id, version, hash_ = data["world_id"], data["version"], data["hash"]
    return _Told(
        world_id,
        f"{world_id}/{version}",
        f"{METRICS_UPDATED}:{world_id}:{hash_}:{version}:{_digest_of(data)}",
        correlation_id=landing_id(world_id, version, hash_),
    )


def _of_violation(data: Data) -> _Told:
    symbol, at = data["symbol"], data["at"]
    key = f"{BUDGET_VIOLATION}:{symbol}:{at}:{_digest_of(data)}"
    return _Told(symbol, symbol, key, parse_instant(at))


def _of_signal(data: Data) -> _Told:
    world_id, subject = data["world_id"], f"{data['world_id']}/{data['rule']}"
    key = f"{EXIT_SIGNAL}:{data['signal_id']}"
    return _Told(world_id, subject, key, parse_instant(data["at"]))


_TOLD: Mapping[str, Callable[[Data], _Told]] = {
    SNAPSHOT_UPDATED: _of_landing,
    SNAPSHOT_QUARANTINED: _of_quarantine,
    METRICS_UPDATED: _of_numbers,
    BUDGET_VIOLATION: _of_violation,
    EXIT_SIGNAL: _of_signal,
}
