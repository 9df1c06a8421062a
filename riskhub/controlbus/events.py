"""The form of events: CloudEvents 1.0, structured JSON. Pure.

The outbox keeps what is needed to tell an event again in the same bytes: its `id` follows from what
it is about, so it is the same whoever tells it and however often. `sequence` is the order in which
what it tells of was committed; of one world it is the order on the bus, too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from riskhub.digests import canonical_json, digest
from riskhub.errors import RiskHubError
from riskhub.snapshot import format_instant, parse_instant

SNAPSHOT_UPDATED = "risk_snapshot_updated"
SNAPSHOT_QUARANTINED = "snapshot_quarantined"
METRICS_UPDATED = "risk_metrics_updated"
BUDGET_VIOLATION = "budget_violation"
EXIT_SIGNAL = "exit_signal"
TYPES = (SNAPSHOT_UPDATED, SNAPSHOT_QUARANTINED, METRICS_UPDATED, BUDGET_VIOLATION, EXIT_SIGNAL)

EVENT_VERSION = 1
LONGEST_ID = 255
SOURCE = "/risk-hub"
CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"

_IDS = bytes.fromhex("6f1f6f0e5c0e5b5e9d531f2a7f6a3c10")  # any constant does; it must stay


class EventMalformed(RiskHubError):
    """What came from the bus is no CloudEvent of the hub."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be put into the outbox, in the transaction that does what it tells of.

    Attributes:
        type: one of `TYPES`, but for `SNAPSHOT_UPDATED`, which follows from its landing.
        key: what is kept in order: the world, or the symbol of a budget.
        subject: what it is about, such as ``world/version``.
        idempotency_key: the same for what is the same; it decides the event's id.
        occurred_at: UTC.
        data: JSON values, without what `stored_data` adds.
        position: the landing that it is about, if it is about one: it goes when that goes.
        correlation_id: of the event that all this goes back to; None is itself.
    """

    type: str
    key: str
    subject: str
    idempotency_key: str
    occurred_at: datetime
    data: Mapping[str, Any]
    position: int | None = None
    correlation_id: str | None = None

    @property
    def id(self) -> str:
        """The same for the same `idempotency_key`."""
        return id_of(self.idempotency_key)

    def stored_data(self) -> str:
        """Its data as JSON, with the fields that each event has."""
        return canonical_json(
            {
                **self.data,
                "event_version": EVENT_VERSION,
                "idempotency_key": self.idempotency_key,
                "correlation_id": self.correlation_id or self.id,
            }
        ).decode("ascii")


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event as the outbox has it: enough for its CloudEvent.

    `data` is JSON. `key`, `subject` and `correlation_id` as of `NewEvent`.
    """

    sequence: int
    type: str
    key: str
    id: str
    subject: str
    occurred_at: datetime
    correlation_id: str
    data: str

    def cloud_event(self) -> bytes:
        """The CloudEvent; the same bytes each time."""
        attributes = (
            '{"specversion":"1.0",'
            f'"id":"{self.id}","source":"{SOURCE}","type":"{self.type}",'
            f'"subject":{json.dumps(self.subject)},"time":"{format_instant(self.occurred_at)}",'
            f'"datacontenttype":"application/json","dataschema":"{schema_of(self.type)}",'
            f'"partitionkey":{json.dumps(self.key)},"correlationid":"{self.correlation_id}",'
            f'"sequence":"{self.sequence}","data":'
        )
        return f"{attributes}{self.data}}}".encode("ascii")


@dataclass(frozen=True, slots=True)
class Event:
    """An event as a consumer gets it.

    Attributes:
        raw: the CloudEvent as it came.
        sequence: of the outbox it comes from.
    """

    id: str
    type: str
    key: str
    subject: str
    time: datetime
    correlation_id: str
    sequence: int
    data: Mapping[str, Any]
    raw: bytes = field(repr=False)

    @property
    def idempotency_key(self) -> str:
        """What consumers dedupe by."""
        return str(self.data["idempotency_key"])

    def named(self) -> dict[str, str]:
        """What a log line about it names it by."""
        return {
            "event_id": self.id,
            "world": self.key,
            "subject": self.subject,
            "correlation_id": self.correlation_id,
        }


def id_of(idempotency_key: str) -> str:
    """The id of the event with this key: a UUID (version 5), always the same one."""
    # As `uuid.uuid5`, in a quarter of its time: a relay needs tens of thousands a second.
    hashed = hashlib.sha1(_IDS + idempotency_key.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(hashed[16], 16) & 3]
    return f"{hashed[:8]}-{hashed[8:12]}-5{hashed[13:16]}-{variant}{hashed[17:20]}-{hashed[20:32]}"


def schema_of(event_type: str) -> str:
    """The name of the schema of such an event's data, as in ``docs/schemas``."""
    return f"urn:riskhub:schema:{event_type}:{EVENT_VERSION}"


def landing_key(world_id: str, version: str, snapshot_digest: str) -> str:
    """The idempotency key of a landing's event."""
    return f"{SNAPSHOT_UPDATED}:{world_id}:{snapshot_digest}:{version}"


def landing_id(world_id: str, version: str, snapshot_digest: str) -> str:
    """The id of a landing's event, which is the correlation id of all that is made from it."""
    return id_of(landing_key(world_id, version, snapshot_digest))


