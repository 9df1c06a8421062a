"""A backfill over two hosts, of which one is lost in the middle: all of it is there, and once.

The hosts are network namespaces with a run worker each. Postgres, Redis and what decides in Dagster
(webserver, daemon, code server) are outside. What the backfill leaves is held, row for row, against
one calm run over the same days in this process.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import httpx
import pytest
import service_resolution
import sqlalchemy as sa
import yaml
from builders import accept, wait_until
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARENT_RUN_ID_TAG
from hosts import Host, Network, network, why_not
from served import ROOT, environment, migrate_database
from sqlalchemy import make_url
from stored import waits_for_a_lock

from riskhub import cast as processes
from riskhub import embedded, probes
from riskhub.dagster_graphql import RANGE_END_TAG, RANGE_START_TAG, DagsterGraphql
from riskhub.demo import history
from riskhub.prices import load_panel
from riskhub.settings import Settings, load_settings
from riskhub.store import Store, open_store
from riskhub.store.tables import metadata
from riskhub_dagster.assets.backtests import var_backtests, var_outcomes
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.run_worker import WORKER_TAG
from riskhub_dagster.sensors import days_of_runs

FIRST, LAST = date(2014, 5, 1), date(2014, 10, 31)
DAYS_PER_RUN = 46
CHUNKS = 4
RECEIVED = datetime(2099, 1, 1, tzinfo=UTC)  # still arriving: the landing sensor lets it settle
HELD = date(2014, 9, 10)  # of the third chunk, in its second month
PATIENCE_SEC = 240  # for a machine that is busy with other things
QUICK_DAEMON = ROOT / "tests" / "quick_daemon.py"
HEARTBEAT_SEC, LOST_AFTER_SEC = 1.0, 6.0
TABLES = (
    *("validated_snapshots", "snapshot_weights", "risk_metrics", "risk_tails"),
    *("risk_contributions", "candidate_risk", "snapshot_stress", "stress_results"),
    *("var_outcomes", "var_backtests", "run_progress"),
)
Rows = dict[str, list[tuple[Any, ...]]]

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(
        not (
            service_resolution.resolve_redis().real and service_resolution.resolve_postgres().real
        ),
        reason="hosts need a Postgres and a Redis that can listen on their network",
    ),
    pytest.mark.timeout(1200),
]


@dataclass
class Cast:
    """What is outside of the hosts, and how the hosts reach it."""

    net: Network
    settings: Settings
    env: dict[str, str]
    home: Path
    store: Store
    instance: dg.DagsterInstance

    def runs(self, **tags: str) -> Sequence[dg.DagsterRun]:
        return self.instance.get_runs(filters=dg.RunsFilter(tags=tags))

    def rows(self) -> Rows:
        return rows_of(self.store)


def rows_of(store: Store) -> Rows:
    """Every row of the days in every table that a backfill writes, in the order of its key."""
    found: Rows = {}
    with store.engine.connect() as connection:
        for name in TABLES:
            table = metadata.tables[name]
            query = sa.select(table).order_by(*table.primary_key.columns)
            if "day" in table.c:  # the outcome sensor goes on to the day after the last
                query = query.where(table.c.day <= LAST)
            found[name] = [tuple(row) for row in connection.execute(query)]
    return found


def land_history(store: Store, settings: Settings) -> None:
    """The demo's six worlds, a snapshot each trading day."""
    period = history.Period(FIRST, LAST)
    documents = history.documents(load_panel(settings.prices_path), [period])
    snapshots = [
        accept(document, world_id=None, actor="demo", stage="backtest", received_at=RECEIVED)
        for document in documents
    ]
    for start in range(0, len(snapshots), 500):
        store.land(snapshots[start : start + 500])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Network, str, str]]:
    """A network, and on it a Postgres and a Redis of the test's own."""
    given = {service_resolution.POSTGRES_URL, service_resolution.REDIS_URL}
    environ = {name: value for name, value in os.environ.items() if name not in given}
    with (
        network() as net,
        service_resolution.resolve_postgres(environ, also_on=net.address).serve() as postgres,
        service_resolution.resolve_redis(environ, also_on=net.address).serve() as redis,
    ):
        yield net, postgres, redis


