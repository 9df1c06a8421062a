"""How many connections to Postgres the cast has under load: the budget of docs/scaling.md."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from producing import producers
from production import Production
from sqlalchemy import make_url

pytestmark = pytest.mark.timeout(400)

BUDGET = 60
"""Sessions at a time, of the whole cast as it is here: docs/scaling.md has who has them."""
Process = tuple[str, int]


def test_the_cast_keeps_to_its_budget_under_load(prod: Production, tmp_path: Path) -> None:
    hub, dagster = Counter[Process](), Counter[Process]()
    most = 0
    with producers(prod.settings, tmp_path / "acknowledged", seed=9, pause_sec=0.1) as load:
        for _ in range(40):
            load.wait_for(5)
            now_hub, now_dagster = sessions(prod)
            most = max(most, now_hub.total() + now_dagster.total())
            hub |= now_hub
            dagster |= now_dagster
    for process in sorted({*hub, *dagster}):
        print(f"{process[0]}: {hub[process]} to the hub, {dagster[process]} to Dagster's")
    print(f"at most {most} at a time")
    assert max(hub.values()) <= prod.settings.database_connections
    assert {"api", "relay", "worker", "governor", "exits", "alerts"} <= {name for name, _ in hub}
    assert most <= BUDGET


def sessions(prod: Production) -> tuple[Counter[Process], Counter[Process]]:
    """Each process's sessions in the hub's database, and in Dagster's."""
    databases = [
        make_url(url).database
        for url in (prod.settings.database_url or "", prod.settings.dagster_database_url or "")
    ]
    asked = make_url(prod.settings.database_url or "").set(drivername="postgresql")
    with psycopg.connect(asked.render_as_string(hide_password=False)) as connection:
        ports = dict(
            connection.execute(
                "SELECT client_port, datname FROM pg_stat_activity WHERE datname = ANY(%s)",
                (databases,),
            ).fetchall()
        )
    counted = tuple(Counter[Process]() for _ in databases)
    for name, process in processes(prod):
        with suppress(psutil.Error):
            for each in process.net_connections(kind="tcp"):
                if each.laddr.port in ports:
                    counted[databases.index(ports[each.laddr.port])][name, process.pid] += 1
    return counted[0], counted[1]


def processes(prod: Production) -> Iterator[tuple[str, psutil.Process]]:
    """The cast with its children, each under its name."""
    for name in prod.children:
        with suppress(psutil.Error):
            first = psutil.Process(prod.pid(name))
            for process in (first, *first.children(recursive=True)):
                yield name, process
