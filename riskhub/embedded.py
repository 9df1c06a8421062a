"""What `riskhub up` makes sure of on a machine: a directory of its own, free ports, a Redis.

Which processes it then starts is said by `riskhub.cast`.
"""

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from riskhub import bootstrap
from riskhub.errors import RiskHubError
from riskhub.settings import CONFIG_VARIABLE, Settings, config_file, files_in_environment
from riskhub.shipped import shipped_file

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
        instance = "deploy/dagster/dagster.yaml" if settings.run_broker_url else "dagster.yaml"
        shutil.copyfile(shipped_file(instance), settings.dagster_home / "dagster.yaml")
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
    # As Dagster's own settings in production name them; they may stand in the file.
    given = {
        "RISKHUB_DAGSTER_DATABASE_URL": settings.dagster_database_url,
        "RISKHUB_RUN_BROKER_URL": settings.run_broker_url,
    }
    theirs = {name: url for name, url in given.items() if url}
    ours = {
        "DAGSTER_HOME": str(settings.dagster_home),
        "RISKHUB_DAGSTER_EVENTS": str(settings.dagster_home / "events"),
        # Events of a range run are stored as batches of this size.
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "PYTHONUNBUFFERED": "1",
        # One numerical thread: runs share the machine, and the matrices are small.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return dict(os.environ) | files_in_environment() | absolute | theirs | ours


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
