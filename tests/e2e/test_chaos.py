"""What holds while processes are killed: nothing acknowledged is lost, nothing answered is old.

Real processes on real sockets. Each test makes trouble while clients work as fast as they can, and
afterwards asks the database what is true.
"""

import itertools
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
import redis
import service_resolution
from builders import HEADERS, WORLD, raw_document, wait_until
from own_servers import OwnServer, own_server, postgres_answers, redis_answers, without
from served import api_process, log_of, migrate_database, migrate_home

from riskhub.settings import Settings
from riskhub.store import open_store

SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"
DAY = date(2026, 1, 31)
MIDNIGHT = datetime(2026, 1, 31, tzinfo=UTC)
CLIENTS = 8
SOME = 400
"""So many answers before the next trouble, so that it comes while there is work."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnServer]:
    environ = without(service_resolution.POSTGRES_URL)
    with own_server(service_resolution.resolve_postgres(environ, durable=True)) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[OwnServer]:
    environ = without(service_resolution.REDIS_URL)
    with own_server(service_resolution.resolve_redis(environ)) as server:
        yield server


# -- load ------------------------------------------------------------------------------------------


class Load:
    """Clients that post unique snapshots as fast as they can, each until it is acknowledged.

    Attributes:
        acknowledged: the answered body of each version that got a 2xx.
        refused: how many 503 there were.
        dropped: how many connections broke before an answer.
        wrong: answers that there must not be.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: dict[str, bytes] = {}
        self.refused = 0
        self.dropped = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._counting = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._produce, number) for number in range(CLIENTS)]
            try:
                yield
            finally:
                self._over.set()
        for client in clients:
            client.result()

    def wait_for(self, more: int = SOME) -> None:
        """Return when so many more were acknowledged."""
        enough = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= enough or bool(self.wrong))
        assert self.wrong == []

    def _produce(self, number: int) -> None:
        seeded = random.Random(number)  # noqa: S311 - for weights
        base_url = f"http://127.0.0.1:{self.port}"
        with httpx.Client(base_url=base_url, headers=HEADERS, timeout=30) as client:
            for count in itertools.count():
                weight = seeded.random()
                version = f"{number}-{count}"
                body = raw_document(version=version, weights={"BAC": weight, "JPM": 1 - weight})
                while not self._acknowledged(client, version, body):
                    # A moment, for who refuses at once would be asked a thousand times a second.
                    if self._over.wait(0.02):
                        return
                if self._over.is_set():
                    return

    def _acknowledged(self, client: httpx.Client, version: str, body: bytes) -> bool:
        try:
            response = client.post(SNAPSHOTS, content=body)
        except httpx.TransportError:  # what is left unanswered is promised nothing
            with self._counting:
                self.dropped += 1
            return False
        with self._counting:
            if response.status_code in (200, 201):
                self.acknowledged[version] = response.content
                return True
            if response.status_code == 503 and response.headers["retry-after"].isdecimal():
                self.refused += 1
            else:
                self.wrong.append(f"{response.status_code} {response.text}")
        return False


def assert_all_there(acknowledged: dict[str, bytes], database_url: str) -> None:
    """Every acknowledged snapshot is stored exactly once, byte for byte as it was answered."""
    store = open_store(database_url)
    landed = store.landed_on(DAY, DAY)
    store.close()
    assert [version for version, n in Counter(row.version for row in landed).items() if n > 1] == []
    stored = {row.version: row.body.encode() for row in landed}
    assert acknowledged.keys() <= stored.keys()
    differing = [v for v, body in acknowledged.items() if stored[v] != body]
    assert differing == []


# -- the API is killed -----------------------------------------------------------------------------


def workers_of(server: subprocess.Popen[bytes]) -> dict[int, psutil.Process]:
    children = psutil.Process(server.pid).children()
    return {child.pid: child for child in children if is_worker(child)}


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def test_what_a_killed_worker_acknowledged_is_there(
    tmp_path: Path, postgres_url: str, free_port: Callable[[], int]
) -> None:
    migrate_database(postgres_url)
    port = free_port()
    load = Load(port)
    settings = {"RISKHUB_DATABASE_URL": postgres_url, "RISKHUB_API_WORKERS": "2"}
    with api_process(tmp_path, port, **settings) as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        with load.running():
            load.wait_for()
            for pid, worker in workers_of(server).items():
                worker.kill()
                wait_until(lambda pid=pid: len(workers_of(server).keys() - {pid}) == 2)  # type: ignore[misc]
                load.wait_for()
    assert load.wrong == []
    assert load.refused == 0
    assert load.dropped > 0  # or nobody was in the middle of anything
    assert_all_there(load.acknowledged, postgres_url)


