"""The feed of events as it is deployed: its streams hold up nobody, and are resumed."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, raw_document
from served import api_process, log_of, migrate_home

SNAPSHOTS = "/risk-hub/worlds/equities/snapshots"
EVENTS = "/risk-hub/events"
STREAM = {"Accept": "text/event-stream"}


def data_in(lines: Iterator[str]) -> Iterator[str]:
    return (line.removeprefix("data: ") for line in lines if line.startswith("data: "))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_process_that_ends_ends_its_streams_and_another_goes_on_behind_them(
    tmp_path: Path, free_port: Callable[[], int], workers: str
) -> None:
    migrate_home(tmp_path)
    port = free_port()
    settings = {"RISKHUB_API_WORKERS": workers, "RISKHUB_DRAIN_SEC": "60"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=90) as client:

        def land(version: str) -> None:
            assert client.post(SNAPSHOTS, content=raw_document(version=version)).status_code == 201

        with api_process(tmp_path, port, **settings) as process:
            with client.stream("GET", EVENTS, headers=STREAM) as stream:
                lines = stream.iter_lines()
                land("v1")
                first = json.loads(next(data_in(lines)))
                process.terminate()
                ended = time.monotonic()
                assert list(data_in(lines)) == []
            assert process.wait(90) == 0
            assert time.monotonic() - ended < 30
        with api_process(tmp_path, port, **settings):
            land("v2")
            resumed = {**STREAM, "Last-Event-ID": first["sequence"]}
            with client.stream("GET", EVENTS, headers=resumed) as stream:
                second = json.loads(next(data_in(stream.iter_lines())))
    assert [first["subject"], second["subject"]] == ["equities/v1", "equities/v2"]
    assert log_of(tmp_path) == ""
