"""The server as it is deployed: workers, limits to what a client may do to it, and its end."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, NOW, raw_document, wait_until
from databases import migrate
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from api import health, metrics
from api.edge import Edge
from api.metrics import RequestMetrics
from riskhub import bootstrap, cast
from riskhub.auth import TokenBook
from riskhub.settings import Settings, load_settings
from riskhub.store import Filter, create_engine, open_store

SNAPSHOTS = "/risk-hub/worlds/equities/snapshots"
ROOT = Path(__file__).parents[2]
HEADER_LIMIT = 2_048


def app_that_tells_its_worker() -> FastAPI:
    """What the workers of some tests serve."""
    settings = load_settings()
    hub = bootstrap.hub(settings)
    app = FastAPI()
    app.state.edge = Edge(hub, settings, TokenBook.of(settings))
    app.state.hub = hub
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.add_middleware(RequestMetrics, telemetry=hub.telemetry)

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app


def app_that_does_not_start() -> FastAPI:
    """Fails where a worker's own start-up does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no")
        yield

    return FastAPI(lifespan=lifespan)


def command_with(app: Callable[[], FastAPI]) -> list[str]:
    factory = f"test_server:{app.__name__}"
    code = (
        "from api.server import serve; from riskhub.settings import load_settings; "
        f"serve(load_settings(), {factory!r})"
    )
    return [sys.executable, "-c", code]


