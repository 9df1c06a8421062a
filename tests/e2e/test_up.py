"""`riskhub up --demo` over real processes and sockets: killed, interrupted, and gone on with.

One home is lived in by four `riskhub up` in a row, because a start costs seconds:

0. fails for want of space on its disk, which is then given some;
1. interrupted by Ctrl-C in the middle of its backfill;
2. takes the work up, has its children killed under it, completes, serves, and is killed outright;
3. finds all there already, and ends by itself with ``RISKHUB_EXIT_WHEN_READY=1``.

What each left behind is written down when it ended; the tests read it.
"""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import service_resolution
from builders import wait_until

pytestmark = pytest.mark.timeout(300)

# Long enough not to be computed in the seconds that a run is given to end.
HISTORY = "2008-2009"
DAYS = 505  # trading days of those years
WORLDS = ("ew20", "buyhold", "banks", "energy", "tech3", "defensive")
TABLES = (
    *("validated_snapshots", "snapshot_weights", "risk_metrics"),
    *("risk_contributions", "stress_results"),
)
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
# Dagster looks for backfills every 30 s; the daemon of these tests does so every second.
QUICK_DAEMON = """
import sys
if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller
    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
"""


@dataclass
class Home:
    """A directory that `riskhub up` works in, and the ports it uses."""

    path: Path
    environment: dict[str, str]
    disk: Path | None
    started: list["Up"] = field(default_factory=list)

    def up(self, *arguments: str, **environment: str) -> "Up":
        """Start ``riskhub up``, as a shell starts it: in a process group of its own."""
        self.path.mkdir(exist_ok=True)
        name = f"up-{len(self.started) + 1}"
        out, err = (self.path / f"{name}.{stream}" for stream in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "riskhub", "up", *arguments],
                env=os.environ | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        up = Up(process, out, err)
        self.started.append(up)
        return up

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on this home, by its environment; not what waits to be reaped."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get("RISKHUB_HOME") == str(self.path)
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def child(self, *words: str) -> psutil.Process | None:
        """The process of this home whose command line holds these words in a row."""
        for process in self.processes():
            try:
                if " ".join(words) in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the hub's database; none while it isn't there."""
        database = self.path / "hub.db"
        if not database.exists():
            return []
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        finally:
            connection.close()

    def count(self, what: str) -> int:
        rows = self.ask(f"SELECT count(*) FROM {what}")  # noqa: S608 - the test's own text
        return int(rows[0][0]) if rows else 0

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.environment[f'RISKHUB_{service}_PORT']}{path}"

    def graphql(self, query: str) -> Any:
        answer = httpx.post(self.url("DAGSTER", "/graphql"), json={"query": query}, timeout=10)
        return answer.raise_for_status().json()["data"]


@dataclass
class Up:
    """One `riskhub up` and what it prints."""

    process: subprocess.Popen[bytes]
    out_path: Path
    err_path: Path

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def wait_for(self, condition: Callable[[], bool], *, within_sec: float = 120.0) -> None:
        """Wait, but not for a dead process."""

        def holds() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, f"it ended:\n{self.out}{self.err}"
            return False

        wait_until(holds, within_sec=within_sec)

    def ends(self, *, within_sec: float = 90.0) -> int:
        return self.process.wait(within_sec)


@dataclass
class Left:
    """What was there when an `up` had ended."""

    code: int
    out: str
    err: str
    processes: list[str]
    rows: dict[str, int]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home that all of them live in; on a disk of its own, of 3 MB, where that can be had."""
    folder = tmp_path_factory.mktemp("up")
    disk = folder / "disk"
    disk.mkdir()
    mounted = _mount(disk, "-t", "tmpfs", "-o", "size=3m", "none")
    (folder / "sitecustomize.py").write_text(QUICK_DAEMON)
    ports = {
        f"RISKHUB_{name}_PORT": str(service_resolution.free_port())
        for name in ("API", "DAGSTER", "CODE_SERVER", "EMBEDDED_REDIS")
    }
    path = disk / "home"
    python_path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = ports | {"RISKHUB_HOME": str(path), "PYTHONPATH": python_path}
    home = Home(path, environment, disk if mounted else None)
    yield home
    for process in home.processes():
        process.kill()
    for up in home.started:
        up.process.wait()
    if mounted:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def starved(home: Home) -> Left | None:
    """The `up` before the first: its disk is too small; then there is room on it."""
    if home.disk is None:
        return None
    up = home.up("--demo", "--history", HISTORY)
    up.ends()
    left = _left(home, up)
    assert _mount(home.disk, "-o", "remount,size=1g")
    return left


