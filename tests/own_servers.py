"""Servers that a test kills and starts again: a Postgres and a Redis of its own, by their ports."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg
import redis
import service_resolution
from builders import wait_until
from sqlalchemy import make_url


class OwnServer:
    """A server of the test's own, as `service_resolution` started it; by its port."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = make_url(url).port or 0
        self._process = self._listener()
        self._command = _command_of(self._process, self.port)
        self._options: dict[str, Any] = {"cwd": self._process.cwd()}
        if os.geteuid() == 0:  # Postgres refuses to run as root
            owner = self._process.uids().real, self._process.gids().real
            self._options |= {"user": owner[0], "group": owner[1], "extra_groups": []}
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def directory(self) -> str:
        """Where it runs; what it keeps is there, or below."""
        return str(self._options["cwd"])

    @property
    def process(self) -> psutil.Process:
        """It, now."""
        return self._process

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends it, and return when it has ended."""
        self._process.send_signal(number)
        self._process.wait(30)

    def start(self, answers: Callable[[], bool]) -> None:
        """Start it again, as often as it takes: what a killed one held is let go of in time."""

        def is_up() -> bool:
            if not self._started or self._started[-1].poll() is not None:
                self._started.append(
                    subprocess.Popen(
                        self._command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                        **self._options,
                    )
                )
            return answers() and self._started[-1].poll() is None

        wait_until(is_up)
        self._process = psutil.Process(self._started[-1].pid)

    def close(self) -> None:
        """End what was started here; the first one ends with the form that served it."""
        for started in self._started:
            if started.poll() is None:
                started.send_signal(signal.SIGCONT)
                started.send_signal(signal.SIGINT)
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()

    def _listener(self) -> psutil.Process:
        children = psutil.Process().children(recursive=True)
        (found,) = [child for child in children if self._is_listened_to_by(child)]
        return found

    def _is_listened_to_by(self, process: psutil.Process) -> bool:
        try:
            connections = process.net_connections("inet4")
        except psutil.Error:  # it has just ended
            return False
        listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
        return self.port in listening


def _command_of(process: psutil.Process, port: int) -> list[str]:
    command = process.cmdline()
    binary, _, title = command[0].partition(" ")
    if not title:
        return command
    # Redis writes over its own command line.
    with redis.Redis(port=port) as client:
        kept = client.config_get("appendonly")["appendonly"]
    return [
        *(binary, "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--appendonly", kept),
    ]


@contextmanager
def own_server(form: service_resolution.Form) -> Iterator[OwnServer]:
    """Serve a form, as a server that can be killed."""
    with form.serve() as url:
        server = OwnServer(url)
        try:
            yield server
        finally:
            server.close()


def without(variable: str) -> dict[str, str]:
    """The environment, without a server that is somebody else's: ours is going to be killed."""
    return {name: value for name, value in os.environ.items() if name != variable}


def postgres_answers(server: OwnServer) -> bool:
    """Whether it takes sessions."""
    url = make_url(server.url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def redis_answers(server: OwnServer) -> bool:
    """Whether it answers, with all that it has read."""
    try:
        with redis.Redis(port=server.port, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
