"""The embedded profile: what runs on one machine, in which directory, on which ports.

Each process is also a `riskhub` command of its own; this module says how they fit together.
"""

import errno
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis

from riskhub import bootstrap
from riskhub.errors import RiskHubError
from riskhub.settings import Settings
from riskhub.supervisor import Child

_REPOSITORY = Path(__file__).resolve().parent.parent
_PROBE_TIMEOUT_SEC = 2.0


class HomeInUse(RiskHubError):
    """Another `riskhub up` works in this directory."""


class PortTaken(RiskHubError):
    """Something listens where a process of ours should."""


@contextmanager
def exclusive_home(settings: Settings) -> Iterator[None]:
    """Hold the home directory for one `riskhub up`; the system lets go of it when we die.

    Raises:
        HomeInUse: naming the other process.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / "up.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            lock.seek(0)
            raise HomeInUse(
                f"another `riskhub up` (process {lock.read().strip() or 'unknown'}) uses "
                f"{settings.home.resolve()}; stop it, or set RISKHUB_HOME to another directory"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def check_ports(settings: Settings) -> None:
    """Say at once, and for all of them, which ports are taken and how to choose others.

    Raises:
        PortTaken: naming each port and its setting.
    """
    wanted = {
        "RISKHUB_API_PORT": (settings.api_host, settings.api_port),
        "RISKHUB_DAGSTER_PORT": (settings.dagster_host, settings.dagster_port),
        "RISKHUB_CODE_SERVER_PORT": ("127.0.0.1", settings.code_server_port),
    }
    if settings.redis_url is None:
        wanted["RISKHUB_EMBEDDED_REDIS_PORT"] = ("127.0.0.1", settings.embedded_redis_port)
    taken = [
        f"port {port} is taken (choose another with {name})"
        for name, (host, port) in wanted.items()
        if not _is_free(host, port)
    ]
    if taken:
        raise PortTaken("; ".join(taken))


def prepare_dagster_home(settings: Settings) -> None:
    """Lay out ``$DAGSTER_HOME``: the instance's settings, and a workspace of one code server."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_REPOSITORY / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    workspace_file(settings).write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        "      host: 127.0.0.1\n"
        f"      port: {settings.code_server_port}\n"
        "      location_name: riskhub\n"
    )


def workspace_file(settings: Settings) -> Path:
    """The workspace that the webserver and the daemon share."""
    return settings.dagster_home / "workspace.yaml"


def environment(settings: Settings) -> dict[str, str]:
    """What every process of the profile finds in its environment."""
    return dict(os.environ) | {
        "RISKHUB_HOME": str(settings.home.resolve()),
        "DAGSTER_HOME": str(settings.dagster_home),
        "RISKHUB_DAGSTER_EVENTS": str(settings.dagster_home / "events"),
        # Events of a range run are stored as batches of this size.
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "PYTHONUNBUFFERED": "1",
        # One numerical thread: runs share the machine, and the matrices are small.
        "OPENBLAS_NUM_THREADS": "1",
    }


def foundations(settings: Settings) -> list[Child]:
    """What everything else needs: the stand-in for Redis, the API, the code server."""
    children = [
        Child("api", command_api(settings), lambda: _answers(f"{settings.api_url}/readyz")),
        Child(
            "code",
            command_code_server(settings),
            lambda: not _is_free("127.0.0.1", settings.code_server_port),
        ),
    ]
    if settings.redis_url is None:
        redis_child = Child("redis", command_redis(settings), lambda: _pings(settings))
        children.insert(0, redis_child)
    return children


def orchestration(settings: Settings) -> list[Child]:
    """Dagster's webserver and daemon, on the code server."""
    return [
        Child(
            "dagster",
            command_webserver(settings),
            lambda: _answers(f"{settings.dagster_url}/server_info"),
        ),
        Child("daemon", command_daemon(settings), _daemon_is_healthy(settings)),
    ]


def live_producer(settings: Settings) -> Child:
    """The demo's live producer."""
    command = [sys.executable, "-m", "riskhub", "demo", "live"]
    return Child("live", command, lambda: _answers(f"{settings.api_url}/healthz"))


def command_redis(settings: Settings) -> list[str]:
    """The stand-in for Redis."""
    return [sys.executable, "-m", "riskhub", "redis", "--port", str(settings.embedded_redis_port)]


def command_api(settings: Settings) -> list[str]:
    """The API under uvicorn."""
    return [
        sys.executable, "-m", "uvicorn", "--factory", "api.app:app_from_environment",
        "--host", settings.api_host, "--port", str(settings.api_port),
        "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip


def command_code_server(settings: Settings) -> list[str]:
    """The gRPC server that holds our Dagster definitions, and launches runs."""
    return [
        sys.executable, "-m", "dagster", "api", "grpc",
        "--module-name", "riskhub_dagster.definitions", "--location-name", "riskhub",
        "--host", "127.0.0.1", "--port", str(settings.code_server_port),
        "--log-level", "warning", "--inject-env-vars-from-instance",
    ]  # fmt: skip


def command_webserver(settings: Settings) -> list[str]:
    """Dagster's webserver."""
    return [
        sys.executable, "-m", "dagster_webserver",
        "--host", settings.dagster_host, "--port", str(settings.dagster_port),
        "--workspace", str(workspace_file(settings)),
        "--log-level", "warning", "--code-server-log-level", "warning",
    ]  # fmt: skip


def command_daemon(settings: Settings) -> list[str]:
    """Dagster's daemon: sensors, schedules, the run queue and backfills."""
    return [
        sys.executable, "-m", "dagster._daemon", "run",
        "--workspace", str(workspace_file(settings)),
        "--log-level", "warning", "--code-server-log-level", "warning",
    ]  # fmt: skip


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise PortTaken(f"can't listen on {host}:{port}: {error.strerror}") from error
    return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_PROBE_TIMEOUT_SEC).is_success
    except httpx.TransportError:
        return False


def _pings(settings: Settings) -> bool:
    client = bootstrap.redis_client(settings)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _daemon_is_healthy(settings: Settings) -> Callable[[], bool]:
    query = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"

    def healthy() -> bool:
        try:
            answer = httpx.post(
                f"{settings.dagster_url}/graphql",
                json={"query": query},
                timeout=_PROBE_TIMEOUT_SEC,
            ).raise_for_status()
        except httpx.HTTPError:
            return False
        statuses = answer.json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(status["healthy"] for status in statuses if status["required"])

    return healthy
