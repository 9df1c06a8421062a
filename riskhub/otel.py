"""`riskhub.traces` by OpenTelemetry. Imported only when somebody collects."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from riskhub.traces import Origin, Told

_FLUSH_WITHIN_MS = 5_000
_MOST_LINKS = 128  # as the SDK keeps by default

Attributes = Mapping[str, str | int]


class _Ids(RandomIdGenerator):
    """Random ids, but for the next span of a thread where they are given."""

    def __init__(self) -> None:
        self._next = threading.local()

    def give(self, trace_id: int | None, span_id: int | None) -> None:
        self._next.trace_id, self._next.span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        given: int | None = getattr(self._next, "trace_id", None)
        return given or super().generate_trace_id()

    def generate_span_id(self) -> int:
        given: int | None = getattr(self._next, "span_id", None)
        return given or super().generate_span_id()


class Request:
    """The server span of a request, made when it ends: a landing may decide which trace it is in.

    One that came with a ``traceparent`` is in its caller's trace, whatever it lands.
    """

    def __init__(self, ids: _Ids, headers: Mapping[str, str]) -> None:
        self.started = time.time_ns()
        self.parent = TraceContextTextMapPropagator().extract(headers, Context())
        caller = trace.get_current_span(self.parent).get_span_context()
        self.from_caller = caller.is_valid
        self.trace_id = caller.trace_id if caller.is_valid else ids.generate_trace_id()
        self.flags = caller.trace_flags if caller.is_valid else TraceFlags(TraceFlags.SAMPLED)
        self.span_id = ids.generate_span_id()
        self.links: list[Link] = []
        self._settled = self.from_caller

    def adopt(self, origin: Origin) -> bool:
        """Be in the trace of a landing, unless it is in another already; whether it is."""
        if not self._settled:
            self._settled, self.trace_id = True, origin.trace_id
        return self.trace_id == origin.trace_id

    @property
    def context(self) -> SpanContext:
        """Of its span."""
        return SpanContext(self.trace_id, self.span_id, is_remote=False, trace_flags=self.flags)


class Otel:
    """What takes spans, and sends them to the collector of the environment."""

    def __init__(self, service: str) -> None:
        self._ids = _Ids()
        name = os.environ.get("OTEL_SERVICE_NAME") or f"riskhub-{service}"
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name}), id_generator=self._ids
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("riskhub")

    def flush(self) -> None:
        """Send what has not been sent."""
        self._provider.force_flush(_FLUSH_WITHIN_MS)

    # -- the API ----------------------------------------------------------------------------------

    def request(self, headers: Mapping[str, str]) -> Request:
        """A request has begun."""
        return Request(self._ids, headers)

    def answered(
        self, request: Request, name: str, attributes: Attributes, error: BaseException | None
    ) -> None:
        """It has ended."""
        self._ids.give(request.trace_id, request.span_id)
        try:
            span = self._tracer.start_span(
                name,
                request.parent,
                kind=SpanKind.SERVER,
                attributes=dict(attributes),
                links=request.links[:_MOST_LINKS],
                start_time=request.started,
            )
        finally:
            self._ids.give(None, None)
        if error is not None:
            # Not what it says: it may quote a payload.
            span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
        elif int(attributes.get("http.response.status_code", 0)) >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def landed(
        self, request: Request, event_id: str, started: int, attributes: Attributes, *, new: bool
    ) -> None:
        """A snapshot has landed in a request; of one that is not new, that it was offered again."""
        origin = Origin.of(event_id)
        if not new:
            request.links.append(Link(self._context_of(origin)))
            return
        inside = request.adopt(origin)
        if inside and not request.from_caller:
            request.flags = self._context_of(origin).trace_flags
        parent = trace.set_span_in_context(trace.NonRecordingSpan(request.context), Context())
        links = [] if inside else [Link(request.context)]
        if not inside:
            request.links.append(Link(self._context_of(origin)))
        self._ids.give(origin.trace_id, origin.span_id)
        try:
            span = self._tracer.start_span(
                "land",
                parent if inside else Context(),
                attributes={**attributes, "event.id": event_id},
                links=links,
                start_time=started,
            )
        finally:
            self._ids.give(None, None)
        span.end()

    # -- loops ------------------------------------------------------------------------------------

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        """See `riskhub.traces.span`."""
        with self._tracer.start_as_current_span(name, attributes=dict(attributes)):
            yield

    @contextmanager
    def of_events(self, name: str, events: Sequence[Told]) -> Iterator[None]:
        """See `riskhub.traces.of_events`."""
        origins = [Origin.of(event.correlation_id) for event in events]
        links = [Link(self._context_of(origin)) for origin in origins[:_MOST_LINKS]]
        started = time.time_ns()
        failure: BaseException | None = None
        with self._tracer.start_as_current_span(
            f"{name} batch", attributes={"events": len(events)}, links=links
        ) as batch:
            try:
                yield
            except BaseException as error:
                failure = error
                raise
            finally:
                ended = time.time_ns()
                for event, origin in zip(events, origins, strict=True):
                    of_batch = [Link(batch.get_span_context())]
                    self._of_event(name, event, origin, (started, ended), of_batch, failure)

    def _of_event(
        self,
        name: str,
        event: Told,
        origin: Origin,
        times: tuple[int, int],
        links: list[Link],
        failure: BaseException | None,
    ) -> None:
        started, ended = times
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(trace.NonRecordingSpan(self._context_of(origin)), Context()),
            kind=SpanKind.CONSUMER,
            attributes=_named(event),
            links=links,
            start_time=started,
        )
        if failure is not None:
            span.record_exception(failure, timestamp=ended)
            span.set_status(Status(StatusCode.ERROR, type(failure).__qualname__))
        span.end(ended)

    def traceparent(self, event: Told) -> bytes:
        """Of an event, for the headers that it travels with; the same each time."""
        context = self._context_of(Origin.of(event.correlation_id))
        ids = f"{context.trace_id:032x}-{context.span_id:016x}"
        return f"00-{ids}-{context.trace_flags:02x}".encode()

    def _context_of(self, origin: Origin) -> SpanContext:
        """That of a landing's span; all processes come to the same decision whether it is kept."""
        decision = self._provider.sampler.should_sample(Context(), origin.trace_id, "land").decision
        kept = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags.SAMPLED if kept else TraceFlags.DEFAULT
        return SpanContext(
            origin.trace_id, origin.span_id, is_remote=True, trace_flags=TraceFlags(flags)
        )


def _named(event: Told) -> dict[str, str]:
    world, _, version = event.subject.partition("/")
    return {
        "risk.world": world or event.key,
        "risk.version": version,
        "event.id": event.id,
        "event.correlation_id": event.correlation_id,
    }
