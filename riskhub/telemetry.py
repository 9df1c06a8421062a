"""What the hub tells Prometheus: one verb for each thing that happens.

Counting is cheap: the child of a metric is looked up once and kept. Labels are bounded: of worlds
only the first few that were counted have labels of their own, the rest share `OTHER`; nothing that
a client can choose freely is ever a label.

An API of several processes has one page of metrics. Each worker counts in files of its own, in a
directory that they share (`share`), and whoever is scraped adds them up.
"""

import fcntl
import itertools
import os
import threading
from collections import Counter as Counts
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    values,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from riskhub.exposition import render
from riskhub.freshness import Freshness, WorldFreshness, worst_first

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "_other"

LandingOutcome = Literal["created", "duplicate", "conflict", "refused"]
CacheOutcome = Literal["hit", "miss", "failure"]
BlobFailure = Literal["missing", "altered", "unavailable", "refused"]

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LATENCY_SEC = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_M = TypeVar("_M", bound=MetricWrapperBase)

# A second series for each counter, with the time of its birth, which nobody here looks at.
disable_created_metrics()  # type: ignore[no-untyped-call]


def share(directory: Path | None) -> None:
    """Say before the first `Telemetry` is made where this process counts.

    Args:
        directory: that of the workers of one server, empty when the server starts; each takes a
            free place in it and holds it until it dies. Its successor takes the place over and
            counts on in the same files, so counters never go back and files don't pile up. None:
            this process alone, in memory.
    """
    if directory is None:
        os.environ.pop(_DIRECTORY, None)
        values.ValueClass = values.MutexValue
        return
    place = next(place for place in itertools.count() if _takes(directory, place))
    os.environ[_DIRECTORY] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def _takes(directory: Path, place: int) -> bool:
    # Not closed once it is ours: the system lets go of the lock when we die, however we die.
    lock = os.open(directory / f"{place}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


class _AllWorkers(Collector):
    """The sum of what all workers of a server, dead or alive, have counted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        # A file that a worker is about to lay out is still empty, and can't be read.
        files = [str(path) for path in self._directory.glob("*.db") if path.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


class _Children(dict[tuple[object, ...], _M]):
    """The children of a metric by their labels: `labels()` takes a lock and makes strings."""

    def __init__(self, metric: _M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[object, ...]) -> _M:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Telemetry:
    """The metrics of one process. Safe to use from several threads."""

    def __init__(
        self, *, max_worlds: int = 1000, registry: CollectorRegistry | None = None
    ) -> None:
        """Make the metrics.

        Args:
            max_worlds: so many pairs of world and stage have labels of their own.
            registry: which must not have metrics of these names yet; without one, a new one.
        """
        registry = registry or CollectorRegistry()
        directory = os.environ.get(_DIRECTORY)
        self._counted = _AllWorkers(Path(directory)) if directory else registry
        self._max_worlds = max_worlds
        self._worlds: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=registry)

        world = ("world_id", "stage")
        self._deduped = _Children(
            counter("risk_hub_snapshot_dedupe_total", "Snapshots posted again, unchanged.", *world)
        )
        self._expired = _Children(
            counter(
                "risk_hub_snapshot_expired_total",
                "Reads of latest that found only snapshots whose ttl_sec had run out.",
                *world,
            )
        )
        self._missing = counter(
            "risk_hub_snapshot_missing_total", "Reads of latest that found nothing."
        )
        self._processed = counter("risk_hub_snapshot_processed_total", "Snapshots that landed.")
        self._failed = counter(
            "risk_hub_snapshot_failed_total", "Posts that failed for a reason of the hub's own."
        )
        self._landings = _Children(
            counter("riskhub_landings_total", "Posted snapshots by what became of them.", "outcome")
        )
        self._groups = Histogram(
            "riskhub_group_commit_snapshots",
            "Snapshots that shared one transaction.",
            buckets=_GROUP_SIZES,
            registry=registry,
        )
        self._requests = _Children(
            counter(
                "riskhub_http_requests_total", "Answered requests.", "route", "method", "status"
            )
        )
        self._seconds = _Children(
            Histogram(
                "riskhub_http_request_seconds",
                "From a request's head to the last byte of its answer.",
                ("route", "method"),
                buckets=_LATENCY_SEC,
                registry=registry,
            )
        )
        self._cache = _Children(
            counter("riskhub_cache_lookups_total", "Looks into a cache.", "level", "outcome")
        )
        self._blob_failures = _Children(
            counter("riskhub_blob_failures_total", "Blobs that could not be had.", "kind")
        )
        self._auth_failures = _Children(
            counter("riskhub_auth_failures_total", "Requests without the right token.", "reason")
        )
        # A series that begins at 1 has no increase: what can be known beforehand begins at 0.
        for outcome in get_args(LandingOutcome):
            _ = self._landings[outcome,]
        for kind in get_args(BlobFailure):
            _ = self._blob_failures[kind,]

    def landed(self, world_id: str, stage: str) -> None:
        """A snapshot was stored for the first time."""
        self._processed.inc()
        self._landings["created",].inc()
        self._pair(world_id, stage)

    def deduped(self, world_id: str, stage: str) -> None:
        """The same snapshot was posted again."""
        self._landings["duplicate",].inc()
        self._deduped[self._pair(world_id, stage)].inc()

    def conflicted(self) -> None:
        """A stored version was posted with other content."""
        self._landings["conflict",].inc()

    def refused(self) -> None:
        """A post broke the contract."""
        self._landings["refused",].inc()

    def failed(self) -> None:
        """A post failed for a reason of the hub's own, such as its database."""
        self._failed.inc()

    def missing(self) -> None:
        """A read of latest found nothing."""
        self._missing.inc()

    def expired(self, world_id: str, stage: str) -> None:
        """A read of latest found only expired snapshots. The world must be one that landed."""
        self._expired[self._pair(world_id, stage)].inc()

    def group(self, size: int) -> None:
        """So many snapshots shared one transaction."""
        self._groups.observe(size)

    def cache(self, level: str, outcome: CacheOutcome) -> None:
        """A look into the cache of this level, which is a word of ours."""
        self._cache[level, outcome].inc()

    def blob_failed(self, kind: BlobFailure) -> None:
        """A blob could not be had."""
        self._blob_failures[kind,].inc()

    def auth_failed(self, reason: str) -> None:
        """A request was turned away; the reason is a word of ours, never the client's."""
        self._auth_failures[reason,].inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the template, never the path that was asked for."""
        if method not in _METHODS:
            method = OTHER
        self._requests[route, method, status].inc()
        self._seconds[route, method].observe(seconds)

    def exposition(self, worlds: Collection[WorldFreshness] | None) -> bytes:
        """The page that Prometheus reads.

        Args:
            worlds: how fresh each world and stage is now; None while the store can't be read.
        """
        return render([*self._counted.collect(), *self._freshness(worlds)])

    def _freshness(self, worlds: Collection[WorldFreshness] | None) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "riskhub_store_up", "Whether the store could be read.", value=worlds is not None
        )
        if worlds is None:
            return
        counted = GaugeMetricFamily(
            "riskhub_worlds", "Worlds and stages by their state.", labels=("state",)
        )
        states = Counts(world.state for world in worlds)
        for state in Freshness:
            counted.add_metric((state,), states[state])
        yield counted
        # History never ages. The worst of the others: what is left out is better than what is seen.
        ageing = [world for world in worlds if world.state is not Freshness.EXEMPT]
        shown = worst_first(ageing)[: self._max_worlds]
        lag = GaugeMetricFamily(
            "risk_hub_snapshot_lag_seconds",
            "Age of the newest snapshot, in hours in which its market was open.",
            labels=("world_id", "stage"),
        )
        state_of = GaugeMetricFamily(
            "risk_hub_snapshot_state",
            "1 for the state that a world and stage is in, and how urgent that is.",
            labels=("world_id", "stage", "state", "severity"),
        )
        for world in shown:
            if world.open_age_seconds is not None:
                lag.add_metric((world.world_id, world.stage), world.open_age_seconds)
            labels = (world.world_id, world.stage, world.state, world.severity)
            state_of.add_metric(labels, 1)
        yield lag
        yield state_of
        yield GaugeMetricFamily(
            "riskhub_lag_worlds_left_out",
            "Worlds and stages, fresher than those with a lag here, that are too many to show.",
            value=len(ageing) - len(shown),
        )

    def _pair(self, world_id: str, stage: str) -> tuple[str, str]:
        pair = (world_id, stage)
        if pair in self._worlds:
            return pair
        with self._lock:
            if len(self._worlds) >= self._max_worlds:
                return OTHER, OTHER
            self._worlds.add(pair)
        for counters in (self._deduped, self._expired):
            _ = counters[pair]
        return pair
