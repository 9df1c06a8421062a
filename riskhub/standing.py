"""What Prometheus is told of how things stand: outbox, dead letters, exit engine, alerts, Dagster.

Read when it is scraped: so whoever has died is seen to stand still, and any process of the API
tells the same.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import httpx
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from riskhub.alerts.sources import GROUP
from riskhub.dagster_graphql import DagsterGraphql, DagsterRefused, Health
from riskhub.exposition import render
from riskhub.settings import Settings
from riskhub.store.standing import Standing

FRESH_SEC = 15.0
"""What Dagster said is asked anew when it is older, and the scrape does not wait for that."""
GONE_SEC = 120.0
"""And when it is older than this, nothing is known of it."""

_DAGSTER_TIMEOUT_SEC = 10.0
_MOST_JOBS = 100


@dataclass(frozen=True, slots=True)
class DagsterSaid:
    """What Dagster said of itself; None: it does not answer, and did."""

    health: Health | None


class DagsterFigures:
    """Dagster's figures, asked aside: GraphQL takes tenths of a second. For several threads."""

    def __init__(
        self,
        url: str,
        *,
        ended_within_sec: float,
        must_answer: bool = False,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            url: of its UI.
            ended_within_sec: how far back runs that have ended are told.
            must_answer: whether silence is news before it has ever answered.
        """
        self._url = url
        self._ended_within_sec = ended_within_sec
        self._clock = clock
        self._monotonic = monotonic
        self._is_expected = must_answer
        self._health: Health | None = None
        self._answered_at = self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._asking = threading.Lock()

    def said(self) -> DagsterSaid | None:
        """What is known now; None where no Dagster has to be. What is old is asked anew, aside."""
        now = self._monotonic()
        with self._lock:
            is_due = now - self._asked_at >= FRESH_SEC
            if is_due:
                self._asked_at = now
            known = self._health if now - self._answered_at < GONE_SEC else None
            said = DagsterSaid(known) if known is not None or self._is_expected else None
        if is_due:
            threading.Thread(target=self.ask, name="dagster-figures", daemon=True).start()
        return said

    def ask(self) -> None:
        """Ask now, unless somebody does."""
        if not self._asking.acquire(blocking=False):
            return
        try:
            with httpx.Client(timeout=_DAGSTER_TIMEOUT_SEC) as client:
                after = self._clock().timestamp() - self._ended_within_sec
                health = DagsterGraphql(client, self._url).health(after)
        except (httpx.HTTPError, DagsterRefused):
            return
        finally:
            self._asking.release()
        with self._lock:
            self._health, self._answered_at = health, self._monotonic()
            self._is_expected = True


def figures_of(settings: Settings, clock: Callable[[], datetime]) -> DagsterFigures | None:
    """Those of the Dagster that the settings name; None when it is not to be asked."""
    alerts = settings.alerts
    if alerts.watch_dagster is False:
        return None
    return DagsterFigures(
        (alerts.dagster_url or settings.dagster_url).rstrip("/"),
        ended_within_sec=alerts.failed_runs_sec,
        must_answer=alerts.watch_dagster is True,
        clock=clock,
    )


def exposition(
    standing: Standing | None,
    dagster: DagsterSaid | None,
    now: datetime,
    *,
    relay: str | None = None,
) -> bytes:
    """That part of the page.

    Args:
        standing: None while the database can't be read.
        now: the moment.
        relay: the reader that there must be, if brokers are configured: it is behind from the
            first event on, also when it has never run.
    """
    families: list[Metric] = []
    if standing is not None:
        families += _outbox(standing, now, relay)
        families += _kept(standing, now)
        families += _alerts(standing, now)
    if dagster is not None:
        families += _dagster(dagster.health, now)
    return render(families)


def _outbox(standing: Standing, now: datetime, relay: str | None) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "riskhub_outbox_head_sequence", "The newest event of the outbox.", value=standing.head
    )
    cursor = _by("riskhub_outbox_cursor_sequence", "Up to where a reader is done.", "reader")
    events = _by("riskhub_outbox_lag_events", "Sequences that lie before a reader.", "reader")
    seconds = _by(
        "riskhub_outbox_lag_seconds",
        "Since when the next event of a reader waits for it; 0 when none does.",
        "reader",
    )
    for reader in standing.readers:
        if relay is not None and reader.reader.startswith(GROUP):
            continue  # its place is in Kafka; here is where `riskhub worker --outbox` once stopped
        name = [reader.reader]
        cursor.add_metric(name, reader.sequence)
        events.add_metric(name, reader.behind)
        seconds.add_metric(name, _age(reader.since, now) if reader.since else 0)
    if relay is not None and relay not in {reader.reader for reader in standing.readers}:
        cursor.add_metric([relay], 0)
        events.add_metric([relay], standing.head)
        seconds.add_metric([relay], _age(standing.first_event_at, now))
    yield from (cursor, events, seconds)


def _kept(standing: Standing, now: datetime) -> Iterable[Metric]:
    letters = _by("riskhub_dead_letters_waiting", "Events that were given up on.", "handler")
    for handler, count in standing.dead_letters.items():
        letters.add_metric([handler or "none"], count)
    yield letters
    yield GaugeMetricFamily(
        "riskhub_quarantined_snapshots", "Snapshots that are rejected.", value=standing.quarantined
    )
    episodes = _by(
        "riskhub_exit_episodes_open", "Open episodes of the exit engine.", "action", "severity"
    )
    for labels, count in standing.episodes.items():
        episodes.add_metric(labels, count)
    yield episodes
    yield GaugeMetricFamily(
        "riskhub_exit_signals_waiting",
        "Exit signals that Redis has not taken yet.",
        value=standing.signals_waiting,
    )
    if standing.exit_engine_at is not None:
        yield GaugeMetricFamily(
            "riskhub_exit_engine_age_seconds",
            "Since an exit engine last wrote.",
            value=_age(standing.exit_engine_at, now),
        )


def _alerts(standing: Standing, now: datetime) -> Iterable[Metric]:
    open_ones = _by("riskhub_alerts_open", "Open alerts.", "name", "severity")
    for labels, count in standing.alerts.items():
        open_ones.add_metric(labels, count)
    yield open_ones
    yield GaugeMetricFamily(
        "riskhub_alerts_untold",
        "Alerts that are over, and some receiver does not know yet.",
        value=standing.notices_waiting,
    )
    if standing.watch is not None:
        yield GaugeMetricFamily(
            "riskhub_alerts_watch_age_seconds",
            "Since `riskhub alerts` last looked.",
            value=_age(standing.watch["at"], now),
        )
        receivers = _by(
            "riskhub_alerts_receiver_up", "Whether a receiver takes what it is told.", "receiver"
        )
        for name, failing in standing.watch["receivers"].items():
            receivers.add_metric([name], not failing)
        yield receivers


def _dagster(health: Health | None, now: datetime) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "riskhub_dagster_up", "Whether Dagster answers.", value=health is not None
    )
    if health is None:
        return
    yield GaugeMetricFamily(
        "riskhub_dagster_runs_queued", "Runs that wait in the queue.", value=len(health.queued)
    )
    yield GaugeMetricFamily(
        "riskhub_dagster_runs_started", "Runs that are under way.", value=health.started
    )
    waits = max((now.timestamp() - made for made in health.queued), default=0.0)
    yield GaugeMetricFamily(
        "riskhub_dagster_queue_wait_seconds",
        "For how long the oldest run in the queue has waited.",
        value=max(waits, 0.0),
    )
    ended = _by(
        "riskhub_dagster_runs_ended_recently",
        "Runs that ended within `alerts.failed_runs_sec`, by job and status.",
        *("job", "status"),
    )
    counted = Counter((run.job, "failure" if run.failed else "success") for run in health.ended)
    for labels, count in counted.most_common(_MOST_JOBS):
        ended.add_metric(labels, count)
    yield ended
    failed = _by("riskhub_dagster_last_run_failed", "Whether the last run of a job failed.", "job")
    failed_jobs = {run.job for run in health.failed_jobs()}
    for job in sorted({run.job for run in health.ended})[:_MOST_JOBS]:
        failed.add_metric([job], job in failed_jobs)
    yield failed
    daemons = _by("riskhub_dagster_daemon_up", "Whether a daemon gives signs of life.", "daemon")
    for name, healthy in health.daemons.items():
        daemons.add_metric([name], healthy)
    yield daemons


def _by(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=labels)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)
