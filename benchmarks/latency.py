"""From a landing to its numbers, against a trivial asset that a sensor of the same kind launches.

In one Dagster instance, as `riskhub up` starts it on SQLite, with two code locations: ours, and one
whose sensor polls a directory as often as ours polls the store. In turn, a snapshot is posted until
``GET /risk-hub/worlds/{world_id}/risk?version=`` serves its numbers, and a file is dropped until
the run of the other location has written its own. Most of the time is waiting for the sensor's next
tick, which is chance; so both are asked at the same moments after a tick of their sensor, spread
evenly over its interval. Limit: the median is at most 1.3 times that of the trivial asset.

RISKHUB_BENCH_POSTS sets another number than 20.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import dagster as dg
import httpx
import numpy as np
from dagster._core.scheduler.instigation import SensorInstigatorData

from benchmarks._dagster import Timeline, a_hub, code_server, instance_of, running
from benchmarks._trivial import ANSWERED, ASKED
from riskhub import bootstrap, cast, embedded
from riskhub.demo import live
from riskhub.demo.history import headers
from riskhub.demo.worlds import weights_by_day, worlds_of
from riskhub.settings import Settings
from riskhub_dagster.sensors import UNFINISHED, landing_sensor
from tests.service_resolution import free_port

POSTS = int(os.environ.get("RISKHUB_BENCH_POSTS", "20"))
LARGEST_RATIO = 1.3
GIVE_UP_AFTER_SEC = 120.0
_POLL_SEC = 0.05
OURS, TRIVIAL = "compute_landed", "answer_asked"


def run() -> bool:
    """Measure both in turn; True when the claim holds."""
    print(f"latency: load average before {os.getloadavg()[0]:.1f}")
    with a_hub() as settings, httpx.Client(base_url=settings.api_url) as client:
        asked, answered = (settings.home.resolve() / name for name in ("asked", "answered"))
        asked.mkdir()
        answered.mkdir()
        port = free_port()
        with embedded.workspace_file(settings).open("a") as workspace:
            server = f"{{host: 127.0.0.1, port: {port}, location_name: trivial}}"
            workspace.write(f"  - grpc_server: {server}\n")
        trivial = code_server(settings, "benchmarks._trivial", "trivial", port)
        foundations = [*cast.foundations(settings), trivial]
        with (
            running(
                settings,
                foundations,
                cast.orchestration(settings),
                **{ASKED: str(asked), ANSWERED: str(answered)},
            ),
            instance_of(settings) as instance,
        ):
            post, drop = _poster(settings, client), _dropper(asked, answered)
            _took(post)  # the first of each finds nothing in the caches of the system
            _took(drop)
            ours, theirs = [], []
            for offset in _offsets():
                _wait_until_after_tick(instance, "landing_sensor", offset)
                ours.append(_took(post))
                _wait_until_after_tick(instance, "asked_sensor", offset)
                theirs.append(_took(drop))
            _explain("the hub", ours, _runs(instance, OURS))
            _explain("trivial", theirs, _runs(instance, TRIVIAL))
    ratio = np.median([one.seconds for one in ours]) / np.median([one.seconds for one in theirs])
    print(f"latency: ratio of the medians {ratio:.2f} (at most {LARGEST_RATIO})")
    return bool(ratio <= LARGEST_RATIO)


@dataclass(frozen=True)
class _Took:
    """When something was asked for and was there, in unix seconds."""

    asked: float
    answered: float

    @property
    def seconds(self) -> float:
        return self.answered - self.asked


Ask = Callable[[], Callable[[], bool]]
"""Asks for something, and gives what tells whether it is there."""


def _took(ask: Ask) -> _Took:
    asked = time.time()
    is_there = ask()
    while not is_there():
        assert time.time() < asked + GIVE_UP_AFTER_SEC, "nothing came of it"
        time.sleep(_POLL_SEC)
    return _Took(asked, time.time())


def _offsets() -> list[float]:
    """Seconds after a tick: one in each part of a sensor's interval, in an order of their own."""
    interval = landing_sensor.minimum_interval_seconds or 0
    offsets = [(part + 0.5) / POSTS * interval for part in range(POSTS)]
    random.Random(4).shuffle(offsets)  # noqa: S311 - an order
    return offsets


def _wait_until_after_tick(instance: dg.DagsterInstance, sensor: str, offset: float) -> None:
    before = _last_tick(instance, sensor)
    while (tick := _last_tick(instance, sensor)) == before:
        time.sleep(_POLL_SEC)
    time.sleep(max(0.0, tick + offset - time.time()))


def _last_tick(instance: dg.DagsterInstance, sensor: str) -> float:
    """When a sensor's last tick began, in unix seconds; 0 before the first."""
    for state in instance.all_instigator_state():
        if state.instigator_name == sensor and isinstance(
            state.instigator_data, SensorInstigatorData
        ):
            return state.instigator_data.last_tick_timestamp or 0.0
    return 0.0


def _poster(settings: Settings, client: httpx.Client) -> Ask:
    """Posts what the demo's live producer does: weights, a covariance, returns and stress."""
    panel = bootstrap.price_panel(settings)
    world = worlds_of(panel)[0]
    *_, (day, weights) = weights_by_day(world, panel)
    path = f"/risk-hub/worlds/{world.world_id}"

    def post() -> Callable[[], bool]:
        body = live.document(
            world, panel, day, weights, window=settings.risk_window, now=datetime.now(UTC)
        )
        landed = client.post(f"{path}/snapshots", json=body, headers=headers(settings, live.STAGE))
        assert landed.status_code == httpx.codes.CREATED, landed.text
        asked = {"version": body["version"]}
        return lambda: client.get(f"{path}/risk", params=asked).is_success

    return post


def _dropper(asked: Path, answered: Path) -> Ask:
    numbers = count()

    def drop() -> Callable[[], bool]:
        name = f"{next(numbers)}"
        (asked / name).touch()
        return (answered / name).exists

    return drop


def _runs(instance: dg.DagsterInstance, job: str) -> list[Timeline]:
    """The runs of a job, oldest first, when all have ended."""
    while instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED)):
        time.sleep(_POLL_SEC)
    succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    records = instance.get_run_records(succeeded, ascending=True)
    return [Timeline.of(instance, record.dagster_run.run_id) for record in records]


def _explain(what: str, all_of: Sequence[_Took], runs: Sequence[Timeline]) -> None:
    """Median and 95th percentile, and the medians of the parts."""
    parts: dict[str, list[float]] = {}
    for took in all_of:
        run = next(run for run in runs if took.asked < run.enqueued < took.answered)
        for part, seconds in {
            "tick": run.enqueued - took.asked,
            "queue": run.starting - run.enqueued,
            "process": run.started - run.starting,
            "run": took.answered - run.started,
        }.items():
            parts.setdefault(part, []).append(seconds)
    taken = [took.seconds for took in all_of]
    said = ", ".join(f"{part} {np.median(of_part):.2f}" for part, of_part in parts.items())
    print(
        f"latency: {what}: median {np.median(taken):5.2f} s, p95 {np.percentile(taken, 95):5.2f} s"
        f" (medians of its parts: {said})"
    )


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