@pytest.fixture(scope="module")
def interrupted(home: Home, starved: Left | None) -> Left:
    """The first `up`: Ctrl-C when some days of the backfill are written and others are not."""
    up = home.up("--demo", "--history", HISTORY)
    up.wait_for(lambda: home.count("validated_snapshots WHERE stage = 'backtest'") > 0)
    # As a terminal does: to the foreground process group.
    os.killpg(up.process.pid, signal.SIGINT)
    return _left(home, up)


@dataclass
class Killed:
    """The second `up`: what was seen of it while it served, and after it was killed."""

    out: str
    revived: list[str]
    latest: dict[str, Any]
    latest_age_sec: float
    runs: list[dict[str, Any]]
    freshness: dict[str, Any]
    budget: dict[str, str]
    budget_ttl: int
    budget_ages_sec: list[float]
    recomputed: str
    metrics_of_a_day: list[list[tuple[Any, ...]]]
    second_up: Left
    pid: int
    orphans_end: bool


@pytest.fixture(scope="module")
def killed(home: Home, interrupted: Left) -> Killed:
    """The second `up`: completes although its children are killed; serves; is killed itself."""
    up = home.up("--demo", "--history", HISTORY)
    up.wait_for(lambda: "to compute" in up.out)
    victims = {
        "api": ("api.server",),
        "redis": ("riskhub redis",),
        "daemon": ("dagster._daemon",),
        "governor": ("riskhub governor",),
        "code": ("dagster api grpc",),
    }
    before = _computed_days(home)
    for name, words in victims.items():
        if name == "code":  # in the middle of the backfill
            up.wait_for(lambda: before < _computed_days(home) < DAYS)
        victim = home.child(*words)
        assert victim is not None, f"{name} does not run"
        victim.kill()
        up.wait_for(lambda name=name: f"{name} was ended by SIGKILL" in up.out)  # type: ignore[misc]
    up.wait_for(lambda: "serving; Ctrl-C ends it" in up.out)

    def budgets() -> list[Any]:
        port = int(home.environment["RISKHUB_EMBEDDED_REDIS_PORT"])
        with redis.Redis(port=port, decode_responses=True) as client:
            key = "quantum:portfolio:budget:AAPL"
            return [client.hgetall(key), client.ttl(key)]

    up.wait_for(lambda: bool(budgets()[0]))
    up.wait_for(lambda: {"landing_sensor", "budgets_every_minute"} <= _succeeded(home))
    up.wait_for(lambda: bool(_freshness(home)))
    # Live runs come and go; one that died unnoticed would be "started" for an hour.
    up.wait_for(lambda: not [run for run in _runs(home) if run["status"] in UNFINISHED])
    answer = httpx.get(home.url("API", "/risk-hub/worlds/ew20/snapshots/latest"), timeout=10)
    latest = answer.raise_for_status().json()
    age = datetime.now(UTC) - datetime.fromisoformat(latest["as_of"])
    budget, ttl = budgets()
    ages: list[float] = []
    cycles: set[int] = set()

    def seen_three_cycles() -> bool:
        computed_at = int(budgets()[0]["timestamp"])
        ages.append(time.time() - computed_at)
        cycles.add(computed_at)
        return len(cycles) == 3

    up.wait_for(seen_three_cycles, within_sec=60)
    before_and_after = [_metrics_of(home, "2008-10-15")]
    recomputed = subprocess.run(
        [sys.executable, "-m", "riskhub", "compute", "--from", "2008-10-15", "--world", "ew20"],
        env=os.environ | home.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    before_and_after.append(_metrics_of(home, "2008-10-15"))
    second = home.up("--demo")
    seen = {
        "recomputed": recomputed.stdout + recomputed.stderr,
        "metrics_of_a_day": before_and_after,
        "revived": re.findall(r"^(\w+) was ended by SIGKILL; starting it again", up.out, re.M),
        "latest": latest,
        "latest_age_sec": age.total_seconds(),
        "runs": _runs(home),
        "freshness": _freshness(home),
        "budget": budget,
        "budget_ttl": ttl,
        "budget_ages_sec": ages,
    }
    refused = second.ends()
    second_up = Left(refused, second.out, second.err, [], {})
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not home.processes(), within_sec=30)
    return Killed(
        out=up.out,
        second_up=second_up,
        pid=up.process.pid,
        orphans_end=not home.processes(),
        **seen,
    )


