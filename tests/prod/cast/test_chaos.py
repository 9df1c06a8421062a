"""Ten minutes in which any process is killed outright, again and again, under load.

Any of production's own, and the services that it stands on: Postgres, or one of its sessions;
Redis, with what it had or without; Kafka. Not S3, see `outages`, nor a service that the environment
names. Afterwards everything that a producer was told is there, with all that follows from it:
`riskhub audit` says so; and no run of Dagster's is left half way. What is killed when follows from
a seed. `RISKHUB_CHAOS_SECONDS=60` is a short one, `RISKHUB_CHAOS_SEED=...` repeats one.
"""

import json
import os
import random
import secrets
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from producing import producers
from production import Production, budget_age_sec

from riskhub import bootstrap

SECONDS = float(os.environ.get("RISKHUB_CHAOS_SECONDS", "600"))
SEED = int(os.environ.get("RISKHUB_CHAOS_SEED") or secrets.randbelow(10**6))
SETTLED_WITHIN_SEC = 300.0
LOST_STARTS_GIVEN_UP_SEC = 60
"""A run whose start was lost is tried again after this, where production waits for 300 s."""
OF_SERVICES = 0.2
"""So many of those that are killed are services: each of these costs seconds, and never two at once
are away."""
# Some are killed as a part: what they have started goes on, or is started again by them.
PARTS = ("api", "runs")

pytestmark = pytest.mark.timeout(int(SECONDS + SETTLED_WITHIN_SEC + 400))


class Chaos:
    """Kills, in an order that a seed decides; and what was killed when."""

    def __init__(self, prod: Production, log: Path) -> None:
        self._prod = prod
        self._log = log
        self._began = time.monotonic()
        self._seeded = random.Random(SEED)  # noqa: S311 - for the order of trouble
        whole = list(prod.children)
        self._victims = [*whole, *(f"a worker of {name}" for name in PARTS if name in whole)]
        self._services = sorted(prod.services.outages)
        self.killed: Counter[str] = Counter()

    def kill_one(self) -> None:
        """Kill the next; a service is back when it returns."""
        is_service, which = self._seeded.random() < OF_SERVICES, self._seeded.random()
        process, service = (self._seeded.random() for _ in range(2))
        if is_service and self._services:
            victim = self._services[int(service * len(self._services))]
            self._note(victim, self._prod.services.outages[victim](which))
        else:
            self._kill_process(self._victims[int(process * len(self._victims))], which)

    def _kill_process(self, victim: str, which: float) -> None:
        name = victim.removeprefix("a worker of ")
        pid = self._prod.pid(name)
        if name != victim:
            workers = self._prod.workers_of(name)
            if not workers:  # it is just being started again
                return
            pid = workers[int(which * len(workers))]
        with suppress(ProcessLookupError):  # it has just ended, and is started again
            os.kill(pid, signal.SIGKILL)
        self._note(victim, pid)

    def _note(self, victim: str, pid: int) -> None:
        self.killed[victim] += 1
        at = round(time.monotonic() - self._began, 1)
        with self._log.open("a") as log:
            log.write(json.dumps({"at": at, "killed": victim, "pid": pid}) + "\n")

    def landings_until_next(self) -> int:
        """So many snapshots are acknowledged before the next is killed."""
        return self._seeded.randrange(5, 60)


def _give_up_lost_starts(prod: Production) -> None:
    """Change what Dagster's daemon was told; who else reads the file has no use for it."""
    file = prod.settings.dagster_home / "dagster.yaml"
    instance = yaml.safe_load(file.read_text())
    instance["run_monitoring"]["start_timeout_seconds"] = LOST_STARTS_GIVEN_UP_SEC
    file.write_text(yaml.safe_dump(instance))
    prod.restart("daemon")


def _counted(prod: Production) -> dict[str, int]:
    return dict(Counter(prod.runs().values()))


def test_all_that_was_acknowledged_is_there_whatever_was_killed(
    prod: Production, tmp_path: Path
) -> None:
    print(f"RISKHUB_CHAOS_SEED={SEED} RISKHUB_CHAOS_SECONDS={SECONDS:g}")
    acknowledged, log = tmp_path / "acknowledged", tmp_path / "killed"
    _give_up_lost_starts(prod)
    chaos = Chaos(prod, log)
    ends = time.monotonic() + SECONDS
    with producers(prod.settings, acknowledged, seed=SEED, pause_sec=0.3) as load:
        while time.monotonic() < ends:
            load.wait_for(chaos.landings_until_next())
            chaos.kill_one()
    load.check()
    print(f"{load.acknowledged} acknowledged; plain HTTP failed {dict(load.failed)}")
    print(f"killed {chaos.killed.total()}: {dict(chaos.killed.most_common())}")
    print(f"not killed: {dict(prod.services.spared)}")
    ended = time.monotonic()
    try:
        with prod.store() as store:
            prod.wait_for(lambda: prod.is_settled(store), within_sec=SETTLED_WITHIN_SEC)
        print(f"settled after {time.monotonic() - ended:.0f} s")
        prod.wait_for(
            lambda: not prod.has_unfinished_runs(),
            within_sec=SETTLED_WITHIN_SEC - (time.monotonic() - ended),
        )
        print(f"no run is left after {time.monotonic() - ended:.0f} s; of all {_counted(prod)}")
        with bootstrap.redis_client(prod.settings) as client:
            prod.wait_for(lambda: budget_age_sec(client, time.time()) < 15)
        audited = prod.riskhub(
            "audit", "--settle", "0", "--topic", "--acknowledged", str(acknowledged), "--json"
        )
        assert audited.returncode == 0, audited.stdout + audited.stderr
    except BaseException:
        print(log.read_text())
        raise
    report = json.loads(audited.stdout)
    print(f"looked at {report['looked_at']}; {report['notes']}")
    assert report["looked_at"]["acknowledged snapshots"] == load.acknowledged
    assert report["looked_at"]["landings"] >= load.acknowledged
    assert report["looked_at"]["violations"] > 0
    assert report["looked_at"]["budgets computed anew"] > 0
    with prod.store() as store:
        assert store.count_dead_letters() == 0
