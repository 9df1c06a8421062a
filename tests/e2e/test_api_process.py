"""The API as it is deployed: a process on a socket, killed in the middle of its work."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, raw_document, wait_until

from riskhub.settings import Settings
from riskhub.store import create_engine, migrate

SNAPSHOTS = "/risk-hub/worlds/equities/snapshots"
PRODUCERS = 4
ENOUGH = 100


@contextmanager
def api_process(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The API over the database in `home`, ready; killed outright at the end, if not before."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:app_from_environment"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RISKHUB_")}
    with (
        (home / "api.log").open("ab") as log,
        subprocess.Popen(
            [*command, "--port", str(port), "--no-access-log"],
            env=ours | {"RISKHUB_HOME": str(home)},
            cwd=Path(__file__).parents[2],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or is_ready(port), within_sec=60)
            assert process.poll() is None, (home / "api.log").read_text()
            yield process
        finally:
            process.kill()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def home(tmp_path: Path) -> Path:
    engine = create_engine(Settings(home=tmp_path, database_url=None).effective_database_url)
    migrate(engine)
    engine.dispose()
    return tmp_path


def test_what_was_acknowledged_survives_a_kill(home: Path, free_port: Callable[[], int]) -> None:
    acknowledged: dict[str, bytes] = {}
    enough = threading.Event()

    def produce(port: int, number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client:
            for count in range(100_000):
                version = f"{number}-{count}"
                try:
                    response = client.post(SNAPSHOTS, content=raw_document(version=version))
                except (
                    httpx.TransportError
                ):  # the kill; what it left unanswered is promised nothing
                    return
                assert response.status_code == 201, response.text
                acknowledged[version] = response.content
                if len(acknowledged) >= ENOUGH:
                    enough.set()

    port = free_port()
    with api_process(home, port) as process, ThreadPoolExecutor(PRODUCERS) as pool:
        producers = [pool.submit(produce, port, number) for number in range(PRODUCERS)]
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
        for producer in producers:
            producer.result(60)
    assert process.returncode == -signal.SIGKILL

    port = free_port()
    with (
        api_process(home, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        for version, body in acknowledged.items():
            found = client.get(f"{SNAPSHOTS}/lookup", params={"version": version})
            assert (found.status_code, found.content) == (200, body)
        retried = next(iter(acknowledged))
        again = client.post(SNAPSHOTS, content=raw_document(version=retried))
        assert (again.status_code, again.content) == (200, acknowledged[retried])


def test_a_batch_streams_through_a_socket(home: Path, free_port: Callable[[], int]) -> None:
    lines = [raw_document(version=f"v{number}", world_id="equities") for number in range(1_500)]
    port = free_port()
    with (
        api_process(home, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client,
    ):
        for status in (201, 200):
            sent = (line + b"\n" for line in lines)
            response = client.post("/risk-hub/snapshots:batch", content=sent, timeout=60)
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
        process.terminate()
        process.wait(60)
    assert "Traceback" not in (home / "api.log").read_text()
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_database_that_nobody_migrated_ends_the_process_with_a_reason(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--factory", "api.app:app_from_environment"],
        env=os.environ | {"RISKHUB_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "riskhub migrate" in ended.stderr
