"""The processes of `deploy/compose.yaml`, without its containers.

Each is started by the command, the environment and the secrets that the compose file gives it, out
of an installed wheel, as the role that it is meant to have, and asked by its own health check. Left
out is what only an engine can do: to build the image, to limit, to restart.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import httpx
import psycopg
import pytest
import service_resolution
import sqlalchemy as sa
from builders import wait_until
from deployed import DEPLOY, of_compose
from installing import ROOT, built, clean_environment, installation, ran

from riskhub.blobs import BlobSettings

pytestmark = pytest.mark.timeout(400)

CAST = {process.where.removeprefix("compose/"): process for process in of_compose()}
FIRST = ("api", "dagster-code")
NEXT = (
    *("relay", "worker", "governor", "exit-engine", "alerts"),
    *("dagster-web", "dagster-daemon", "run-worker"),
)
PROBED = [name for name in (*FIRST, *NEXT) if CAST[name].probes]
SYMBOLS = [f"S{number:02}" for number in range(95)]
TOPIC = "risk-hub.deployment"


@dataclass
class Machine:
    """Where the containers' paths, ports and hosts are on this one."""

    scratch: Path
    bin: Path
    postgres: sa.URL
    ports: Mapping[str, int]

    def __post_init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.here(name, value) for key, value in CAST[name].environment.items()}
        if "RISKHUB_WORKER__METRICS_PORT" in given:
            given["RISKHUB_WORKER__METRICS_PORT"] = str(self.ports["9109"])
        return {
            **clean_environment(),
            **given,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RISKHUB_PROFILE": "prod",  # as the image says
            "RISKHUB_HOME": str(self.scratch / f"home-{name}"),
            "RISKHUB_API_PORT": str(self.ports["8000"]),
            "RISKHUB_DAGSTER_PORT": str(self.ports["3000"]),
            "RISKHUB_CODE_SERVER_PORT": str(self.ports["4266"]),
        }

    def here(self, name: str, text: str) -> str:
        text = text.replace("/run/secrets/", f"{self.scratch}/secrets/")
        text = text.replace("/etc/riskhub/", f"{self.scratch}/")
        text = text.replace("/var/backups/", f"{self.scratch}/backups/")
        text = text.replace("/tmp/heartbeat", f"{self.scratch}/heartbeat-{name}")  # noqa: S108
        return re.sub(r"\b(8000|3000|4266|9109)\b", lambda port: str(self.ports[port[0]]), text)

    def start(self, name: str) -> None:
        with (self.scratch / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                CAST[name].command,
                cwd=self.scratch,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, name: str) -> str:
        """A service that ends by itself."""
        command = [self.here(name, word) for word in CAST[name].command]
        return ran(*command, cwd=self.scratch, env=self.environment(name))

    def is_well(self, name: str) -> bool:
        """What the health check of its container would say."""
        probe = [self.here(name, word) for word in CAST[name].probes[0]]
        asked = subprocess.run(
            probe, env=self.environment(name), capture_output=True, timeout=60, check=False
        )
        return asked.returncode == 0

    def log(self, name: str) -> str:
        return (self.scratch / f"{name}.log").read_text()[-3000:]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports['8000']}{path}"

    def count(self, table: str) -> int:
        address = self.postgres.set(
            drivername="postgresql", username="riskhub_reader", database="riskhub"
        )
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            query = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, redis_server: str, kafka_server: str, s3_server: str
) -> Iterator[Machine]:
    """The whole cast, started in the order of its dependencies, on services of this machine."""
    if shutil.which("psql") is None or service_resolution.POSTGRES_URL in os.environ:
        pytest.skip("makes databases and roles by name: needs psql, and a Postgres of its own")
    if not service_resolution.resolve_kafka().real:
        pytest.skip("needs a real Kafka")
    scratch = tmp_path_factory.mktemp("machine")
    programs = installation(built(ROOT, scratch), scratch)
    _bring_programs(programs)
    with (
        service_resolution.resolve_postgres().serve() as postgres,
        service_resolution.fresh_bucket(s3_server) as bucket,
    ):
        ports = {name: service_resolution.free_port() for name in ("8000", "3000", "4266", "9109")}
        machine = Machine(scratch, programs, sa.make_url(postgres), ports)
        _lay_out(machine, sa.make_url(redis_server), kafka_server, bucket)
        machine.run("migrate")
        try:
            for group in (FIRST, NEXT):
                for name in group:
                    machine.start(name)
                if group is FIRST:
                    for name in group:
                        wait_until(lambda name=name: machine.is_well(name), within_sec=120)
            yield machine
        finally:
            for process in machine.running.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _bring_programs(programs: Path) -> None:
    """Dagster's commands, which are in the image beside ours."""
    for script in entry_points(group="console_scripts"):
        if script.name in ("dagster", "dagster-daemon"):
            module, function = script.value.split(":")
            path = programs / script.name
            path.write_text(
                f"#!{programs / 'python'}\nimport sys\nfrom {module} import {function}\n"
                f"sys.exit({function}())\n"
            )
            path.chmod(0o755)