@pytest.fixture(scope="module")
def calm(servers: tuple[Network, str, str]) -> Rows:
    """What one run over all of the days leaves, while nothing happens."""
    with service_resolution.fresh_database(servers[1]) as url, ExitStack() as stack:
        migrate_database(url)
        store = open_store(url)
        quickly = {"RISKHUB_DATABASE_URL": url, "DAGSTER_EVENT_BATCH_SIZE": "1000"}
        with mock.patch.dict(os.environ, quickly):
            land_history(store, load_settings())
            quiet = {"python_logs": {"python_log_level": "WARNING"}}
            result = dg.materialize(
                [
                    *(validated_snapshots, snapshot_weights, risk_metrics, stress_results),
                    *(var_outcomes, var_backtests),
                ],
                tags={RANGE_START_TAG: FIRST.isoformat(), RANGE_END_TAG: LAST.isoformat()},
                resources={"hub": RiskHub()},
                instance=stack.enter_context(dg.DagsterInstance.ephemeral(settings=quiet)),
            )
        assert result.success
        rows = rows_of(store)
        store.close()
    assert {name for name, found in rows.items() if not found} == {"candidate_risk", "run_progress"}
    return rows


@pytest.fixture
def cast(servers: tuple[Network, str, str], tmp_path: Path) -> Iterator[Cast]:
    """Databases of the test's own with the history landed, and Dagster, which has computed none."""
    net, postgres, redis = servers
    with ExitStack() as stack:
        urls = [stack.enter_context(service_resolution.fresh_database(postgres)) for _ in range(2)]
        ours, dagsters = (make_url(url).set(host=net.address) for url in urls)
        asks = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
        dagsters = dagsters.set(drivername="postgresql+psycopg2", query={"options": asks})
        broker = stack.enter_context(service_resolution.flushed(redis))
        broker = make_url(broker).set(host=net.address).render_as_string()
        ports = {
            f"RISKHUB_{name}_PORT": str(service_resolution.free_port())
            for name in ("DAGSTER", "CODE_SERVER")
        }
        env = environment(
            tmp_path,
            RISKHUB_DATABASE_URL=ours.render_as_string(hide_password=False),
            RISKHUB_REDIS_URL=broker,
            RISKHUB_DAGSTER_DATABASE_URL=dagsters.render_as_string(hide_password=False),
            RISKHUB_RUN_BROKER_URL=broker,
            RISKHUB_BACKFILL_DAYS_PER_RUN=str(DAYS_PER_RUN),
            RISKHUB_RUN_WORKER__HEARTBEAT_SEC=str(HEARTBEAT_SEC),
            RISKHUB_RUN_WORKER__LOST_AFTER_SEC=str(LOST_AFTER_SEC),
            DAGSTER_HOME=str(tmp_path / "dagster"),
            DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS="1",
            **ports,
        )
        stack.enter_context(mock.patch.dict(os.environ, env))
        settings = load_settings()
        migrate_database(settings.effective_database_url)
        store = open_store(settings.effective_database_url)
        stack.callback(store.close)
        land_history(store, settings)
        embedded.prepare_dagster_home(settings)
        write_instance(tmp_path / "dagster")
        instance = stack.enter_context(dg.DagsterInstance.get())  # lays out its tables
        stack.callback(net.kill_hosts)
        outside = [
            processes.command_code_server(settings),
            processes.command_webserver(settings),
            [sys.executable, str(QUICK_DAEMON), *processes.command_daemon(settings)[3:]],
        ]
        for number, command in enumerate(outside):
            stack.enter_context(process(command, env, tmp_path / f"outside-{number}.log"))
        wait_until(
            lambda: probes.answers(f"{settings.dagster_url}/server_info"), within_sec=PATIENCE_SEC
        )
        yield Cast(net, settings, env, tmp_path, store, instance)


def write_instance(home: Path) -> None:
    """Production's instance, which looks oftener, has two workers, and no schedule of its own."""
    instance = yaml.safe_load((ROOT / "deploy" / "dagster" / "dagster.yaml").read_text())
    instance["run_queue"]["max_concurrent_runs"] = 2
    instance["run_monitoring"] |= {"poll_interval_seconds": 1, "start_timeout_seconds": 60}
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance))


