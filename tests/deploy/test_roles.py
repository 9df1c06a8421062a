"""The roles of the database as `deploy/postgres` makes them: each does its work, and no more."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import service_resolution
import sqlalchemy as sa
from answers import SNAPSHOTS, post
from asgi import serving
from builders import NOW, Clock
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier

from api.app import create_app
from riskhub import retention
from riskhub.hub import Hub
from riskhub.settings import RetentionSettings, Settings
from riskhub.store import Store, create_engine
from riskhub.store.grants import rights
from riskhub.store.tables import metadata

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def riskhub(*words: str, url: str, home: Path, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "riskhub", *words],
        cwd=ROOT,
        env={
            **os.environ,
            "RISKHUB_DATABASE_URL": url,
            "RISKHUB_HOME": str(home),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class Databases:
    """A server on which `deploy/postgres/init.sh` has run."""

    def __init__(self, server: str) -> None:
        self._server = sa.make_url(server)

    def url(self, role: str, database: str = "riskhub") -> str:
        address = self._server.set(username=role, database=database)
        return address.render_as_string(hide_password=False)

    @contextmanager
    def store(self, role: str) -> Iterator[Store]:
        with closing(Store(create_engine(self.url(role)))) as store:
            yield store

    def connect(self, role: str, database: str = "riskhub") -> psycopg.Connection:
        address = sa.make_url(self.url(role, database)).set(drivername="postgresql")
        return psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Roles belong to a server, so it is one of this module's own."""
    if shutil.which("psql") is None:
        pytest.skip("no psql to run init.sh with")
    secrets = tmp_path_factory.mktemp("secrets") / "made"
    subprocess.run([DEPLOY / "secrets.sh", secrets], check=True, capture_output=True)
    with service_resolution.resolve_postgres().serve() as server:
        address = sa.make_url(server)
        if address.username != "postgres" or service_resolution.POSTGRES_URL in os.environ:
            pytest.skip("makes databases and roles by name: only on a server of its own")
        subprocess.run(
            ["sh", DEPLOY / "postgres" / "init.sh"],
            env={
                **os.environ,
                "PGHOST": str(address.host),
                "PGPORT": str(address.port),
                "RISKHUB_SECRETS": str(secrets),
                "RISKHUB_ROLES": str(DEPLOY / "postgres" / "roles.sql"),
            },
            check=True,
            capture_output=True,
        )
        yield Databases(server)