class Server:
    """A running server on a port of the loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> httpx.Response:
        """On a connection of its own, so that any worker may answer."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).raise_for_status()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it ended between taking the connection and answering it
            return False
        return False

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.get("/healthz")
        except httpx.TransportError:
            return False
        return True

    def counted(self, route: str) -> float:
        """How many requests of a route the workers have counted together."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == "riskhub_http_requests_total" and sample.labels["route"] == route
        )


def environment(home: Path, port: int, **settings: object) -> dict[str, str]:
    names = {"home": home, "api_port": port} | settings
    others = {name: value for name, value in os.environ.items() if "RISKHUB" not in name}
    ours = {f"RISKHUB_{name.upper()}": str(value) for name, value in names.items()}
    paths = f"{ROOT}:{ROOT}/tests:{ROOT}/tests/e2e"
    # What a server leaves that is killed, it leaves in `home`.
    return others | ours | {"PYTHONPATH": paths, "TMPDIR": str(home)}


@contextmanager
def serving(
    home: Path, port: int, command: list[str] | None = None, **settings: object
) -> Iterator[Server]:
    """A server over the database in `home`, ready; killed outright at the end, if not before."""
    log = home / "api.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command or cast.command_api(),
            env=environment(home, port, **settings),
            cwd=home,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        server = Server(process, port, log)
        try:
            wait_until(server.is_up, within_sec=60)
            yield server
        finally:
            process.kill()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    engine = create_engine(Settings(home=tmp_path).effective_database_url)
    migrate(engine)
    engine.dispose()
    return tmp_path


@pytest.fixture
def impatient(home: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    """A server that waits half a second for a head."""
    with serving(home, free_port(), header_timeout_sec=0.5) as server:
        yield server


@pytest.fixture
def strict(home: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    """A server that takes no head of more than two kilobytes."""
    with serving(home, free_port(), max_header_bytes=HEADER_LIMIT) as server:
        yield server


def test_workers_have_one_sum_that_outlives_them(home: Path, free_port: Callable[[], int]) -> None:
    asked = 0
    workers = set()
    command = command_with(app_that_tells_its_worker)

    with serving(home, free_port(), command, api_workers=2) as server:

        def ask_until(there_are: int) -> None:
            nonlocal asked

            def ask() -> bool:
                nonlocal asked
                workers.add(int(server.get("/pid").text))
                asked += 1
                return len(workers) == there_are

            wait_until(ask, within_sec=60)

        ask_until(2)
        wait_until(lambda: server.counted("/pid") == asked)
        for killed in tuple(workers):
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: server.counted("/pid") == asked)
            ask_until(len(workers) + 1)
            assert server.counted("/pid") >= asked - 1  # the last may be counted after its answer
        wait_until(lambda: server.counted("/pid") == asked)


def test_workers_end_with_a_parent_that_was_killed(
    home: Path, free_port: Callable[[], int]
) -> None:
    with serving(home, free_port(), api_workers=2) as server:
        server.process.send_signal(signal.SIGKILL)
        wait_until(server.refuses)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_that_does_not_start_is_a_failure(
    home: Path, free_port: Callable[[], int], workers: int
) -> None:
    ended = subprocess.run(
        command_with(app_that_does_not_start),
        env=environment(home, free_port(), api_workers=workers),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr.decode()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """The one answer that comes before the server closes the connection."""
    with connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


def dribble(connection: socket.socket, piece: bytes) -> None:
    """Send an endless head, piece by piece, until there is an answer."""
    connection.settimeout(0.05)
    while True:
        connection.sendall(piece)
        with contextlib.suppress(TimeoutError):
            connection.recv(1, socket.MSG_PEEK)
            break
    connection.settimeout(60)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GE", b"GET /healthz HTTP/1.1\r\nHost: hub\r\n"])
def test_a_head_that_does_not_arrive_is_told_so(impatient: Server, sent: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(sent)
        status, problem = answer_of(connection)
    assert (status, problem["status"], problem["title"]) == (408, 408, "Request Timeout")


def test_a_head_that_dribbles_is_told_so_also_on_a_connection_that_was_served(
    impatient: Server,
) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 200 OK\r\n")
        connection.sendall(b"GET /")
        dribble(connection, b"x")
        assert answer_of(connection)[0] == 408


def read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        read += connection.recv(1)
    return read


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer secret-" + b"x" * HEADER_LIMIT + b"\r\n",
        b"A: secret-b\r\n" * (HEADER_LIMIT // 12),
        b"secret-" + b"x" * HEADER_LIMIT + b": y\r\n",
    ],
)
def test_a_head_that_is_too_large_is_refused_and_not_logged(strict: Server, line: bytes) -> None:
    with strict.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n" + line + b"\r\n")
        status, problem = answer_of(connection)
    assert (status, problem["status"]) == (431, 431)
    assert "secret" not in strict.log.read_text()


@pytest.mark.parametrize("piece", [b"x" * 500, b"\r\nX: y" * 80])
def test_a_head_that_never_ends_is_refused_before_it_does(strict: Server, piece: bytes) -> None:
    with strict.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: hub\r\nX: ")
        dribble(connection, piece)
        assert answer_of(connection)[0] == 431


def test_the_trailer_of_a_body_counts_as_its_head(strict: Server) -> None:
    with strict.connect() as connection:
        connection.sendall(
            f"POST {SNAPSHOTS} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n"
            "X-Actor: optimizer\r\nX-Stage: paper\r\n\r\n1\r\n{\r\n0\r\nX: ".encode()
        )
        dribble(connection, b"x" * 500)
        assert answer_of(connection)[0] == 431


def test_requests_that_are_sent_at_once_are_all_answered(strict: Server) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: hub\r\n"
    with strict.connect() as connection:
        connection.sendall((head + b"\r\n") * 100 + head + b"Connection: close\r\n\r\n")
        with connection.makefile("rb") as stream:
            assert stream.read().count(b"HTTP/1.1 200 OK\r\n") == 101


def test_a_url_that_is_too_long_is_refused(strict: Server) -> None:
    with strict.connect() as connection:
        connection.sendall(b"GET /" + b"x" * HEADER_LIMIT + b" HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert answer_of(connection)[0] == 431


def test_a_large_body_is_no_large_head(strict: Server) -> None:
    body = raw_document(provenance={"note": "x" * 100 * HEADER_LIMIT})
    url = f"http://127.0.0.1:{strict.port}{SNAPSHOTS}"
    assert httpx.post(url, content=body, headers=HEADERS).status_code == 201
    chunks = (body[start : start + 1_000] for start in range(0, len(body), 1_000))
    assert httpx.post(url, content=chunks, headers=HEADERS).status_code == 200


def test_what_is_no_http_is_refused_as_a_problem(strict: Server) -> None:
    with strict.connect() as connection:
        connection.sendall(b"\x16\x03\x01 secret\r\n\r\n")
        status, problem = answer_of(connection)
    assert (status, problem["title"]) == (400, "Bad Request")
    assert "secret" not in strict.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_in_flight_is_answered_and_the_process_ends_well(
    home: Path, free_port: Callable[[], int], workers: int
) -> None:
    body = raw_document()
    head = (
        f"POST {SNAPSHOTS} HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(body)}\r\n"
        "X-Actor: optimizer\r\nX-Stage: paper\r\nExpect: 100-continue\r\n\r\n"
    )
    with serving(home, free_port(), api_workers=workers) as server, server.connect() as connection:
        connection.sendall(head.encode())
        # Only the app itself says so: the request is in its hands.
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.process.terminate()
        wait_until(server.refuses)
        assert server.process.poll() is None
        connection.sendall(body)
        with connection.makefile("rb") as stream:
            assert re.match(rb"HTTP/1.1 201 Created\r\n", stream.read())
        assert server.process.wait(60) == 0
    assert server.log.read_text() == ""
    store = open_store(Settings(home=home).effective_database_url)
    assert store.by_version("equities", "v1", Filter(include_expired=True), now=NOW) is not None
    store.close()


def test_on_sighup_new_workers_with_new_code_take_over_before_the_old_ones_go(
    home: Path, free_port: Callable[[], int]
) -> None:
    def deploy(text: str) -> None:
        (home / "on_disk.py").write_text(
            "from fastapi import FastAPI\n\n\ndef make():\n    app = FastAPI()\n"
            f"    app.get('/healthz')(lambda: {text!r})\n    return app\n"
        )

    code = (
        "from api.server import serve; from riskhub.settings import load_settings; "
        "serve(load_settings(), 'on_disk:make')"
    )
    deploy("old")
    with serving(home, free_port(), [sys.executable, "-c", code], api_workers=2) as server:
        assert server.get("/healthz").json() == "old"
        deploy("the new one")
        server.process.send_signal(signal.SIGHUP)

        def only_new_ones_answer() -> bool:
            try:  # a refused connection is a failure of the test
                return {server.get("/healthz").json() for _ in range(10)} == {"the new one"}
            except httpx.RemoteProtocolError:  # taken by an old one as it went
                return False

        wait_until(only_new_ones_answer, within_sec=60)
        server.process.terminate()
        assert server.process.wait(60) == 0