def landing_event(
    sequence: int, world_id: str, version: str, received_at: datetime, hash_: str, body: str
) -> OutboxEvent:
    """The event of a landing: its data is the stored snapshot, byte for byte, and a little more."""
    key = landing_key(world_id, version, hash_)
    event_id = id_of(key)
    added = (
        f',"event_version":{EVENT_VERSION},"idempotency_key":{json.dumps(key)},'
        f'"correlation_id":"{event_id}"}}'
    )
    return OutboxEvent(
        sequence=sequence,
        type=SNAPSHOT_UPDATED,
        key=world_id,
        id=event_id,
        subject=f"{world_id}/{version}",
        occurred_at=received_at,
        correlation_id=event_id,
        data=body[:-1] + added,
    )


def quarantined(row: Mapping[str, Any], now: datetime) -> NewEvent:
    """A snapshot has entered the quarantine. `row` is one of `validated_snapshots`."""
    world_id, version, snapshot_digest = row["world_id"], row["version"], row["digest"]
    entered = f"{snapshot_digest}:{version}:{format_instant(now)}"
    return NewEvent(
        type=SNAPSHOT_QUARANTINED,
        key=world_id,
        subject=f"{world_id}/{version}",
        idempotency_key=f"{SNAPSHOT_QUARANTINED}:{world_id}:{entered}",
        occurred_at=now,
        data={
            "world_id": world_id,
            "version": version,
            "as_of": format_instant(row["as_of"]),
            "stage": row["stage"],
            "hash": snapshot_digest,
            "reasons": list(row["reasons"]),
            "since": format_instant(now),
        },
        position=row["position"],
        correlation_id=landing_id(world_id, version, snapshot_digest),
    )


def metrics_updated(
    metrics: Mapping[str, Any], tails: Sequence[Mapping[str, Any]], now: datetime
) -> NewEvent:
    """A snapshot has risk numbers, or others than before.

    The same numbers are the same event, whoever computed them.

    Args:
        metrics: a row of `risk_metrics`.
        tails: its rows of `risk_tails`.
        now: when they were computed, UTC.
    """
    world_id, version, snapshot_digest = (
        metrics["world_id"], metrics["version"], metrics["snapshot_digest"],
    )  # fmt: skip
    data = {
        "world_id": world_id,
        "version": version,
        "as_of": format_instant(metrics["as_of"]),
        "stage": metrics["stage"],
        "hash": snapshot_digest,
        "horizon_days": metrics["horizon_days"],
        "window": metrics["window"],
        "n": metrics["n"],
        "volatility": metrics["volatility"],
        "current_drawdown": metrics["current_drawdown"],
        "max_drawdown": metrics["max_drawdown"],
        "unavailable": metrics["unavailable"],
        "returns_digest": metrics["returns_digest"],
        "covariance_digest": metrics["covariance_digest"],
        "code_version": metrics["code_version"],
        "tails": [
            {name: tail[name] for name in ("method", "level", "var", "es", "source")}
            for tail in tails
        ],
    }
    numbers = digest(canonical_json(data))
    return NewEvent(
        type=METRICS_UPDATED,
        key=world_id,
        subject=f"{world_id}/{version}",
        idempotency_key=f"{METRICS_UPDATED}:{world_id}:{snapshot_digest}:{version}:{numbers}",
        occurred_at=now,
        data=data,
        position=metrics["position"],
        correlation_id=landing_id(world_id, version, snapshot_digest),
    )


def violation(row: Mapping[str, Any]) -> NewEvent:
    """An order was over its budget. `row` is one of `budget_violations`, without its id."""
    at = format_instant(row["at"])
    data = {name: row[name] for name in _OF_VIOLATION} | {"at": at}
    return NewEvent(
        type=BUDGET_VIOLATION,
        key=row["symbol"],
        subject=row["symbol"],
        idempotency_key=f"{BUDGET_VIOLATION}:{row['symbol']}:{at}:{digest(canonical_json(data))}",
        occurred_at=row["at"],
        data=data,
    )


_OF_VIOLATION = ("symbol", "position_notional", "budget_usd", "over_budget", "mode")


def parse(raw: bytes) -> Event:
    """A CloudEvent of the hub, as it came from the bus.

    Fields that this version does not know are kept in `data` and do no harm.

    Raises:
        EventMalformed: naming what is wrong.
    """
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise EventMalformed(f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise EventMalformed("is not a JSON object")
    if document.get("specversion") != "1.0":
        raise EventMalformed("specversion: must be 1.0")
    for name in ("id", "type", "source", "time"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise EventMalformed(f"{name}: is missing")
    if len(document["id"]) > LONGEST_ID or not document["id"].isprintable():
        raise EventMalformed(f"id: is not 1 to {LONGEST_ID} printable characters")
    data = document.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("idempotency_key"), str):
        raise EventMalformed("data.idempotency_key: is missing")
    if not isinstance(version := data.get("event_version"), int) or version < 1:
        raise EventMalformed("data.event_version: must be a whole number from 1 on")
    try:
        time = parse_instant(document["time"])
    except ValueError as error:
        raise EventMalformed(f"time: {error}") from error
    sequence = document.get("sequence", "0")
    if not isinstance(sequence, str) or not sequence.isascii() or not sequence.isdigit():
        raise EventMalformed("sequence: must be the digits of a number")
    return Event(
        id=document["id"],
        type=document["type"],
        key=str(document.get("partitionkey", data.get("world_id", ""))),
        subject=str(document.get("subject", "")),
        time=time,
        correlation_id=str(document.get("correlationid", document["id"])),
        sequence=int(sequence),
        data=data,
        raw=raw,
    )