@pytest.fixture(scope="module")
def completed(home: Home, killed: Killed) -> Left:
    """The third `up`, to its end."""
    up = home.up("--demo", "--history", HISTORY, RISKHUB_EXIT_WHEN_READY="1")
    up.ends(within_sec=150)
    return _left(home, up)


def test_a_full_disk_is_told_in_a_sentence(home: Home, starved: Left | None) -> None:
    if starved is None:
        pytest.skip("only root may mount a small disk, and not in every container")
    assert starved.code == 1
    assert starved.err.startswith(f"riskhub: the disk of {home.path} is full: ")
    assert starved.err.count("\n") == 1
    assert "Traceback" not in starved.out
    assert starved.processes == []
    assert starved.rows["doubled"] == 0
    assert {rows for name, rows in starved.rows.items() if "half" in name} == {0}


def test_ctrl_c_in_the_middle_of_a_backfill_stops_everything(interrupted: Left) -> None:
    assert interrupted.code == 0
    assert interrupted.out.rstrip().endswith("stopped")
    assert interrupted.err == ""
    assert interrupted.processes == []
    assert interrupted.rows["days validated"] > 0
    assert interrupted.rows["days computed"] < DAYS


def test_what_was_interrupted_holds_whole_days(interrupted: Left) -> None:
    assert {name: rows for name, rows in interrupted.rows.items() if "half" in name} == {
        f"half days of {table}": 0 for table in TABLES
    }


def test_a_killed_child_is_started_again_and_the_demo_completes(killed: Killed) -> None:
    assert killed.revived == ["api", "redis", "daemon", "governor", "code"]
    assert all(world in killed.out for world in WORLDS)


def test_a_paper_world_is_less_than_a_minute_old(killed: Killed) -> None:
    assert killed.latest["provenance"]["stage"] == "paper"
    assert 0 <= killed.latest_age_sec < 60


def test_the_landing_sensor_and_the_budget_schedule_launched_runs_that_succeeded(
    killed: Killed,
) -> None:
    assert {"landing_sensor", "budgets_every_minute"} <= {
        tag["value"]
        for run in killed.runs
        if run["status"] == "SUCCESS"
        for tag in run["tags"]
        if tag["key"] in ("dagster/sensor_name", "dagster/schedule_name")
    }


def test_budgets_are_in_redis_for_five_minutes(killed: Killed) -> None:
    assert 0 < killed.budget_ttl <= 300
    assert 500 <= float(killed.budget["budget_usd"]) <= 10_000


def test_no_budget_is_older_than_15_s(killed: Killed) -> None:
    assert max(killed.budget_ages_sec) < 15 + 1  # their time is in whole seconds


def test_the_freshness_check_is_green(killed: Killed) -> None:
    assert killed.freshness["success"] is True


def test_a_day_is_computed_again_from_the_command_line_with_the_same_numbers(
    home: Home, killed: Killed
) -> None:
    assert "1 days computed" in killed.recomputed
    (run_id,) = re.findall(r"/runs/([0-9a-f-]{36})", killed.recomputed)
    (run,) = [run for run in killed.runs if run["runId"] == run_id]
    assert run["status"] == "SUCCESS"
    before, after = killed.metrics_of_a_day
    assert {row[2] for row in before} == set(WORLDS)
    assert after == before


def test_a_second_up_in_the_same_home_names_the_first(home: Home, killed: Killed) -> None:
    assert killed.second_up.code == 1
    assert killed.second_up.err.count("\n") == 1
    assert f"(process {killed.pid})" in killed.second_up.err
    assert str(home.path) in killed.second_up.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the death")
def test_children_end_when_up_is_killed(killed: Killed) -> None:
    assert killed.orphans_end


