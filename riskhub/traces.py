"""Traces of a snapshot's way through the processes; nothing at all unless somebody collects them.

They are on when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and ``riskhub[otel]`` is installed; only
then is OpenTelemetry imported by us. A landing's trace id, and the id of its first span, follow
from the id of its event, which each later event names as its correlation id. So each process finds
the trace by the event alone: the outbox, and the bytes of events, hold nothing of it.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from riskhub.otel import Otel

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_logger = logging.getLogger(__name__)
_on: "Otel | None" = None


class Told(Protocol):
    """An event, of the outbox or from a bus."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the trace of a landing begins."""

    trace_id: int
    span_id: int

    @classmethod
    def of(cls, event_id: str) -> "Origin":
        """That of the landing with this event. Hashed, as samplers take ids to be random."""
        hashed = sha256(event_id.encode()).digest()
        return cls(int.from_bytes(hashed[:16]), int.from_bytes(hashed[16:24]))


def configure(service: str) -> None:
    """Have this process tell its spans, if somebody collects them.

    Args:
        service: what it is, such as ``worker``; ``OTEL_SERVICE_NAME`` comes before.
    """
    global _on  # noqa: PLW0603 - a process has one
    if _on is not None or not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from riskhub.otel import Otel  # noqa: PLC0415 - an extra
    except ImportError:
        _logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and riskhub[otel] is not installed")
        return
    _on = Otel(service)


def traces() -> "Otel | None":
    """What takes spans; None when nobody collects them."""
    return _on


def flush() -> None:
    """Tell what has not been told yet."""
    if _on is not None:
        _on.flush()


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """A span of this process around what is done in it, under that which it is in."""
    if _on is None:
        yield
    else:
        with _on.span(name, attributes):
            yield


@contextmanager
def of_events(name: str, events: Sequence[Told]) -> Iterator[None]:
    """What is done for a batch of events: a span of it, and one in the trace of each event."""
    if _on is None:
        yield
    else:
        with _on.of_events(name, events):
            yield
