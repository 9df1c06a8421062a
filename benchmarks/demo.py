"""The main job: `riskhub up --demo` from an empty directory to its first table.

Six worlds from 1990 to 2022, some 46,900 snapshots, landed through the bulk door and computed by
one backfill. Limits: 5 minutes to the table, 1.5 GiB of memory for everything together (the
proportional set size of all processes, sampled while it works).

Says where the time goes, and how long Dagster alone takes: the same run, in an instance of its own,
of assets of the same names, partitions, checks and metadata that compute nothing.

RISKHUB_BENCH_YEARS sets other years than 1990-2022.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from unittest import mock

import dagster as dg
import httpx
import psutil

from benchmarks._dagster import Timeline, a_hub, code_server, environment_in, instance_of, running
from benchmarks._floor import SHAPE, shape_of
from riskhub import cast
from riskhub.demo import history
from riskhub.settings import load_settings

YEARS = os.environ.get("RISKHUB_BENCH_YEARS", "1990-2022")
TABLE_LIMIT_SEC = 300.0
MEMORY_LIMIT_MIB = 1536.0
BACKFILL_TAG = "dagster/backfill"
RANGE_START_TAG, RANGE_END_TAG = (
    f"dagster/asset_partition_range_{end}" for end in ("start", "end")
)
_DAGSTER = ("dagster", "daemon")
# What the terminal shows when a part of the job is done.
_MARKS = {"up": r"✓ live", "landed": r"days to compute, in one backfill", "table": r"│ defensive"}


def run() -> bool:
    """Measure one pass, and the same without any work; True when both limits hold."""
    print(f"demo: load average before {os.getloadavg()[0]:.1f}")
    with (
        tempfile.TemporaryDirectory() as home,
        mock.patch.dict(os.environ, environment_in(home)),
    ):
        seen = _up()
        if seen is None:
            return False
        settings = load_settings()
        database_mib = sum(file.stat().st_size for file in Path(home).glob("hub.db*")) / 2**20
        events_mib = _size(settings.dagster_home) / 2**20
        with instance_of(settings) as instance:
            ours = _Backfill.of(instance)
            shape = shape_of(instance, history.ASSETS, str(ours.last))
    table_after = seen.after("table")
    print(f"demo: table after {table_after:5.1f} s ({table_after / TABLE_LIMIT_SEC:.0%} of limit)")
    print(f"demo: memory at most {seen.mib:5.0f} MiB ({seen.mib / MEMORY_LIMIT_MIB:.0%} of limit)")
    print(f"demo: database {database_mib:.0f} MiB, Dagster's {events_mib:.0f} MiB")
    print(
        f"demo: processes up {seen.after('up'):.1f} s, landing {seen.between('up', 'landed'):.1f} s"
    )
    print(f"demo: computing, {ours.days:,} days of {len(history.ASSETS)} assets:", flush=True)
    floor = _floor(shape, ours.first, ours.last)
    _compare(ours, floor)
    after = seen.at["table"] - ours.run.ended
    print(f"demo: from the run's end to the table {after:.1f} s")
    if table_after > TABLE_LIMIT_SEC:
        print(f"demo: missed: more than {TABLE_LIMIT_SEC:.0f} s")
    return table_after <= TABLE_LIMIT_SEC and seen.mib <= MEMORY_LIMIT_MIB


@dataclass(frozen=True)
class _Seen:
    """What one pass looked like from outside. `at`: unix seconds of each mark. `mib`: the peak."""

    began: float
    at: dict[str, float]
    mib: float

    def after(self, mark: str) -> float:
        return self.at[mark] - self.began

    def between(self, mark: str, later: str) -> float:
        return self.at[later] - self.at[mark]


def _up() -> _Seen | None:
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "riskhub", "up", "--demo", "--history", YEARS],
        env=os.environ | {"RISKHUB_EXIT_WHEN_READY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = _Peak(process.pid)
    at: dict[str, float] = {}
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        for mark, pattern in _MARKS.items():
            if re.search(pattern, line):
                at.setdefault(mark, time.time())
    code = process.wait()
    mib = peak.stop()
    if code or at.keys() != _MARKS.keys():
        print(f"demo: failed with exit code {code}:\n{''.join(said[-10:])}")
        return None
    return _Seen(began, at, mib)


@dataclass(frozen=True)
class _Backfill:
    """The one run of the one backfill. `asked`: unix seconds when the backfill was."""

    asked: float
    first: date
    last: date
    run: Timeline

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @classmethod
    def of(cls, instance: dg.DagsterInstance) -> "_Backfill":
        [backfill] = instance.get_backfills()
        of_backfill = dg.RunsFilter(tags={BACKFILL_TAG: backfill.backfill_id})
        [record] = instance.get_run_records(of_backfill)
        tags = record.dagster_run.tags
        return cls(
            backfill.backfill_timestamp,
            date.fromisoformat(tags[RANGE_START_TAG]),
            date.fromisoformat(tags[RANGE_END_TAG]),
            Timeline.of(instance, record.dagster_run.run_id),
        )


def _floor(shape: str, first: date, last: date) -> _Backfill:
    """The same backfill by the same door, of assets that do nothing."""
    with a_hub() as settings, httpx.Client(timeout=120.0) as client:
        code = code_server(settings, "benchmarks._floor", "riskhub", settings.code_server_port)
        # Of what decides only Dagster: the others look for a hub.
        dagster = [it for it in cast.orchestration(settings) if it.name in _DAGSTER]
        with running(settings, [code], dagster, **{SHAPE: shape}) as supervisor:
            days = [date.fromordinal(n) for n in range(first.toordinal(), last.toordinal() + 1)]
            alive = supervisor.raise_failure
            asked = history.launch_backfill(client, settings, days, alive)
            for _ in history.follow_backfill(client, settings, asked, alive):
                time.sleep(0.5)
        with instance_of(settings) as instance:
            return _Backfill.of(instance)


def _compare(ours: _Backfill, floor: _Backfill) -> None:
    """A line for each part of the run, ours and Dagster alone."""
    parts: dict[str, Callable[[_Backfill], float]] = {
        "the daemon finds the backfill": lambda it: it.run.requested - it.asked,
        "plans the run, an event a partition": lambda it: it.run.enqueued - it.run.requested,
        "queue": lambda it: it.run.starting - it.run.enqueued,
        "the run's process starts": lambda it: it.run.started - it.run.starting,
    }
    for part, seconds in parts.items():
        print(f"demo: {part:36} {seconds(ours):6.1f} s, Dagster alone {seconds(floor):6.1f} s")
    for (step, ours_at), floor_at in zip(
        ours.run.steps.items(), floor.run.steps.values(), strict=True
    ):
        took, alone = ours_at.ended - ours_at.began, floor_at.ended - floor_at.began
        print(
            f"demo: {step:36} {took:6.1f} s, Dagster alone {alone:6.1f} s; "
            f"computes {ours_at.computed - ours_at.began:.1f} s"
        )
    whole, alone = ours.run.ended - ours.run.requested, floor.run.ended - floor.run.requested
    ratio = f"ratio {whole / alone:.2f}"
    print(f"demo: {'the run in all':36} {whole:6.1f} s, Dagster alone {alone:6.1f} s; {ratio}")


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


class _Peak:
    """The largest memory that a process and all below it had together, sampled twice a second."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The peak in MiB."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._done.wait(0.5):
            total = 0
            try:
                family = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in family:
                try:
                    memory = process.memory_full_info()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                # Where the system does not share out common pages, their whole size is counted.
                total += getattr(memory, "pss", memory.rss)
            self._peak = max(self._peak, total / 2**20)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(0 if run() else 1)