def test_a_complete_pass_exits_0_with_the_table_and_nothing_left_running(
    completed: Left,
) -> None:
    assert completed.code == 0
    assert completed.err == ""
    assert completed.processes == []
    table = completed.out[completed.out.index("VaR and ES at 99 %") :]
    assert [world for world in WORLDS if f"│ {world}" in table] == list(WORLDS)


def test_a_second_pass_finds_all_there_and_launches_no_backfill(completed: Left) -> None:
    assert f"0 snapshots landed, {6 * DAYS} were there already" in completed.out
    assert "to compute" not in completed.out


def test_every_table_holds_a_snapshot_once(home: Home, completed: Left) -> None:
    assert home.count("snapshots WHERE stage = 'backtest'") == 6 * DAYS
    assert completed.rows["doubled"] == 0
    # Worlds of 20, 20, 2, 3, 3 and 5 symbols, and 19 scenarios.
    history = "WHERE position IN (SELECT position FROM snapshots WHERE stage = 'backtest')"
    assert {table: home.count(f"{table} {history}") for table in TABLES} == {
        "validated_snapshots": 6 * DAYS,
        "snapshot_weights": 53 * DAYS,
        "risk_metrics": 6 * DAYS,
        "risk_contributions": 53 * DAYS,
        "stress_results": 19 * 6 * DAYS,
    }


def test_the_terminal_is_spared_tracebacks_and_start_up_chatter(
    interrupted: Left, killed: Killed, completed: Left
) -> None:
    for out in (interrupted.out, killed.out, completed.out):
        assert "Traceback" not in out
        assert "No cursor for event type" not in out
        assert "Serving dagster-webserver" not in out


def _mount(disk: Path, *options: str) -> bool:
    try:
        subprocess.run(["mount", *options, disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _left(home: Home, up: Up) -> Left:
    code = up.ends(within_sec=20)
    processes = [" ".join(process.cmdline()) for process in home.processes()]
    rows = {"days validated": _validated_days(home), "days computed": _computed_days(home)}
    for table in TABLES:
        rows[f"half days of {table}"] = _half_days(home, table)
    rows["doubled"] = home.count(
        "(SELECT 1 FROM snapshots GROUP BY world_id, version HAVING count(*) > 1)"
    )
    return Left(code, up.out, up.err, processes, rows)


def _validated_days(home: Home) -> int:
    return home.count("(SELECT DISTINCT day FROM validated_snapshots WHERE stage = 'backtest')")


def _computed_days(home: Home) -> int:
    return home.count("(SELECT DISTINCT day FROM risk_metrics WHERE stage = 'backtest')")


def _metrics_of(home: Home, day: str) -> list[tuple[Any, ...]]:
    return home.ask(
        "SELECT m.*, t.* FROM risk_metrics m JOIN risk_tails t ON t.position = m.position "  # noqa: S608
        f"WHERE m.day = '{day}' AND m.stage = 'backtest' ORDER BY m.position, t.method, t.level"
    )


def _half_days(home: Home, table: str) -> int:
    """How many days of history have rows of some of the six worlds, and none of others."""
    worlds_of_day: Counter[Any] = Counter()
    for day, _ in home.ask(
        f"SELECT DISTINCT d.day, d.position FROM {table} d "  # noqa: S608
        "JOIN snapshots s ON s.position = d.position WHERE s.stage = 'backtest'"
    ):
        worlds_of_day[day] += 1
    return sum(count != len(WORLDS) for count in worlds_of_day.values())


def _runs(home: Home) -> list[dict[str, Any]]:
    query = "{runsOrError(limit: 200){... on Runs{results{runId status tags{key value}}}}}"
    found: list[dict[str, Any]] = home.graphql(query)["runsOrError"]["results"]
    return found


def _succeeded(home: Home) -> set[str]:
    return {
        tag["value"] for run in _runs(home) if run["status"] == "SUCCESS" for tag in run["tags"]
    }


def _freshness(home: Home) -> dict[str, Any]:
    query = """{assetCheckExecutions(assetKey: {path: ["landed_snapshots"]},
      checkName: "worlds_are_fresh", limit: 1){status evaluation{success}}}"""
    executions = home.graphql(query)["assetCheckExecutions"]
    return dict(executions[0]["evaluation"] or {}) if executions else {}
