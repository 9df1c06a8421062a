"""Runs on run workers: how soon one begins, and how many snapshots a second 1, 2 and 4 compute.

A Postgres, a Redis, webserver, daemon, code server and workers of this benchmark's own; all of them
on this machine, so the CPU seconds of each are shown beside what they gave.

RISKHUB_BENCH_RUN_YEARS sets other years than 2010-2013.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import httpx
import psutil
import yaml
from sqlalchemy import make_url

from benchmarks._dagster import Timeline, a_hub, instance_of, running
from riskhub import cast
from riskhub.dagster_graphql import DagsterGraphql
from riskhub.days import cut
from riskhub.demo import history
from riskhub.hub import utc_now
from riskhub.prices import load_panel
from riskhub.settings import Settings, load_settings
from riskhub.snapshot import Snapshot, validate
from riskhub.store import open_store
from riskhub.strict_json import parse_json
from riskhub.supervisor import Child
from tests.service_resolution import fresh_database, resolve_postgres, resolve_redis

PRODUCTION = Path(__file__).resolve().parents[1] / "deploy" / "dagster" / "dagster.yaml"
YEARS = os.environ.get("RISKHUB_BENCH_RUN_YEARS", "2013")
# Each of the demo's worlds so often. Dagster plans a run by its days, one run after the other, and
# a run computes worlds: with six of them planning is what is measured.
COPIES = 8
LAUNCHES = 8
MOST_OF_DEFAULT = 0.7
LEAST_SPEED_UP = 1.6
DAYS_PER_RUN = 31
WORKERS = (1, 2, 4)
EMPTY_DAY = date(1991, 1, 1)
_JOB = "compute_landed"


def launches() -> bool:
    """How soon a run of an empty day has succeeded, by the default launcher and on warm workers."""
    default = _launch_seconds(on_workers=False)
    warm = _launch_seconds(on_workers=True)
    ratio = warm / default
    print(
        f"scale: launch to success of an empty day's run, median of {LAUNCHES}: default launcher "
        f"{default:.2f} s, warm run workers {warm:.2f} s, ratio {ratio:.2f} "
        f"(at most {MOST_OF_DEFAULT})"
    )
    return ratio <= MOST_OF_DEFAULT


def backfills() -> bool:
    """Snapshots a second of a backfill in pieces, by 1, 2 and 4 processes of run workers."""
    measured = [_throughput(count) for count in WORKERS]
    for each in measured:
        print(f"scale: {each}")
    ratio = measured[1].per_second / measured[0].per_second
    # With one process busy, all cores together could do this many times as much.
    bound = (psutil.cpu_count() or 1) / measured[0].cores
    met = ratio >= LEAST_SPEED_UP
    print(
        f"scale: 2 workers compute {ratio:.2f} times as fast as 1 (at least {LEAST_SPEED_UP}); "
        f"with Postgres and Dagster beside them {psutil.cpu_count()} cores allow {bound:.2f}, and "
        f"{measured[1].cores:.2f} of them were busy"
        + ("" if met else ": bound by the cores" if bound < LEAST_SPEED_UP else "")
    )
    return met or bound < LEAST_SPEED_UP


# -- the cast --------------------------------------------------------------------------------------


@contextmanager
def _a_hub_on_postgres(*, workers: int, on_workers: bool = True) -> Iterator[Settings]:
    with ExitStack() as stack:
        postgres = stack.enter_context(resolve_postgres(durable=True).serve())
        redis = stack.enter_context(resolve_redis().serve())
        ours, dagsters = (stack.enter_context(fresh_database(postgres)) for _ in range(2))
        dagsters = make_url(dagsters).set(drivername="postgresql+psycopg2")
        environment = {
            "RISKHUB_DATABASE_URL": ours,
            "RISKHUB_REDIS_URL": redis,
            "RISKHUB_RUN_BROKER_URL": redis,
            "RISKHUB_DAGSTER_DATABASE_URL": dagsters.render_as_string(hide_password=False),
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(a_hub())
        settings = load_settings()
        instance = yaml.safe_load(PRODUCTION.read_text())
        instance["run_queue"]["max_concurrent_runs"] = workers
        if not on_workers:
            del instance["run_launcher"]
        (settings.dagster_home / "dagster.yaml").write_text(yaml.safe_dump(instance))
        with instance_of(settings):  # lays out its tables, which two processes can't do at once
            pass
        yield settings


def _cast(settings: Settings, *, workers: int) -> list[list[Child]]:
    """The code server, then what asks it, then the run workers if there are any."""
    [code] = [child for child in cast.foundations(settings) if child.name == "code"]
    orchestration = cast.orchestration(settings)
    dagster = [child for child in orchestration if child.name in {"dagster", "daemon"}]
    command = [
        *(sys.executable, "-m", "riskhub_dagster.run_worker"),
        *("--concurrency", str(workers), "--name", "runs"),
    ]
    log = settings.home / "logs" / "runs.log"
    runs = Child("runs", command, lambda: " ready." in log.read_text(), about="run workers")
    return [[code], dagster, [runs] if workers else []]


# -- launching -------------------------------------------------------------------------------------


def _launch_seconds(*, on_workers: bool) -> float:
    """The median from the launch to the success of a run; the first, which loads, is left out."""
    with _a_hub_on_postgres(workers=1, on_workers=on_workers) as settings:
        groups = _cast(settings, workers=1 if on_workers else 0)
        with running(settings, *groups), instance_of(settings) as instance:
            took = []
            for _ in range(LAUNCHES + 1):
                [run_id] = _computed(settings, [(EMPTY_DAY, EMPTY_DAY)])
                timeline = Timeline.of(instance, run_id)
                took.append(timeline.ended - timeline.starting)
    return statistics.median(took[1:])


def _computed(settings: Settings, ranges: Sequence[tuple[date, date]]) -> list[str]:
    """The runs that computed ranges of days, each of which has succeeded."""
    with httpx.Client(timeout=60) as client:
        dagster = DagsterGraphql(client, settings.dagster_url)
        run_ids = [dagster.launch(_JOB, first, last, {}) for first, last in ranges]
        for run_id in run_ids:
            while not (state := dagster.run(run_id)).is_finished:
                time.sleep(0.1)
            assert state.status == "SUCCESS", state
    return run_ids


# -- throughput ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Throughput:
    """What some workers did: snapshots a second, and the cores that each part kept busy."""

    workers: int
    per_second: float
    busy: dict[str, float]

    @property
    def cores(self) -> float:
        """How many cores were busy in all."""
        return sum(self.busy.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {cores:.2f}" for name, cores in self.busy.items())
        noun = "worker computes" if self.workers == 1 else "workers compute"
        return f"{self.workers} {noun} {self.per_second:.0f} snapshots/s; cores busy: {parts}"


def _throughput(workers: int) -> Throughput:
    with _a_hub_on_postgres(workers=workers) as settings:
        count, first, last = _land(settings)
        with running(settings, *_cast(settings, workers=workers)):
            _computed(settings, [(EMPTY_DAY, EMPTY_DAY)] * workers)  # warm
            before, began = _cpu_seconds(), time.monotonic()
            run_ids = _computed(settings, cut([(first, last)], DAYS_PER_RUN))
            elapsed = time.monotonic() - began
            busy = {name: sec - before.get(name, 0.0) for name, sec in _cpu_seconds().items()}
            with instance_of(settings) as instance:
                spent = _span(instance, run_ids)
        return Throughput(
            workers, count / spent, {name: sec / elapsed for name, sec in busy.items()}
        )


def _land(settings: Settings) -> tuple[int, date, date]:
    """History of the demo's worlds; how many snapshots, and its days."""
    (period,) = history.parse_periods(YEARS)
    documents = [
        document | {"world_id": f"{document['world_id']}-{copy}"}
        for document in history.documents(load_panel(settings.prices_path), [period])
        for copy in range(COPIES)
    ]
    store = open_store(settings.effective_database_url)
    for start in range(0, len(documents), 1_000):
        store.land([_accepted(document) for document in documents[start : start + 1_000]])
    store.close()
    return len(documents), period.first, period.last


def _accepted(document: dict[str, Any]) -> Snapshot:
    return validate(
        parse_json(json.dumps(document).encode()),
        world_id=None,
        actor=history.ACTOR,
        stage=history.STAGE,
        received_at=utc_now(),
    )


def _span(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> float:
    """Seconds from the launch of the first run to the end of the last."""
    lines = [Timeline.of(instance, run_id) for run_id in run_ids]
    return max(line.ended for line in lines) - min(line.starting for line in lines)


def _cpu_seconds() -> dict[str, float]:
    """CPU time so far of our children and theirs, by what they are."""
    spent = {"workers": 0.0, "Postgres": 0.0, "Dagster": 0.0, "Redis": 0.0}
    for process in psutil.Process().children(recursive=True):
        try:
            command, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        kind = next(
            (
                kind
                for word, kind in (
                    ("run_worker", "workers"),
                    ("postgres", "Postgres"),
                    ("redis-server", "Redis"),
                )
                if word in command
            ),
            "Dagster",
        )
        # A connection's backend of Postgres that has ended is counted with its parent.
        spent[kind] += times.user + times.system
        if kind == "Postgres":
            spent[kind] += times.children_user + times.children_system
    return spent
