"""Whether a process of ours is at work, asked from outside: of each where it leaves its traces."""

import socket
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import httpx
import redis

from riskhub import bootstrap
from riskhub.controlbus.relay import reader_of
from riskhub.errors import StoreNotMigrated, StoreUnavailable
from riskhub.governor import lease
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store, create_engine

_TIMEOUT_SEC = 2.0


def answers(url: str) -> bool:
    """Whether something answers a GET with success."""
    try:
        return httpx.get(url, timeout=_TIMEOUT_SEC).is_success
    except httpx.TransportError:
        return False


def listens(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_SEC).close()
    except OSError:
        return False
    return True


def pings(settings: Settings) -> bool:
    """Whether the Redis of the settings answers."""
    client = bootstrap.redis_client(settings)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def is_governed(settings: Settings) -> bool:
    """Whether somebody holds the lease: the governor of another machine is as good."""
    with bootstrap.redis_client(settings) as client:
        try:
            return lease.holder(client) is not None
        except redis.RedisError:
            return False


def has_exit_engine(settings: Settings) -> bool:
    """Whether an exit engine is at work: that of another machine is as good."""
    with _store(settings) as store:
        try:
            row = store.exit_engine()
        except (StoreUnavailable, StoreNotMigrated):
            return False
    # It writes at each look; what one wrote that has ended since is no sign of life.
    recent = timedelta(seconds=2 * settings.exits.look_sec)
    return row is not None and utc_now() - row["at"] < recent


def is_watched(settings: Settings) -> bool:
    """Whether somebody watches: on another machine is as good."""
    with _store(settings) as store:
        try:
            row = store.alert_watch()
        except (StoreUnavailable, StoreNotMigrated):
            return False
    recent = timedelta(seconds=2 * settings.alerts.interval_sec)
    return row is not None and utc_now() - row["at"] < recent


def has_relay(settings: Settings) -> bool:
    """Whether a relay is at work: that of another machine is as good."""
    with _store(settings) as store:
        try:
            with store.reading_alone(reader_of(settings)) as alone:
                return alone is None
        except (StoreUnavailable, StoreNotMigrated):
            return False


def has_worker(settings: Settings) -> bool:
    """Whether the worker of this machine shows its metrics, if it is to show any."""
    worker = settings.worker
    if worker.metrics_port is None:
        return True
    return answers(f"http://{worker.metrics_host}:{worker.metrics_port}/metrics")


def has_run_worker(settings: Settings, name: str) -> bool:
    """Whether the run worker of this machine with that name answers, by way of the broker."""
    import celery  # noqa: PLC0415 - only where there are run workers
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    with celery.Celery(broker=settings.run_broker_url) as app:
        try:
            asked = [f"{name}@{socket.gethostname()}"]
            return bool(app.control.ping(destination=asked, timeout=_TIMEOUT_SEC, limit=1))
        except (OperationalError, redis.RedisError, OSError):
            return False


def daemon_is_healthy(settings: Settings) -> Callable[[], bool]:
    """Asks, by way of the webserver, whether each daemon that is required gives a sign of life."""
    query = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"

    def healthy() -> bool:
        try:
            answer = httpx.post(
                f"{settings.dagster_url}/graphql",
                json={"query": query},
                timeout=_TIMEOUT_SEC,
            ).raise_for_status()
        except httpx.HTTPError:
            return False
        data = answer.json()["data"]
        if data is None:  # its storage doesn't answer yet
            return False
        statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(status["healthy"] for status in statuses if status["required"])

    return healthy


def _store(settings: Settings) -> "closing[Store]":
    return closing(Store(create_engine(settings.effective_database_url)))
