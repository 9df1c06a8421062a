"""The schema moves, back and forward, while the API serves, and nobody who uses it notices."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from itertools import cycle as cycle_of
from pathlib import Path

import httpx
import pytest
from budgeting import budget, cycle
from builders import HEADERS, accept, snapshot_document, wait_until
from served import api_process, environment, migrate_database

from riskhub.store import NEWEST, Store, create_engine, migrate, open_store
from riskhub.store.schema import OLDEST_SCHEMA

WORLDS = 8
HISTORY = 5_000
CYCLES = 300
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MOST_SEC = 3.0
"""How long a request may take at most: a statement of a migration waits two seconds for a table."""


@dataclass
class Traffic:
    """What was sent and answered, and what went wrong."""

    landed: set[tuple[str, str]] = field(default_factory=set)
    cycles: list[datetime] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    asked: int = 0

    def note(self, began: float, answer: httpx.Response, expected: int) -> bool:
        self.asked += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        if answer.status_code != expected:
            self.failures.append(f"{answer.request.url}: {answer.status_code} {answer.text}")
        return answer.status_code == expected


@contextmanager
def traffic(port: int, store: Store) -> Iterator[Traffic]:
    """Two producers, a reader and a governor, while the block runs; nothing is tried twice."""
    seen, stop = Traffic(), threading.Event()

    def produce(lane: int) -> None:
        with client_of(port) as client:
            for number in count():
                if stop.is_set():
                    return
                world, version = f"w{number % WORLDS}", f"{lane}-{number}"
                body = snapshot_document(version=version, as_of=datetime.now(UTC).isoformat())
                began = time.monotonic()
                answer = client.post(f"/risk-hub/worlds/{world}/snapshots", json=body)
                if seen.note(began, answer, 201):
                    seen.landed.add((world, version))

    def read() -> None:
        paths = cycle_of(
            (
                "/risk-hub/worlds/{world}/snapshots/latest",
                "/risk-hub/worlds/{world}/snapshots?limit=20",
                "/risk-hub/worlds/{world}/snapshots/lookup?version=h1",
                "/readyz",
            )
        )
        with client_of(port) as client:
            for number, path in enumerate(paths):
                if stop.is_set():
                    return
                began = time.monotonic()
                seen.note(began, client.get(path.format(world=f"w{number % WORLDS}")), 200)

    def govern() -> None:
        while not stop.wait(0.01):
            at = datetime.now(UTC)
            store.add_cycle(cycle(at), [budget(symbol, at) for symbol in SYMBOLS])
            seen.cycles.append(at)
            found = store.newest_cycle()
            if found is None or len(found.budgets) != len(SYMBOLS):
                seen.failures.append(f"the newest cycle is {found}")

    with ThreadPoolExecutor(4) as pool:
        running: list[Future[None]] = [pool.submit(produce, lane) for lane in range(2)]
        running += [pool.submit(read), pool.submit(govern)]
        try:
            yield seen
        finally:
            stop.set()
            for each in running:
                each.result()


def client_of(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=30)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    """A database with a history: snapshots that are alive, and budgets of some hours."""
    migrate_database(postgres_url)
    opened, now = open_store(postgres_url), datetime.now(UTC)
    for start in range(0, HISTORY, 500):
        opened.land(
            [
                accept(
                    world_id=f"w{number % WORLDS}",
                    version=f"h{number // WORLDS}",
                    as_of=(now - timedelta(seconds=HISTORY - number)).isoformat(),
                    received_at=now,
                    ttl_sec=86_400,
                )
                for number in range(start, start + 500)
            ]
        )
    for number in range(CYCLES):
        at = now - timedelta(minutes=CYCLES - number)
        opened.add_cycle(cycle(at), [budget(symbol, at) for symbol in SYMBOLS])
    yield opened
    opened.close()


def test_the_schema_goes_back_and_forward_under_load_and_nobody_notices(
    store: Store, postgres_url: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, mover = free_port(), create_engine(postgres_url)
    with (
        api_process(tmp_path, port, RISKHUB_DATABASE_URL=postgres_url),
        traffic(port, store) as seen,
    ):
        for revision in (OLDEST_SCHEMA, NEWEST, "0011", NEWEST):
            before = seen.asked
            migrate(mover, revision)
            wait_until(lambda before=before: seen.asked > before + 50)  # type: ignore[misc]
    mover.dispose()

    assert seen.failures == []
    assert seen.slowest < MOST_SEC
    assert len(seen.landed) > 50
    keys = {(world, version) for world, version in seen.landed}
    assert store.positions_of(keys).keys() == keys
    assert store.head() == HISTORY + len(keys)
    assert len(store.budget_cycles(limit=10**6)) == CYCLES + len(seen.cycles)
    for symbol in SYMBOLS:
        history = store.budget_history(symbol, limit=10**6)
        assert [row["computed_at"] for row in history[: len(seen.cycles)]] == seen.cycles[::-1]
        assert len(history) == CYCLES + len(seen.cycles)


def test_back_and_forward_on_the_command_line(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    def typed(*words: str) -> str:
        told = subprocess.run(
            [sys.executable, "-m", "riskhub", "migrate", *words],
            env=environment(tmp_path, RISKHUB_DATABASE_URL=postgres_url),
            capture_output=True,
            text=True,
            check=False,
        )
        return (told.stdout + told.stderr).strip()

    assert typed("--to", "0011") == "the database is at revision 0011"
    assert typed() == "the database is up to date"
    assert len(store.budget_cycles(limit=10**6)) == CYCLES
