"""What a worker tells Prometheus: one verb for each thing that happens."""

from collections.abc import Collection, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from riskhub.controlbus.events import Event

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)


class WorkerMetrics:
    """The metrics of one worker. Safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Make the metrics.

        Args:
            registry: without one, a new one.
        """
        self.registry = registry or CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        self._processed = counter(
            "risk_hub_snapshot_processed_total", "Events that handlers did something for."
        )
        self._failed = counter(
            "risk_hub_snapshot_failed_total", "Tries to handle an event that failed."
        )
        self._retried = counter(
            "risk_hub_snapshot_retry_total", "Tries to handle an event that had failed before."
        )
        self._died = counter("risk_hub_snapshot_dlq_total", "Dead letters.")
        self._passed_over = counter(
            "riskhub_worker_passed_over_total", "Events that nothing was done for.", "reason"
        )
        self._outages = counter(
            "riskhub_worker_outages_total", "Batches that wait for something that is away."
        )
        self._lag = Gauge(
            "riskhub_worker_lag_events",
            "Events that lie before this worker.",
            ("part",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "riskhub_worker_event_seconds",
            "From what an event tells of to its being handled.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        # A series that begins at 1 has no increase.
        self._passed_over.labels("duplicate")

    def processed(self, events: Collection[Event], now: datetime) -> None:
        """Handlers have done something for these."""
        self._processed.inc(len(events))
        for event in events:
            self._seconds.observe(max(0.0, (now - event.time).total_seconds()))

    def failed(self) -> None:
        """An event, alone, could not be handled."""
        self._failed.inc()

    def retried(self) -> None:
        """An event that had failed was tried again."""
        self._retried.inc()

    def died(self, count: int) -> None:
        """So many were given up on."""
        self._died.inc(count)

    def passed_over(self, reason: str, count: int) -> None:
        """Nothing was to be done for so many. The reason is a word of ours or a handler's."""
        if count:
            self._passed_over.labels(reason).inc(count)

    def waits(self) -> None:
        """A batch waits for something that is away."""
        self._outages.inc()

    def lag(self, by_part: Mapping[str, int]) -> None:
        """So many events lie before this worker; parts that it has no more are left out."""
        self._lag.clear()
        for part, count in by_part.items():
            self._lag.labels(part).set(count)
