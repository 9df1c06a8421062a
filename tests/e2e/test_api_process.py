"""The API as it is deployed: a process on a socket, with clients that are slow or leave."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, raw_document, wait_until
from served import api_process, environment, log_of, migrate_home

from riskhub import cast

SNAPSHOTS = "/risk-hub/worlds/equities/snapshots"
BATCH = "/risk-hub/snapshots:batch"
# Two lines that are whole, and one that isn't.
BEGUN = {
    SNAPSHOTS: raw_document()[:-10],
    BATCH: b"\n".join(raw_document(version=v, world_id="equities") for v in "abc")[:-10],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    migrate_home(tmp_path)
    return tmp_path


@pytest.fixture
def impatient(home: Path, free_port: Callable[[], int]) -> Iterator[httpx.Client]:
    """A client of a server that waits half a second for more of a body."""
    port = free_port()
    with (
        api_process(home, port, RISKHUB_BODY_TIMEOUT_SEC="0.5"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        yield client


def begin(client: httpx.Client, path: str, framing: str) -> socket.socket:
    """A connection on which a post was begun, and its body not finished."""
    assert client.base_url.port is not None
    connection = socket.create_connection(("127.0.0.1", client.base_url.port), timeout=60)
    lines = [f"POST {path} HTTP/1.1", "Host: hub"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    body = BEGUN[path]
    if framing == "length":
        lines.append(f"Content-Length: {len(body) + 10}")
    else:
        lines.append("Transfer-Encoding: chunked")
        body = f"{len(body) + 10:x}\r\n".encode() + body
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def nothing_landed(client: httpx.Client) -> bool:
    found = client.get(SNAPSHOTS, params={"include_expired": "true"})
    return bool(found.json() == {"snapshots": [], "next": None})


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", [SNAPSHOTS, BATCH])
def test_a_body_that_stops_half_way_is_told_so_and_lands_nothing(
    impatient: httpx.Client, home: Path, path: str, framing: str
) -> None:
    with begin(impatient, path, framing) as connection, connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")  # until the server closes
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in head.lower()
    problem = json.loads(body)
    assert (problem["status"], problem["errors"][0]["field"]) == (408, "body")
    assert nothing_landed(impatient)
    assert log_of(home) == ""


@pytest.mark.parametrize("path", [SNAPSHOTS, BATCH])
def test_a_client_that_leaves_half_way_leaves_no_trace_but_a_count(
    home: Path, free_port: Callable[[], int], path: str
) -> None:
    port = free_port()
    with (
        api_process(home, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        begin(client, path, "length").close()
        left = f'method="POST",route="{path.replace("equities", "{world_id}")}",status="499"}} 1.0'
        wait_until(lambda: left in client.get("/metrics").text)
        assert nothing_landed(client)
        assert client.post(SNAPSHOTS, content=raw_document()).status_code == 201
    assert log_of(home) == ""


def test_a_client_that_leaves_before_its_answer_leaves_no_trace(
    home: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with (
        api_process(home, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        for number in range(20):
            connection = begin(client, SNAPSHOTS, "length")
            # A reset, not an orderly end, and with the body in flight.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(raw_document()[-10:])
            connection.close()
            body = raw_document(version=f"v {number}")
            assert client.post(SNAPSHOTS, content=body).status_code == 201
    assert log_of(home) == ""


def test_a_batch_streams_through_a_socket(home: Path, free_port: Callable[[], int]) -> None:
    lines = [raw_document(version=f"v{number}", world_id="equities") for number in range(1_500)]
    port = free_port()
    with (
        api_process(home, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        for status in (201, 200):
            sent = (line + b"\n" for line in lines)
            response = client.post(BATCH, content=sent, timeout=60)
            answers = [json.loads(line) for line in response.iter_lines()]
            assert [answer["line"] for answer in answers] == list(range(1, 1_501))
            assert {answer["status"] for answer in answers} == {status}


def test_a_stopped_process_finishes_what_it_was_given(
    home: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with api_process(home, port) as process:
        url = f"http://127.0.0.1:{port}{SNAPSHOTS}"
        assert httpx.post(url, content=raw_document(), headers=HEADERS).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert log_of(home) == ""


def test_a_database_that_nobody_migrated_ends_the_process_with_a_reason(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ended = subprocess.run(
        cast.command_api(),
        env=environment(tmp_path, RISKHUB_API_PORT=str(free_port())),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "riskhub migrate" in ended.stderr
