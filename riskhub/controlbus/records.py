"""What passes between a bus and a worker: records, and those that are given up on."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What a bus has delivered: a CloudEvent, if all is well.

    Attributes:
        key: what it is kept in order by.
        origin: where it lies, such as ``outbox 7`` or ``risk-hub.controlbus 3/41``: of what is sent
            again another one.
    """

    raw: bytes = field(repr=False)
    key: str
    origin: str
    headers: Headers = ()


def storable(text: str) -> str:
    """A text that every database and UTF-8 take, with a mark for what they don't."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that was given up on: a dead letter.

    Attributes:
        handler: that failed; empty when the record is no event.
        event_id: empty when it is none.
        attempts: how often it was tried.
    """

    record: Record
    handler: str
    event_id: str
    type: str
    reason: str
    attempts: int
    died_at: datetime

    def row(self) -> dict[str, Any]:
        """As one of `dead_letters`."""
        return {
            "handler": self.handler,
            "event_id": self.event_id,
            "type": self.type[:64],
            "key": self.record.key[:255],
            "origin": self.record.origin,
            "reason": self.reason,
            "attempts": self.attempts,
            "raw": self.record.raw,
            "died_at": self.died_at,
        }
