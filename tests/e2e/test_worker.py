"""Workers as processes: asked to end, killed, joined by others, in the middle of a load."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from builders import accept, wait_until
from daemons import Daemon
from served import migrate_database

from riskhub.controlbus.bus import GROUP
from riskhub.controlbus.events import METRICS_UPDATED
from riskhub.settings import WorkerSettings
from riskhub.store import Store, open_store

WORLDS = 7
READER = GROUP + WorkerSettings().group
Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `riskhub` processes on one home, each killed with the test."""
    with ExitStack() as stack:

        def started(name: str, **settings: str) -> Daemon:
            daemon = Daemon(name, tmp_path, settings)
            stack.callback(daemon.close)
            return daemon

        yield started


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The database in that home."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate_database(url)
    opened = open_store(url)
    yield opened
    opened.close()


def land(store: Store, count: int) -> None:
    store.land([accept(world_id=f"w{n % WORLDS}", version=f"v{n}") for n in range(count)])


def measured(store: Store) -> list[str]:
    """The snapshots that have got numbers, in that order, each as often as it was told."""
    told = store.events_after(0, limit=10**6, types=[METRICS_UPDATED], page_bytes=2**40)
    return [event.subject for event in told]


def all_are_measured(store: Store, count: int) -> Callable[[], bool]:
    return lambda: len(measured(store)) >= count and not store.pending_days().days


def assert_once_and_in_order(store: Store, count: int) -> None:
    subjects = measured(store)
    assert set(Counter(subjects).values()) == {1}
    of_worlds = {f"w{n}": [s for s in subjects if s.startswith(f"w{n}/")] for n in range(WORLDS)}
    assert of_worlds == {
        f"w{n}": [f"w{n}/v{m}" for m in range(count) if m % WORLDS == n] for n in range(WORLDS)
    }
    assert store.count_dead_letters() == 0


def test_told_to_end_a_worker_finishes_its_batch_and_another_goes_on(
    start: Start, store: Store
) -> None:
    land(store, 1_000)
    first = start("worker", RISKHUB_WORKER__BATCH="50")
    wait_until(lambda: store.cursor(READER) > 0, within_sec=60)
    told_at = time.monotonic()

    assert first.terminate() == 0, first.log()

    assert time.monotonic() - told_at < 10
    done = store.cursor(READER)
    assert 0 < done < 1_000  # it was in the middle
    assert len(measured(store)) == done  # and whatever it did, it has committed
    start("worker")
    wait_until(all_are_measured(store, 1_000), within_sec=120)
    assert_once_and_in_order(store, 1_000)


def test_when_the_worker_of_an_outbox_is_killed_the_one_that_stands_by_takes_over(
    start: Start, store: Store
) -> None:
    land(store, 600)
    first = start("worker", RISKHUB_WORKER__BATCH="20")
    wait_until(lambda: store.cursor(READER) > 0, within_sec=60)
    second = start("worker")
    wait_until(lambda: "stands by" in second.log() or store.cursor(READER) >= 600, within_sec=60)

    first.close()

    wait_until(all_are_measured(store, 600), within_sec=120)
    assert_once_and_in_order(store, 600)
    assert second.terminate() == 0, second.log()


def test_three_workers_share_a_topic_one_is_killed_and_effects_happen_once(
    start: Start,
    tmp_path: Path,
    postgres_url: str,
    kafka_server: str,
    kafka_topic: str,
) -> None:
    migrate_database(postgres_url)
    store = open_store(postgres_url)
    settings = {
        "RISKHUB_DATABASE_URL": postgres_url,
        "RISKHUB_CONTROLBUS_BROKERS": kafka_server,
        "RISKHUB_CONTROLBUS_TOPIC": kafka_topic,
        "RISKHUB_WORKER__GROUP": kafka_topic,
        "RISKHUB_WORKER__BATCH": "50",
    }
    land(store, 1_500)
    start("relay", **settings)
    first = start("worker", **settings)
    wait_until(lambda: len(measured(store)) > 0, within_sec=90)
    second, third = start("worker", **settings), start("worker", **settings)
    wait_until(
        lambda: "event=partitions" in second.log() or len(measured(store)) == 1_500, within_sec=90
    )

    first.close()

    wait_until(all_are_measured(store, 1_500), within_sec=180)
    assert_once_and_in_order(store, 1_500)
    for worker in (second, third):
        assert worker.terminate() == 0, worker.log()
    store.close()


def test_a_worker_shows_its_metrics(
    start: Start, store: Store, free_port: Callable[[], int]
) -> None:
    land(store, 3)
    port = free_port()
    worker = start("worker", RISKHUB_WORKER__METRICS_PORT=str(port))
    measured = all_are_measured(store, 3)
    wait_until(lambda: worker.process.poll() is not None or measured(), within_sec=120)
    assert worker.process.poll() is None, worker.log()

    def page() -> str:
        return httpx.get(f"http://127.0.0.1:{port}/metrics").text

    wait_until(lambda: "risk_hub_snapshot_processed_total 3.0" in page())
    wait_until(lambda: 'riskhub_worker_lag_events{part="outbox"} 0.0' in page())
    assert "riskhub_worker_event_seconds_bucket" in page()