def test_what_a_killed_process_acknowledged_is_there(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    migrate_home(tmp_path)
    port = free_port()
    load = Load(port)
    with ExitStack() as stack:
        process = stack.enter_context(api_process(tmp_path, port))
        stack.enter_context(load.running())
        for _ in range(2):
            load.wait_for()
            process.kill()
            process.wait(30)
            process = stack.enter_context(api_process(tmp_path, port))
        load.wait_for()
    assert load.wrong == []
    assert load.dropped > 0
    assert_all_there(load.acknowledged, Settings(home=tmp_path).effective_database_url)


# -- Postgres is restarted -------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["fast shutdown", "kill -9"])
def test_while_postgres_restarts_an_answer_is_true_or_says_come_again(
    tmp_path: Path, postgres: OwnServer, free_port: Callable[[], int], end: signal.Signals
) -> None:
    port = free_port()
    load = Load(port)
    with service_resolution.fresh_database(postgres.url) as database_url:
        migrate_database(database_url)
        with api_process(tmp_path, port, RISKHUB_DATABASE_URL=database_url):
            with load.running():
                load.wait_for()
                postgres.end(end)
                refused = load.refused
                # Also those that were waiting when it went have had their answer by then.
                wait_until(lambda: load.refused >= refused + 2 * CLIENTS)
                url = f"http://127.0.0.1:{port}"
                not_ready = httpx.get(f"{url}/readyz")
                assert (not_ready.status_code, not_ready.headers["retry-after"]) == (503, "1")
                assert httpx.get(f"{url}/healthz").status_code == 200
                postgres.start(lambda: postgres_answers(postgres))
                load.wait_for()  # the same API, which nobody restarted
            assert load.wrong == []
            assert load.dropped == 0  # the API never went
            assert_all_there(load.acknowledged, database_url)
    assert "Traceback" not in log_of(tmp_path)


# -- Redis is gone, slow or empty ------------------------------------------------------------------


class ReadYourWrites:
    """One writer, and readers through each worker that compare what they get with what was acked.

    Attributes:
        reads: how many answers were right.
        wrong: answers that there must not be.
    """

    def __init__(self, port: int, server: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.reads = 0
        self.wrong: list[str] = []
        self._acknowledged = 0
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._workers = workers_of(server)
        self._server = server

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            readers = [stack.enter_context(self._client_of(pid)) for pid in self._workers]
            writer = stack.enter_context(self._client())
            self._write(writer)
            pool = stack.enter_context(ThreadPoolExecutor(len(readers) + 1))
            work = [pool.submit(self._read, reader) for reader in readers]
            work.append(pool.submit(self._write_and_read, writer))
            try:
                yield
            finally:
                self._over.set()
                for each in work:
                    each.result(60)

    def wait_for(self, more: int = SOME) -> None:
        """Return when so many more answers were right."""
        enough = self.reads + more
        wait_until(lambda: self.reads >= enough or bool(self.wrong))
        assert self.wrong == []

    def _client(self) -> httpx.Client:
        base_url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=base_url, headers=HEADERS, timeout=30)

    @contextmanager
    def _client_of(self, pid: int) -> Iterator[httpx.Client]:
        """A client whose connection this worker has accepted."""
        with ExitStack() as stack:
            while True:
                client = stack.enter_context(self._client())
                stream = client.get("/healthz").extensions["network_stream"]
                ours = stream.get_extra_info("client_addr")[1]
                connections = self._workers[pid].net_connections("inet4")
                if any(each.raddr and each.raddr.port == ours for each in connections):
                    break
            yield client

    def _write(self, client: httpx.Client) -> None:
        number = self._acknowledged + 1
        as_of = (MIDNIGHT + timedelta(milliseconds=number)).isoformat()
        response = client.post(SNAPSHOTS, content=raw_document(version=str(number), as_of=as_of))
        if response.status_code != 201:
            self.wrong.append(f"write: {response.status_code} {response.text}")
        self._acknowledged = number

    def _write_and_read(self, client: httpx.Client) -> None:
        while not self._over.is_set():
            self._write(client)
            self._compare(client)

    def _read(self, client: httpx.Client) -> None:
        while not self._over.is_set():
            self._compare(client)

    def _compare(self, client: httpx.Client) -> None:
        before = self._acknowledged
        response = client.get(f"{SNAPSHOTS}/latest")
        with self._counting:
            if response.status_code != 200:
                self.wrong.append(f"read: {response.status_code} {response.text}")
            elif int(response.json()["version"]) < before:
                self.wrong.append(f"{response.json()['version']} after {before} was acknowledged")
            else:
                self.reads += 1


def cache_lookups(port: int, outcome: str) -> float:
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    series = f'riskhub_cache_lookups_total{{level="redis",outcome="{outcome}"}} '
    (value,) = [line for line in page.splitlines() if line.startswith(series)] or [f"{series}0"]
    return float(value.removeprefix(series))


def test_whatever_redis_does_latest_is_never_older_than_what_was_acknowledged(
    tmp_path: Path, own_redis: OwnServer, free_port: Callable[[], int]
) -> None:
    migrate_home(tmp_path)
    port = free_port()
    settings = {
        "RISKHUB_REDIS_URL": own_redis.url,
        "RISKHUB_API_WORKERS": "2",
    }
    with api_process(tmp_path, port, **settings) as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        readers = ReadYourWrites(port, server)
        with readers.running(), redis.Redis(port=own_redis.port) as client:
            readers.wait_for()
            wait_until(lambda: cache_lookups(port, "hit") > 0)  # it is in use
            for _ in range(3):
                client.flushall()
                readers.wait_for(SOME // 3)
            own_redis.send(signal.SIGSTOP)
            readers.wait_for()
            own_redis.send(signal.SIGCONT)
            readers.wait_for()
            own_redis.end(signal.SIGKILL)
            readers.wait_for()
            own_redis.start(lambda: redis_answers(own_redis))
            hits = cache_lookups(port, "hit")
            wait_until(lambda: cache_lookups(port, "hit") > hits or bool(readers.wrong))
            readers.wait_for()
        assert readers.wrong == []
        assert cache_lookups(port, "failure") > 0
    assert "Traceback" not in log_of(tmp_path)
