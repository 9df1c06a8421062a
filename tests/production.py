"""The whole of production on this machine: `riskhub up` in profile prod, on real services."""

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx
import psutil
import redis
import service_resolution
from builders import wait_until
from outages import Services
from served import environment

from riskhub import bootstrap, cast
from riskhub.controlbus.relay import reader_of
from riskhub.dagster_graphql import UNFINISHED, DagsterGraphql, DagsterRefused
from riskhub.governor.publish import BUDGET_PREFIX
from riskhub.settings import Settings, load_settings
from riskhub.store import Store
from riskhub.supervisor import Child

TOKEN = secrets.token_hex(16)
EQUITY_KEY = "quantum:account:equity"
SYMBOLS = ("BAC", "JPM", "XOM")
_PORTS = ("API", "DAGSTER", "CODE_SERVER", "WORKER__METRICS")
_ALL_READY_WITHIN_SEC = 360.0
_RUNS = "{runsOrError(limit: 10000) {... on Runs {results {runId status}}}}"


@dataclass(frozen=True)
class Production:
    """The cast at work, and how to reach it."""

    home: Path
    environment: dict[str, str]
    settings: Settings
    process: subprocess.Popen[bytes]
    services: Services

    @property
    def children(self) -> dict[str, Child]:
        """The cast, by name."""
        return {child.name: child for group in cast.groups(self.settings) for child in group}

    def pid(self, name: str) -> int:
        """Of one of the cast, now."""
        return int((self.home / "logs" / f"{name}.pid").read_text())

    def workers_of(self, name: str) -> list[int]:
        """The processes that one of the cast has started to share its work, by age."""
        try:
            children = psutil.Process(self.pid(name)).children(recursive=True)
            named = [(child.create_time(), child.pid) for child in children if _works(child)]
        except psutil.Error:  # it has just ended
            return []
        return [pid for _, pid in sorted(named)]

    def restart(self, name: str) -> None:
        """Ask one of the cast to end, and return when there is another that serves."""
        before = self.pid(name)
        os.kill(before, signal.SIGTERM)
        self.wait_for(lambda: self.pid(name) != before, within_sec=60)
        self.wait_for(self.children[name].is_ready, within_sec=90)

    def wait_for(self, condition: Callable[[], bool], *, within_sec: float = 60.0) -> None:
        """Wait for it, but not when `riskhub up` has ended."""

        def holds() -> bool:
            assert self.process.poll() is None, f"it ended:\n{self.said()}"
            return condition()

        wait_until(holds, within_sec=within_sec)

    def is_settled(self, store: Store) -> bool:
        """Whether all that landed is judged and measured, and all of that is told."""
        head = store.events_head()
        return not store.pending_days().days and store.cursor(reader_of(self.settings)) >= head

    def runs(self) -> dict[str, str]:
        """Dagster's runs by id, each with its status."""
        with httpx.Client(timeout=30) as client:
            asked = DagsterGraphql(client, self.settings.dagster_url).ask(_RUNS, {})
        return {run["runId"]: run["status"] for run in asked["runsOrError"]["results"]}

    def has_unfinished_runs(self) -> bool:
        """Whether a run is under way, or waits, or is forgotten; true, too, while nobody says."""
        try:
            return not set(UNFINISHED).isdisjoint(self.runs().values())
        except (httpx.TransportError, DagsterRefused):
            return True

    def riskhub(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        return subprocess.run(
            [sys.executable, "-m", "riskhub", *words],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    def said(self) -> str:
        """The end of what `riskhub up` has printed."""
        return (self.home / "up.log").read_text()[-8_000:]

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The hub's database."""
        with closing(bootstrap.store(self.settings)) as store:
            yield store


@contextmanager
def production(home: Path, services: Services) -> Iterator[Production]:
    """Start all of it, empty; ended with the block.

    Args:
        home: a directory.
        services: databases, a topic and a bucket of our own are made there.
    """
    with ExitStack() as stack:
        hub, dagster = (
            stack.enter_context(service_resolution.fresh_database(services.postgres))
            for _ in range(2)
        )
        topic = stack.enter_context(service_resolution.fresh_topic(services.kafka))
        bucket = stack.enter_context(service_resolution.fresh_bucket(services.s3))
        broker_url = services.redis.rpartition("/")[0] + "/1"
        for url in (services.redis, broker_url):
            stack.enter_context(service_resolution.flushed(url))
        assert bucket.s3_secret_access_key is not None
        ports = {f"RISKHUB_{name}_PORT": str(service_resolution.free_port()) for name in _PORTS}
        found = environment(
            home,
            **ports,
            RISKHUB_PROFILE="prod",
            RISKHUB_TOKEN=TOKEN,
            RISKHUB_DATABASE_URL=hub,
            RISKHUB_REDIS_URL=services.redis,
            RISKHUB_CONTROLBUS_BROKERS=services.kafka,
            RISKHUB_CONTROLBUS_TOPIC=topic,
            RISKHUB_WORKER__GROUP=topic,
            RISKHUB_DAGSTER_DATABASE_URL=dagster.replace("+psycopg:", "+psycopg2:"),
            RISKHUB_RUN_BROKER_URL=broker_url,
            RISKHUB_API_WORKERS="2",
            RISKHUB_BLOBS__KIND="s3",
            RISKHUB_BLOBS__S3_BUCKET=bucket.s3_bucket or "",
            RISKHUB_BLOBS__S3_ENDPOINT_URL=bucket.s3_endpoint_url or "",
            RISKHUB_BLOBS__S3_REGION=bucket.s3_region or "",
            RISKHUB_BLOBS__S3_ACCESS_KEY_ID=bucket.s3_access_key_id or "",
            RISKHUB_BLOBS__S3_SECRET_ACCESS_KEY=bucket.s3_secret_access_key.get_secret_value(),
            RISKHUB_INLINE_COV_THRESHOLD="64",
            RISKHUB_GOVERNOR__STATE_EQUITY_KEY=EQUITY_KEY,
        )
        with mock.patch.dict(os.environ, found, clear=True):
            settings = load_settings()
        with (home / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "riskhub", "up"],
                env=found,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(_end, process)
        here = Production(home, found, settings, process, services)
        stack.enter_context(_account(settings))
        here.wait_for(
            lambda: "serving; Ctrl-C ends it" in here.said(), within_sec=_ALL_READY_WITHIN_SEC
        )
        yield here


def budget_age_sec(client: "redis.Redis", now: float) -> float:
    """How old the oldest budget of the test's symbols is; infinite where one has none."""
    at = [client.hget(BUDGET_PREFIX + symbol, "timestamp") for symbol in SYMBOLS]
    return max(float("inf") if each is None else now - float(each) for each in at)  # type: ignore[arg-type]


@contextmanager
def _account(settings: Settings) -> Iterator[None]:
    """Whoever tells equity and positions: not the hub's own process, and never away."""
    over = threading.Event()

    def tell() -> None:
        with bootstrap.redis_client(settings) as client:
            while not over.wait(2.0):
                with suppress(redis.RedisError):  # it is away, and is told when it is back
                    _tell_account(client)

    thread = threading.Thread(target=tell, daemon=True, name="account")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell_account(client: "redis.Redis") -> None:
    seconds = client.time()[0]
    client.hset(EQUITY_KEY, mapping={"equity_usd": 100_000, "timestamp": seconds})
    for symbol in SYMBOLS:
        position = {"position_amt": 100, "mark_price": 30.0, "timestamp": seconds}
        client.hset(f"quantum:position:snapshot:{symbol}", mapping=position)


def _works(process: psutil.Process) -> bool:
    command = " ".join(process.cmdline())
    return "resource_tracker" not in command and process.status() != psutil.STATUS_ZOMBIE


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(90)
    finally:
        process.kill()
        process.wait()
