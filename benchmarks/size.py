"""The store at size: what takes how long on 10 million snapshots, against 100 thousand.

Both histories lie in the same server, and each question is asked of one and then of the other, in
several rounds: what else the machine does meets both. A question's time is its best median of the
rounds. What is asked for lies in memory, if not in the server's own: a disk is as slow for any
history. All are asked of the store itself, so that it is the database that is measured;
benchmarks/reads.py asks some of them over HTTP. Each may take at most 1.5 times as long on the
larger one.

RISKHUB_BENCH_ROWS sets another number than 10 million, which take some minutes to make;
RISKHUB_BENCH_SQLITE_ROWS another than a million for SQLite (0: none), of which figures are told and
nothing is claimed.
"""

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from benchmarks._history import EVERY, START, WORLDS, days_of, fill
from benchmarks._hub import databases
from riskhub.hub import utc_now
from riskhub.snapshot import Snapshot, validate
from riskhub.store import Filter, Store, create_engine, migrate
from riskhub.store.derived import Row
from riskhub.store.engine import reading
from riskhub.store.reading import Lookup
from riskhub.store.tables import risk_metrics, snapshot_weights
from tests.service_resolution import fresh_database

ROUNDS = 6
DAYS = 8  # the last whole ones, of which one is read and written
MOST = 1.5
FEW = 100_000
MANY = int(os.environ.get("RISKHUB_BENCH_ROWS", "10000000"))
MANY_SQLITE = int(os.environ.get("RISKHUB_BENCH_SQLITE_ROWS", "1000000"))
_EXPIRED_TOO = Filter(include_expired=True)

Question = Callable[[], object]