def _lay_out(machine: Machine, redis: sa.URL, kafka: str, bucket: BlobSettings) -> None:
    """Secrets, databases and settings as the compose file has them, with the hosts of here."""
    secrets = machine.scratch / "secrets"
    ran(DEPLOY / "secrets.sh", secrets, cwd=machine.scratch)
    ran(
        *("sh", DEPLOY / "postgres" / "init.sh"),
        cwd=machine.scratch,
        env={
            **os.environ,
            "PGHOST": str(machine.postgres.host),
            "PGPORT": str(machine.postgres.port),
            "RISKHUB_SECRETS": str(secrets),
            "RISKHUB_ROLES": str(DEPLOY / "postgres" / "roles.sql"),
        },
    )
    assert bucket.s3_secret_access_key is not None
    keys = {
        "s3_access_key_id": str(bucket.s3_access_key_id),
        "s3_secret_access_key": bucket.s3_secret_access_key.get_secret_value(),
    }
    for path in secrets.iterdir():
        text = path.read_text().replace("@postgres/", f"@127.0.0.1:{machine.postgres.port}/")
        text = re.sub(r"redis://:\w+@redis:6379", f"redis://{redis.host}:{redis.port}", text)
        path.chmod(0o600)
        path.write_text(keys.get(path.name, text))
    settings = (DEPLOY / "compose" / "riskhub.yml").read_text()
    for theirs, ours in {
        "kafka:9092": f"{kafka}\n  controlbus_topic: {TOPIC}",
        "http://minio:9000": str(bucket.s3_endpoint_url),
        "riskhub-blobs": str(bucket.s3_bucket),
        "http://api:8000": machine.url(""),
        "http://dagster-web:3000": f"http://127.0.0.1:{machine.ports['3000']}",
        "dagster-code": "127.0.0.1",
        "http://alertmanager:9093": "http://127.0.0.1:9",
    }.items():
        assert theirs in settings
        settings = settings.replace(theirs, ours)
    (machine.scratch / "riskhub.yml").write_text(settings)


@pytest.fixture(scope="module")
def headers(machine: Machine) -> dict[str, str]:
    token = (machine.scratch / "secrets" / "token").read_text().strip()
    return {"Authorization": f"Bearer {token}", "X-Actor": "optimizer", "X-Stage": "paper"}


@pytest.mark.parametrize("name", PROBED)
def test_each_is_well_by_its_own_health_check(machine: Machine, name: str) -> None:
    def well() -> bool:
        assert machine.running[name].poll() is None, machine.log(name)
        return machine.is_well(name)

    wait_until(well, within_sec=120)


def test_a_snapshot_goes_all_the_way(machine: Machine, headers: dict[str, str]) -> None:
    document = {
        "as_of": datetime.now(UTC).isoformat(),
        "version": "first",
        "weights": dict.fromkeys(SYMBOLS, 1 / len(SYMBOLS)),
        "covariance": {  # large enough to be a blob
            f"{one},{other}": 4e-4 if one == other else 1e-4
            for index, one in enumerate(SYMBOLS)
            for other in SYMBOLS[index:]
        },
    }
    where = machine.url("/risk-hub/worlds/desk/snapshots")
    posted = httpx.post(where, headers=headers, json=document, timeout=30)
    assert posted.status_code == 201, posted.text
    assert "covariance_ref" in posted.json()
    assert httpx.post(where, json=document).status_code == 401

    wait_until(lambda: machine.count("risk_metrics") == 1, within_sec=120)
    wait_until(lambda: machine.count("stress_results") > 0, within_sec=120)
    status = CAST["relay"].command
    told: Callable[[], str] = lambda: ran(  # noqa: E731
        *status, "--status", cwd=machine.scratch, env=machine.environment("relay")
    )
    wait_until(lambda: " 0 events behind" in told(), within_sec=60)


def test_the_backup_reads_and_finds_all(machine: Machine) -> None:
    told = machine.run("backup")
    assert re.search(r"│ 20\d\d-\S+ +│ +1 │ +1 │ +1 │ +0 │", told), told


def test_each_ends_in_order_when_it_is_told(machine: Machine) -> None:
    started = time.monotonic()
    for process in machine.running.values():
        process.send_signal(signal.SIGTERM)
    codes = {name: process.wait(60) for name, process in machine.running.items()}
    assert set(codes.values()) == {0}, codes
    assert time.monotonic() - started < 30