@contextmanager
def process(command: Sequence[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """A process until the block is left."""
    with (
        log.open("ab") as said,
        subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as running,
    ):
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()


def run_worker(cast: Cast, host: Host) -> Path:
    """Start a run worker on a host; gives its log."""
    command = [
        *(sys.executable, "-m", "riskhub_dagster.run_worker"),
        *("--concurrency", "1", "--name", host.name),
    ]
    log = cast.home / f"{host.name}.log"
    host.start(command, env=cast.env, log=log)
    wait_until(lambda: b" ready." in log.read_bytes(), within_sec=PATIENCE_SEC)
    return log


def host_of(run: dg.DagsterRun) -> str:
    return run.tags.get(WORKER_TAG, "").partition("@")[0]


def run_of(cast: Cast, day: date) -> dg.DagsterRun | None:
    """The run of the backfill that computes a day now, as far as its host has told."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    for run in cast.instance.get_runs(filters=started):
        if BACKFILL_ID_TAG in run.tags and day in days_of_runs([run]) and host_of(run):
            return run
    return None


def is_held_up(cast: Cast) -> bool:
    """Whether the run of `HELD` has written days before it, and waits for it."""
    run = run_of(cast, HELD)
    if run is None or not cast.store.written_by(run.run_id, "risk_metrics"):
        return False
    return waits_for_a_lock(cast.store)


def backfill_while(cast: Cast, trouble: Callable[[Host], None]) -> tuple[Host, Host, Path]:
    """Compute all of history on two hosts, and lose one of them in the middle of a run.

    It is in the middle because somebody else holds a day: the run has written the days before that,
    and has claimed the month up to it. Gives the host that was lost, the other one, and the log of
    the first.
    """
    hosts = [cast.net.host("a"), cast.net.host("b")]
    logs = {host.name: run_worker(cast, host) for host in hosts}
    typed = [
        *(sys.executable, "-m", "riskhub", "compute"),
        *("--from", FIRST.isoformat(), "--to", LAST.isoformat()),
    ]
    with (
        subprocess.Popen(
            typed, env=cast.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as command,
        ExitStack() as stack,
    ):
        stack.callback(command.kill)
        with cast.store.claim("risk_metrics", [HELD]):
            wait_until(lambda: is_held_up(cast), within_sec=PATIENCE_SEC)
            run = run_of(cast, HELD)
            assert run is not None
            lost, kept = sorted(hosts, key=lambda host: host.name != host_of(run))
            trouble(lost)
        said, _ = command.communicate(timeout=PATIENCE_SEC)
    assert command.returncode == 0, said
    assert "184 days computed" in said
    return lost, kept, logs[lost.name]


def check_that_all_is_there_and_once(cast: Cast, lost: Host, kept: Host, calm: Rows) -> None:
    runs = [run for run in cast.runs() if BACKFILL_ID_TAG in run.tags]
    succeeded = [run for run in runs if run.status is dg.DagsterRunStatus.SUCCESS]
    failed = [run for run in runs if run.status is dg.DagsterRunStatus.FAILURE]
    assert len(succeeded) == CHUNKS
    assert {host_of(run) for run in runs} == {lost.name, kept.name}
    (given_up,) = [run for run in failed if host_of(run) == lost.name]
    (again,) = [run for run in runs if run.tags.get(PARENT_RUN_ID_TAG) == given_up.run_id]
    assert host_of(again) == kept.name
    for name, rows in cast.rows().items():
        assert rows == calm[name], name


def test_a_host_that_was_cut_off(cast: Cast, calm: Rows) -> None:
    lost, kept, log = backfill_while(cast, Host.cut_off)

    check_that_all_is_there_and_once(cast, lost, kept, calm)
    assert b"run_ended_itself" in log.read_bytes()

    lost.reconnect()  # nothing of the past comes back with it, and it is of use again
    with httpx.Client(timeout=30) as client:
        dagster = DagsterGraphql(client, cast.settings.dagster_url)
        kept.kill()
        run_id = dagster.launch("compute_landed", LAST, LAST, {})
        wait_until(lambda: dagster.run(run_id).is_finished, within_sec=PATIENCE_SEC)
        assert dagster.run(run_id).status == "SUCCESS"
    for name, rows in cast.rows().items():
        assert rows == calm[name], name


def test_a_host_that_was_killed(cast: Cast, calm: Rows) -> None:
    lost, kept, _ = backfill_while(cast, Host.kill)

    check_that_all_is_there_and_once(cast, lost, kept, calm)