@pytest.fixture(scope="module")
def migrated(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """The tables, made by their owner."""
    home = tmp_path_factory.mktemp("owner")
    told = riskhub("migrate", url=databases.url("riskhub_owner"), home=home)
    assert "riskhub_app, riskhub_reader, riskhub_retention" in told
    return databases


@pytest.fixture(scope="module")
def worked(migrated: Databases, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """A snapshot was landed, told, judged, measured, read and watched, all as riskhub_app."""
    home = tmp_path_factory.mktemp("app")
    url = migrated.url("riskhub_app")
    settings = Settings(database_url=url, home=home)
    with (
        migrated.store("riskhub_app") as store,
        serving(create_app(settings, Hub(store, settings, Clock()))) as api,
    ):
        assert post(api).status_code == 201
        assert post(api).status_code == 200
        assert api.get(f"{SNAPSHOTS}/latest").is_success
    with service_resolution.resolve_redis().serve() as redis_url:
        riskhub("worker", "--once", "--outbox", url=url, home=home)
        riskhub("exit-engine", "--once", url=url, home=home, RISKHUB_REDIS_URL=redis_url)
        shown = riskhub("relay", "--status", "--json", url=url, home=home)
    assert json.loads(shown)["newest_event"] >= 2
    return migrated


def count(databases: Databases, role: str, table: str) -> int:
    with databases.connect(role) as connection:
        counted = SQL("SELECT count(*) FROM {}").format(Identifier(table))
        row = connection.execute(counted).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "table", ["snapshots", "events", "validated_snapshots", "risk_metrics", "stress_results"]
)
def test_the_role_of_the_processes_does_their_work(worked: Databases, table: str) -> None:
    assert count(worked, "riskhub_reader", table) >= 1


def test_the_store_writes_alerts_places_and_condemned_blobs_as_that_role(
    worked: Databases,
) -> None:
    with worked.store("riskhub_app") as store:
        store.write_alerts([], acknowledgements=[], turn=0, writer="it", receivers={}, now=NOW)
        store.move_cursor("relay:topic", 100, NOW)
        store.condemn_blobs(["nothing"], NOW)
        store.pardon_blobs(["nothing"])


REFUSED = [
    "DELETE FROM snapshots",
    "UPDATE snapshots SET body = ''",
    "TRUNCATE snapshots",
    "DROP TABLE snapshots",
    "ALTER TABLE snapshots ADD COLUMN mine text",
    "DELETE FROM events",
    "UPDATE events SET type = ''",
    "DELETE FROM snapshot_blobs",
    "UPDATE budget_violations SET budget_usd = 0",
    "DELETE FROM world_stages",
    "UPDATE alembic_version SET version_num = ''",
    "CREATE TABLE mine (id int)",
    "CREATE ROLE mine",
    "SET ROLE riskhub_owner",
    "GRANT ALL ON snapshots TO riskhub_reader",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_the_role_of_the_processes_can_not(worked: Databases, statement: str) -> None:
    before = count(worked, "riskhub_owner", "snapshots")
    with worked.connect("riskhub_app") as connection:
        if statement.startswith("GRANT"):  # to grant what one may not is a warning, and nothing
            connection.execute(statement)  # type: ignore[arg-type]
        else:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)  # type: ignore[arg-type]
    assert count(worked, "riskhub_owner", "snapshots") == before
    with worked.connect("riskhub_reader") as connection, pytest.raises(psycopg.Error):
        connection.execute("INSERT INTO snapshots DEFAULT VALUES")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO event_cursors VALUES ('a', 1, now())",
        "DELETE FROM snapshots",
        "SELECT 1 INTO x",
    ],
)
def test_a_reader_reads(worked: Databases, statement: str) -> None:
    with worked.connect("riskhub_reader") as connection:
        connection.execute("SET default_transaction_read_only = off")  # what anybody may
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[arg-type]


def test_a_reader_can_back_up_also_what_the_owner_made_since(
    worked: Databases, tmp_path: Path
) -> None:
    with worked.connect("riskhub_owner") as connection:
        connection.execute("CREATE TABLE next_week (id serial)")
    told = riskhub(
        *("backup", str(tmp_path / "kept"), "--json"),
        url=worked.url("riskhub_reader"),
        home=tmp_path,
    )
    assert json.loads(told)["figures"]["snapshots"] == count(worked, "riskhub_app", "snapshots")


def test_dagster_and_the_hub_do_not_come_into_each_others_database(worked: Databases) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        worked.connect("dagster", "riskhub")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        worked.connect("riskhub_app", "dagster")
    with worked.connect("dagster", "dagster") as connection:
        connection.execute("CREATE TABLE runs (id int)")


def test_each_role_that_logs_in_has_a_password(worked: Databases) -> None:
    with worked.connect("postgres") as connection:
        rows = connection.execute(
            "SELECT rolname, rolpassword LIKE 'SCRAM-SHA-256$%', rolsuper OR rolcreatedb OR "
            "rolcreaterole OR rolbypassrls FROM pg_authid WHERE rolname ~ '^(riskhub_|dagster)'"
        ).fetchall()
    assert len(rows) == 5
    assert all(has and not mighty for _, has, mighty in rows)


def test_only_retention_removes_a_snapshot(worked: Databases) -> None:
    policy = RetentionSettings(default_days=0)
    later = NOW.replace(year=NOW.year + 1)
    with (
        worked.store("riskhub_app") as store,
        pytest.raises(sa.exc.ProgrammingError, match="permission denied"),
    ):
        retention.apply(store, None, policy, later)
    assert count(worked, "riskhub_owner", "snapshots") == 1
    with worked.store("riskhub_retention") as store:
        assert retention.apply(store, None, policy, later).snapshots_removed == 1
    assert count(worked, "riskhub_owner", "snapshots") == 0


def test_whoever_reads_may_change_nothing_of_any_table() -> None:
    for table in metadata.sorted_tables:
        assert rights("riskhub_reader", table) == ("SELECT",)
        assert "TRUNCATE" not in rights("riskhub_app", table)
