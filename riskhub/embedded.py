"""The embedded profile: what runs on one machine, in which directory, on which ports.

Each process is also a `riskhub` command of its own; this module says how they fit together.
"""

import errno
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import redis

from riskhub import bootstrap
from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.governor import lease
from riskhub.hub import utc_now
from riskhub.settings import CONFIG_VARIABLE, Settings, config_file, files_in_environment
from riskhub.shipped import shipped_file
from riskhub.store import Store, create_engine
from riskhub.supervisor import Child

_PROBE_TIMEOUT_SEC = 2.0
_POLL_SEC = 0.1
# How long the children of a killed `riskhub up` may take to end before their ports are "taken".
_ORPHANS_END_WITHIN_SEC = 20.0


class HomeInUse(RiskHubError):
    """Another `riskhub up` works in this directory."""


class HomeUnusable(RiskHubError):
    """The home directory can't be made, or not be written to."""


class RedisUnreachable(RiskHubError):
    """A Redis was configured, and doesn't answer."""


class PortTaken(RiskHubError):
    """Something listens where a process of ours should."""


@contextmanager
def exclusive_home(settings: Settings) -> Iterator[bool]:
    """Hold the home directory for one `riskhub up`; the system lets go of it when we die.

    Gives whether the one before was killed: it had no time to take its name off.

    Raises:
        HomeInUse: naming the other process.
        HomeUnusable: it can't be made or written to.
    """
    with _named_refusals(settings):
        settings.home.mkdir(parents=True, exist_ok=True)
        lock = (settings.home / "up.lock").open("a+")
    with lock:
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
        lock.seek(0)
        was_killed = bool(lock.read())
        with _named_refusals(settings):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        try:
            yield was_killed
        finally:
            lock.truncate(0)


def check_ports(settings: Settings, *, orphans: bool = False) -> None:
    """Say at once, and for all of them, which ports are taken and how to choose others.

    Args:
        orphans: children of a killed `riskhub up` may be about to end; wait for them a while.

    Raises:
        PortTaken: naming each port and its setting.
    """
    wanted = {
        "RISKHUB_API_PORT": (settings.api_host, settings.api_port),
        "RISKHUB_DAGSTER_PORT": (settings.dagster_host, settings.dagster_port),
        "RISKHUB_CODE_SERVER_PORT": (settings.code_server_host, settings.code_server_port),
    }
    if settings.redis_url is None:
        wanted["RISKHUB_EMBEDDED_REDIS_PORT"] = ("127.0.0.1", settings.embedded_redis_port)
    names_of: dict[int, list[str]] = {}
    for name, (_, port) in wanted.items():
        names_of.setdefault(port, []).append(name)
    shared = [
        f"{' and '.join(names)} are the same, {port}"
        for port, names in names_of.items()
        if names[1:]
    ]
    if shared:
        raise PortTaken("; ".join(shared))
    deadline = time.monotonic() + (_ORPHANS_END_WITHIN_SEC if orphans else 0.0)
    while taken := [
        f"port {port} is taken (choose another with {name})"
        for name, (host, port) in wanted.items()
        if not _is_free(host, port)
    ]:
        if time.monotonic() >= deadline:
            raise PortTaken("; ".join(taken))
        time.sleep(_POLL_SEC)


def check_redis(settings: Settings) -> None:
    """Say at once that a Redis which was configured doesn't answer.

    Raises:
        RedisUnreachable: naming its setting.
    """
    if settings.redis_url is None:
        return
    try:
        with bootstrap.redis_client(settings) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        # The URL itself is not shown: it may hold a password.
        raise RedisUnreachable(f"the Redis of RISKHUB_REDIS_URL can't be used: {error}") from error


def prepare_dagster_home(settings: Settings) -> None:
    """Lay out ``$DAGSTER_HOME``: the instance's settings, and a workspace of one code server.

    Raises:
        HomeUnusable: it can't be written.
    """
    with _named_refusals(settings):
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped_file("dagster.yaml"), settings.dagster_home / "dagster.yaml")
        host, port = settings.code_server
        workspace_file(settings).write_text(
            "load_from:\n"
            "  - grpc_server:\n"
            f'      host: "{host}"\n'
            f"      port: {port}\n"
            "      location_name: riskhub\n"
        )


def workspace_file(settings: Settings) -> Path:
    """The workspace that the webserver and the daemon share."""
    return settings.dagster_home / "workspace.yaml"


