"""What tests are made of: a small valid snapshot to vary, a clock that stands still, patience."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from riskhub.snapshot import Snapshot, validate
from riskhub.strict_json import parse_json

WORLD, ACTOR, STAGE = "equities", "optimizer", "paper"
HEADERS = {"X-Actor": ACTOR, "X-Stage": STAGE}
NOW = datetime(2026, 1, 31, 21, 5, tzinfo=UTC)
ABSENT: Any = object()
"""As the value of an override: the document has no such field."""


def snapshot_document(**overrides: Any) -> dict[str, Any]:
    """A producer's valid document; each override sets a field, or takes it away (`ABSENT`)."""
    document = {
        "as_of": "2026-01-31T21:00:00Z",
        "version": "v1",
        "weights": {"BAC": 0.5, "JPM": 0.5},
    } | overrides
    return {field: value for field, value in document.items() if value is not ABSENT}


def raw_document(**overrides: Any) -> bytes:
    """`snapshot_document` as bytes on the wire."""
    return json.dumps(snapshot_document(**overrides)).encode()


def accept(
    document: dict[str, Any] | None = None,
    *,
    world_id: str | None = WORLD,
    actor: str = ACTOR,
    stage: str = STAGE,
    received_at: datetime = NOW,
    **overrides: Any,
) -> Snapshot:
    """The snapshot that the contract makes of a document, from its bytes on."""
    if document is None:
        document = snapshot_document(**overrides)
    return validate(
        parse_json(json.dumps(document).encode()),
        world_id=world_id,
        actor=actor,
        stage=stage,
        received_at=received_at,
    )


class Clock:
    """The hub's time, moved by the test alone."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def wait_until(condition: Callable[[], bool], *, within_sec: float = 30.0) -> None:
    """Return as soon as the condition holds; fail when it never does."""
    deadline = time.monotonic() + within_sec
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "what was waited for never came"
        pause.wait(0.01)
