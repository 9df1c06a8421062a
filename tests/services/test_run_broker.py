"""A run worker and a real Redis: what is given out, how often, and what happens at its end."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lingering
import psutil
import pytest
import redis
import service_resolution
from builders import wait_until
from served import ROOT, environment

from riskhub.settings import Settings

pytestmark = pytest.mark.skipif(
    not service_resolution.resolve_redis().real, reason="the stand-in for Redis is no broker"
)
VISIBLE_AGAIN_SEC = 1


class Tasks:
    """Two workers on one broker, the tasks given to them, and what became of these."""

    def __init__(self, home: Path, url: str, **settings: str) -> None:
        self.home = home
        self.notes, self.release = home / "notes", home / "release"
        self._given = {
            "RISKHUB_RUN_BROKER_URL": url,
            "RISKHUB_RUN_WORKER__VISIBILITY_TIMEOUT_SEC": str(VISIBLE_AGAIN_SEC),
        } | settings
        worker: Any = {"visibility_timeout_sec": VISIBLE_AGAIN_SEC}
        self.app = lingering.app_of(Settings(run_broker_url=url, run_worker=worker))
        self.redis = redis.Redis.from_url(url)
        self.log = home / "log"

    def send(self) -> Any:
        return self.app.send_task(lingering.LINGER, args=[str(self.notes), str(self.release)])

    def begun(self) -> list[str]:
        """The process of each task that was begun."""
        return self.notes.read_text().split() if self.notes.exists() else []

    def waiting(self) -> int:
        """How many wait in the broker, for any worker."""
        return sum(self.redis.llen(key) for key in self.redis.keys("dagster*"))

    def fetched(self) -> int:
        """How many a worker has fetched and not acknowledged: these the broker would repeat."""
        return int(self.redis.hlen("unacked"))

    def restore_what_is_overdue(self) -> None:
        """What each worker does every ten seconds."""
        with self.app.connection_for_read() as connection:
            connection.default_channel.qos.restore_visible(num=100)

    @contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "lingering.py"), name],
                env=environment(self.home, **self._given),
                cwd=self.home,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            self.release.touch()
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_what_runs_is_not_given_out_again_and_what_waits_waits_in_the_broker(
    home: Path, redis_url: str
) -> None:
    tasks = Tasks(home, redis_url)
    with tasks.worker("a"):
        first, second = tasks.send(), tasks.send()
        wait_until(lambda: len(tasks.begun()) == 1)
        begun_at = time.monotonic()
        wait_until(lambda: time.monotonic() > begun_at + 2 * VISIBLE_AGAIN_SEC)

        assert (tasks.fetched(), tasks.waiting()) == (0, 1)
        tasks.restore_what_is_overdue()
        with tasks.worker("b"):  # it would take whatever is given out again, and takes what waits
            wait_until(lambda: len(tasks.begun()) == 2)
            assert tasks.waiting() == 0
            tasks.release.touch()
            first.get(timeout=20)
            second.get(timeout=20)

    assert len(set(tasks.begun())) == len(tasks.begun()) == 2
    assert (tasks.fetched(), tasks.waiting()) == (0, 0)


def test_after_sigterm_a_worker_ends_what_runs_and_takes_nothing_new(
    home: Path, redis_url: str
) -> None:
    tasks = Tasks(home, redis_url)
    with tasks.worker("a") as worker:
        running = tasks.send()
        wait_until(lambda: len(tasks.begun()) == 1)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: b"Warm shutdown" in tasks.log.read_bytes())
        tasks.send()
        assert worker.poll() is None
        tasks.release.touch()
        running.get(timeout=20)

        assert worker.wait(20) == 0

    assert len(tasks.begun()) == 1
    assert tasks.waiting() + tasks.fetched() == 1


def test_a_process_that_has_done_its_share_is_replaced(home: Path, redis_url: str) -> None:
    tasks = Tasks(home, redis_url, RISKHUB_RUN_WORKER__RUNS_PER_PROCESS="1")
    tasks.release.touch()
    with tasks.worker("a"):
        for _ in range(3):
            tasks.send().get(timeout=20)

    assert len(set(tasks.begun())) == 3


def test_a_process_that_was_killed_is_replaced_and_its_task_is_not_repeated(
    home: Path, redis_url: str
) -> None:
    tasks = Tasks(home, redis_url)
    with tasks.worker("a"):
        lost = tasks.send()
        wait_until(lambda: len(tasks.begun()) == 1)
        psutil.Process(int(tasks.begun()[0])).send_signal(signal.SIGKILL)
        wait_until(lambda: lost.state == "FAILURE")
        tasks.release.touch()

        tasks.send().get(timeout=20)

    assert len(tasks.begun()) == 2