def environment(settings: Settings) -> dict[str, str]:
    """What every process of the profile finds in its environment.

    Paths are absolute there: a process may work in another directory than we do.
    """
    paths = {
        CONFIG_VARIABLE: config_file(),
        "RISKHUB_HOME": settings.home,
        "RISKHUB_PRICES_PATH": settings.prices_path,
        "RISKHUB_EXIT_RULES_PATH": settings.exit_rules_path,
        "RISKHUB_TOKENS_FILE": settings.tokens_file,
        "RISKHUB_BLOBS__DIRECTORY": settings.blobs.directory,
    }
    absolute = {name: str(path.resolve()) for name, path in paths.items() if path}
    ours = {
        "DAGSTER_HOME": str(settings.dagster_home),
        "RISKHUB_DAGSTER_EVENTS": str(settings.dagster_home / "events"),
        # Events of a range run are stored as batches of this size.
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "PYTHONUNBUFFERED": "1",
        # One numerical thread: runs share the machine, and the matrices are small.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return dict(os.environ) | files_in_environment() | absolute | ours


def foundations(settings: Settings) -> list[Child]:
    """What everything else needs: the stand-in for Redis, the API, the code server."""
    children = [
        Child(
            "api",
            command_api(),
            lambda: answers(f"{settings.api_url}/readyz"),
            about=settings.api_url,
        ),
        Child(
            "code",
            command_code_server(settings),
            lambda: not _is_free(settings.code_server_host, settings.code_server_port),
            about="the Dagster definitions, and the runs",
            # Runs are its children and end with it; Dagster has no other way to hear of it.
            after_revival=[*command_recover(), "--runs-to-retry"],
        ),
    ]
    if settings.redis_url is None:
        redis_child = Child(
            "redis",
            command_redis(settings),
            lambda: _pings(settings),
            about=f"{settings.effective_redis_url} (a stand-in, in memory)",
        )
        children.insert(0, redis_child)
    return children


def orchestration(settings: Settings) -> list[Child]:
    """What decides: Dagster's webserver and daemon, the governor, the exit engine, the alerts."""
    return [
        Child(
            "governor",
            command_governor(),
            lambda: _is_governed(settings),
            about=f"budgets every {settings.governor.interval_sec:g} s",
        ),
        Child(
            "exits",
            command_exit_engine(),
            lambda: _has_exit_engine(settings),
            about="signals by the rules of exit_rules_path",
        ),
        Child(
            "dagster",
            command_webserver(settings),
            lambda: answers(f"{settings.dagster_url}/server_info"),
            about=settings.dagster_url,
            chatter=" - INFO - ",
        ),
        Child(
            "daemon",
            command_daemon(settings),
            _daemon_is_healthy(settings),
            about="sensors, schedules and backfills",
            chatter="No cursor for event type",
        ),
        Child(
            "alerts",
            command_alerts(),
            lambda: _is_watched(settings),
            about="what is wrong, told once and resolved once",
        ),
    ]


def live_producer(settings: Settings) -> Child:
    """The demo's live producer."""
    command = [sys.executable, "-m", "riskhub", "demo", "live"]
    return Child(
        "live",
        command,
        lambda: answers(f"{settings.api_url}/healthz"),
        about="posts six paper worlds every 30 s",
    )


def command_recover() -> list[str]:
    """Puts right what killed processes left in Dagster's storage."""
    return [sys.executable, "-m", "riskhub_dagster.recover"]


def command_redis(settings: Settings) -> list[str]:
    """The stand-in for Redis."""
    return [sys.executable, "-m", "riskhub", "redis", "--port", str(settings.embedded_redis_port)]


def command_api() -> list[str]:
    """The API, which reads address and workers from the settings that it finds itself."""
    return [sys.executable, "-m", "api.server"]


def command_code_server(settings: Settings) -> list[str]:
    """The gRPC server that holds our Dagster definitions, and launches runs."""
    return [
        sys.executable, "-m", "dagster", "api", "grpc",
        "--module-name", "riskhub_dagster.definitions", "--location-name", "riskhub",
        "--host", settings.code_server_host, "--port", str(settings.code_server_port),
        "--log-level", "warning", "--inject-env-vars-from-instance",
    ]  # fmt: skip


def command_governor() -> list[str]:
    """The governor's loop."""
    return [sys.executable, "-m", "riskhub", "governor"]


def command_exit_engine() -> list[str]:
    """The exit engine's loop."""
    return [sys.executable, "-m", "riskhub", "exit-engine"]


def command_alerts() -> list[str]:
    """The loop of alerts, without the other commands' memory."""
    return [sys.executable, "-m", "riskhub.alerts"]


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


@contextmanager
def _named_refusals(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or settings.home
        raise HomeUnusable(
            f"can't write to {where}: {error.strerror}; make room for it, or set RISKHUB_HOME to "
            "another directory"
        ) from error


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


def answers(url: str) -> bool:
    """Whether something answers a GET with success."""
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


def _is_governed(settings: Settings) -> bool:
    """Whether somebody holds the lease: the governor of another machine is as good."""
    with bootstrap.redis_client(settings) as client:
        try:
            return lease.holder(client) is not None
        except redis.RedisError:
            return False


def _has_exit_engine(settings: Settings) -> bool:
    """Whether an exit engine is at work: that of another machine is as good."""
    engine = create_engine(settings.effective_database_url)
    try:
        row = Store(engine).exit_engine()
    except (StoreUnavailable, StoreNotMigrated):
        return False
    finally:
        engine.dispose()
    # It writes at each look; what one wrote that has ended since is no sign of life.
    recent = timedelta(seconds=2 * settings.exits.look_sec)
    return row is not None and utc_now() - row["at"] < recent


def _is_watched(settings: Settings) -> bool:
    """Whether somebody watches: on another machine is as good."""
    engine = create_engine(settings.effective_database_url)
    try:
        row = Store(engine).alert_watch()
    except (StoreUnavailable, StoreNotMigrated):
        return False
    finally:
        engine.dispose()
    recent = timedelta(seconds=2 * settings.alerts.interval_sec)
    return row is not None and utc_now() - row["at"] < recent


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
        data = answer.json()["data"]
        if data is None:  # its storage doesn't answer yet
            return False
        statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(status["healthy"] for status in statuses if status["required"])

    return healthy
