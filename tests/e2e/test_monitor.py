"""`riskhub monitor` as a monitoring system runs it: a process, against a hub on a socket."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import raw_document
from served import api_process, environment, migrate_home

TOKEN = "t0k3n"
COMMAND = (sys.executable, "-m", "riskhub", "monitor")


@dataclass
class Place:
    """A hub on a socket, and whoever monitors it: without settings of its own."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, world: str, age_seconds: float, stage: str = "paper") -> None:
        as_of = datetime.now(UTC) - timedelta(seconds=age_seconds)
        answer = httpx.post(
            f"{self.url}/risk-hub/worlds/{world}/snapshots",
            content=raw_document(as_of=as_of.isoformat(), version=f"{as_of}"),
            headers={"X-Actor": "a", "X-Stage": stage, "Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 201, answer.text

    def command(self, *arguments: str, token: str = TOKEN) -> list[str]:
        return [*COMMAND, "--base-url", self.url, "--token", token, *arguments]

    def monitor(self, *arguments: str, token: str = TOKEN) -> tuple[int, list[str]]:
        done = subprocess.run(
            self.command(*arguments, token=token),
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home / "elsewhere") | {"COLUMNS": "120", "TERM": "xterm"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from service_resolution import free_port

    home = tmp_path_factory.mktemp("monitored")
    migrate_home(home)
    port = free_port()
    freshness = {
        "expected": ["never/live"],
        "rules": [{"world": "lenient", "stale_after_sec": 90_000, "critical_after_sec": 99_000}],
    }
    with api_process(home, port, RISKHUB_TOKEN=TOKEN, RISKHUB_FRESHNESS=json.dumps(freshness)):
        made = Place(home, port)
        made.post("w1", 0)
        made.post("late", 700)
        made.post("too-late", 2_101)
        made.post("lenient", 2_101)
        made.post("history", 10**6, "backtest")
        yield made


def test_exit_codes_and_output_are_those_of_a_plugin(place: Place) -> None:
    code, lines = place.monitor("--world", "w1", "--stage", "paper")
    assert code == 0
    assert re.fullmatch(r"OK - w1 paper \d+ s old \| age_w1=\d+s;600;1800", lines[0]), lines
    code, lines = place.monitor("--world", "w1", "--world", "late", "--stage", "paper")
    assert code == 1
    assert re.fullmatch(
        r"WARNING - 1 of 2 worlds: late paper \d+ s old, stale "
        r"\| age_late=\d+s;600;1800 age_w1=\d+s;600;1800",
        lines[0],
    ), lines
    assert [line.split()[0] for line in lines] == ["WARNING", "WARNING", "OK"]
    code, lines = place.monitor("--world", "too-late", "--stage", "paper")
    assert code == 2
    assert lines[0].startswith("CRITICAL - too-late paper 2,"), lines
    code, lines = place.monitor("--world", "nowhere")
    assert (code, lines[0]) == (2, "CRITICAL - nowhere missing | age_nowhere=U;600;1800")


def test_all_worlds_are_seen_as_the_hub_has_them(place: Place) -> None:
    code, lines = place.monitor("--json")
    told: dict[str, Any] = json.loads(lines[0])
    states = {f"{each['world_id']}/{each['stage']}": each["state"] for each in told["worlds"]}
    assert (code, told["exit_code"], told["status"]) == (2, 2, "critical")
    assert states == {
        **{"never/live": "missing", "too-late/paper": "critical", "late/paper": "stale"},
        **{"lenient/paper": "fresh", "w1/paper": "fresh", "history/backtest": "exempt"},
    }
    code, _ = place.monitor("--world", "late", "--warn-seconds", "5000", "--crit-seconds", "9000")
    assert code == 0


def test_without_a_hub_or_a_token_it_is_unknown(place: Place, free_port: Callable[[], int]) -> None:
    code, lines = place.monitor(token="wrong")
    told = f"UNKNOWN - {place.url} answers 401: the bearer token is missing or wrong"
    assert (code, lines) == (3, [told])
    nobody = Place(place.home, free_port())
    code, lines = nobody.monitor()
    assert code == 3
    assert re.fullmatch(rf"UNKNOWN - {nobody.url} can't be reached: .*refused", *lines), lines
    code, lines = nobody.monitor("--json")
    assert (code, json.loads(lines[0])["status"]) == (3, "unknown")


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--warn-seconds", "x"], ["--interval", "0"]]
)
def test_a_wrong_use_is_unknown_and_no_alarm(place: Place, arguments: list[str]) -> None:
    done = subprocess.run(
        place.command(*arguments), env=place.environment, capture_output=True, check=False
    )
    assert done.returncode == 3


def test_watching_shows_a_table_that_lives_until_ctrl_c(place: Place) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        place.command("--watch", "--interval", "0.1", "--world", "moving"),
        env=place.environment,
        cwd=place.home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, "missing")
        place.post("moving", 1_000)
        read_until(ours, "stale")
        place.post("moving", 0)
        read_until(ours, "fresh")
        process.send_signal(signal.SIGINT)
        read_until(ours, "stopped")
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str) -> None:
    """Read what a process writes to its terminal until it has written a text."""
    seen = b""
    while text.encode() not in seen:
        seen += os.read(terminal, 4_096)