class History:
    """A store with so many snapshots, and the questions that are asked of it."""

    def __init__(self, database: str, rows: int) -> None:
        self.store = Store(create_engine(database))
        self.rows = rows
        self._random = random.Random(7)  # noqa: S311 - which rows are read
        self._numbers = iter(range(10**9))
        self._done = self.store.head()

    def questions(self) -> Mapping[str, tuple[int, Question]]:
        """What is asked, and how often in a round."""
        return {
            "ingest, one a transaction": (100, self._land_one),
            "ingest, 64 a transaction": (30, self._land_64),
            "latest": (200, self._latest),
            "lookup by version": (200, self._by_version),
            "lookup by as_of": (200, self._by_as_of),
            "list of 50": (100, self._list),
            "list of what is alive": (100, self._alive),
            "tick of the landing sensor": (20, self._tick),
            "a day: what a run reads": (3, self._read_day),
            "a day: what a run writes": (2, self._write_day),
        }

    def read_all(self) -> None:
        """Have the machine remember the snapshots."""
        with reading(self.store.engine) as connection:
            connection.exec_driver_sql("SELECT sum(length(body)) FROM snapshots")

    def _offered(self) -> Snapshot:
        now = utc_now()
        return validate(
            {"as_of": now.isoformat(), "version": f"n{next(self._numbers)}", "weights": {"S": 1.0}},
            world_id=self._world(),
            actor="bench",
            stage="paper",
            received_at=now,
        )

    def _world(self) -> str:
        return f"w{self._random.randrange(WORLDS)}"

    def _number(self) -> int:
        return self._random.randrange(self.rows // WORLDS)

    def _at(self) -> datetime:
        return START + self._number() * EVERY + timedelta(seconds=30)

    def _land_one(self) -> object:
        return self.store.land([self._offered()])

    def _land_64(self) -> object:
        return self.store.land([self._offered() for _ in range(64)])

    def _latest(self) -> object:
        return _found(self.store.latest(self._world(), now=utc_now()))

    def _by_version(self) -> object:
        version = f"v{self._number()}"
        return _found(self.store.by_version(self._world(), version, _EXPIRED_TOO, now=utc_now()))

    def _by_as_of(self) -> object:
        which = Filter(include_expired=True, up_to=self._at())
        return _found(self.store.look_up([Lookup(self._world(), None, which)], now=utc_now())[0])

    def _list(self) -> object:
        # Not before there are fifty.
        which = Filter(include_expired=True, up_to=self._at() + 50 * EVERY)
        page = self.store.newest_first(self._world(), which, now=utc_now(), limit=50)
        assert len(page.snapshots) == 50
        return page

    def _alive(self) -> object:
        return self.store.newest_first(self._world(), now=utc_now(), limit=50).snapshots[0]

    def _tick(self) -> object:
        # The sensor's cursor is behind what waits: here, what this benchmark has landed.
        pending = self.store.pending_days(after=self._done)
        assert sum(day.count for day in pending.days) == self.store.head() - self._done
        return pending

    def _read_day(self) -> object:
        day = self._random.choice(days_of(self.rows)[-DAYS:])
        landed = self.store.landed_on(day, day)
        accepted = self.store.accepted_on(day, day, after=landed[0].position, limit=256)
        return self.store.weights_at([each.position for each in accepted])

    def _write_day(self) -> object:
        day = self._random.choice(days_of(self.rows)[-DAYS:])
        metrics = self.store.metrics_on(day, day)
        weights: list[Row] = [
            {"position": row["position"], "symbol": "S", "day": day, "world_id": row["world_id"],
             "weight": 1.0}
            for row in metrics
        ]  # fmt: skip
        tables = {risk_metrics.name: metrics, snapshot_weights.name: weights}
        self.store.write_days(tables, [day], replace=True, read_up_to=self._done)
        return metrics


def _found(answer: object) -> object:
    assert answer is not None
    return answer


def run() -> bool:
    """Measure Postgres, which has to hold the claim, and SQLite."""
    with databases() as both:
        (_, sqlite, _), (_, postgres, _) = both
        with fresh_database(postgres) as many:
            migrate(create_engine(many))
            within = compare("Postgres", (postgres, FEW), (many, MANY))
        if MANY_SQLITE:
            larger = sqlite.replace("hub.db", "larger.db")
            migrate(create_engine(larger))
            compare("SQLite", (sqlite, FEW), (larger, MANY_SQLITE))
    return within


def compare(name: str, few: tuple[str, int], many: tuple[str, int]) -> bool:
    """Print each question's time on both, and whether all are within the limit."""
    histories = []
    for database, rows in (few, many):
        took = fill(database, rows)
        print(f"size: {name}: {rows:,} snapshots made in {took:.0f} s", flush=True)
        histories.append(History(database, rows))
        histories[-1].read_all()
    if name == "Postgres":
        _tell_bytes(histories[-1])
    best: dict[str, list[float]] = {}
    asked = [history.questions() for history in histories]
    for number in range(ROUNDS + 1):
        for what in asked[0]:
            taken = [_median_ms(ask, times) for times, ask in (each[what] for each in asked)]
            if number:  # the first round is to have read what is read often
                best[what] = list(map(min, best.get(what, taken), taken))
    within = True
    for what, (before, after) in best.items():
        ratio = after / before
        print(
            f"size: {name}: {what}: {before:.2f} ms on {few[1]:,}, {after:.2f} ms on {many[1]:,}, "
            f"ratio {ratio:.2f} (at most {MOST})",
            flush=True,
        )
        within &= ratio <= MOST
    for history in histories:
        history.store.close()
    return within


def _median_ms(ask: Question, times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def _tell_bytes(history: History) -> None:
    """What a row takes, with its part of the indices."""
    query = (
        "SELECT relname, pg_total_relation_size(oid), pg_indexes_size(oid) FROM pg_class "
        "WHERE relkind = 'r' AND reltuples > 1e6 ORDER BY 2 DESC"
    )
    with history.store.engine.connect() as connection:
        for table, total, indices in connection.exec_driver_sql(query):
            print(
                f"size: {table}: {total / history.rows:.0f} bytes a snapshot, of these "
                f"{indices / history.rows:.0f} of indices",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
