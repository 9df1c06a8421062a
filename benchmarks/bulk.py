"""Many rows into Postgres: COPY against a statement a row; and what a worker makes of a backlog.

Rows of contributions, as many as 256 snapshots of 100 symbols have, in one transaction, in turn: by
`riskhub.store.bulk`, and by SQLAlchemy's `executemany`, which the driver sends as a pipeline. The
claim: at most half the time.

Then the handlers of a worker (judged, weighed, measured, stressed, each written and told of) on a
backlog of snapshots with the 20 symbols of the price panel, batch by batch as a worker takes them:
events a second, with the share of the time that is the writing of rows.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

from benchmarks._hub import databases
from riskhub.controlbus.computing import Numbers, Stress
from riskhub.controlbus.events import parse
from riskhub.controlbus.handlers import Context
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.snapshot import validate
from riskhub.store import Store, create_engine
from riskhub.store.bulk import add_rows
from riskhub.store.engine import writing
from riskhub.store.tables import risk_contributions
from riskhub_dagster.handlers import Validation

ROUNDS = 7
SNAPSHOTS, SYMBOLS = 256, 100
MOST = 0.5
BACKLOG = 2_560

Row = dict[str, Any]


def run() -> bool:
    """Measure both; whether COPY holds its claim."""
    with databases() as all_of_them:
        database = next(url for name, url, _ in all_of_them if name == "Postgres")
        store = Store(create_engine(database))
        within = copying(store)
        backlog(store, Settings(database_url=database))
        store.close()
    return within


def copying(store: Store) -> bool:
    """Milliseconds of both ways, and whether the claim holds."""
    rows: list[Row] = [
        {"position": position, "symbol": f"S{number:03d}", "day": date(2026, 1, 2), "weight": 0.01}
        | dict.fromkeys(("marginal_var", "marginal_es", "var", "es"), number / 7)
        | dict.fromkeys(("historical_var", "historical_es"), position / 7)
        for position in range(SNAPSHOTS)
        for number in range(SYMBOLS)
    ]

    def row_by_row(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        connection.execute(sa.insert(table), list(rows))

    ways: dict[str, Callable[[sa.Connection, sa.Table, Sequence[Row]], None]] = {
        "COPY": add_rows,
        "a statement a row": row_by_row,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, write in ways.items():
            began = time.perf_counter()
            with writing(store.engine) as connection:
                write(connection, risk_contributions, rows)
            taken[name].append(time.perf_counter() - began)
            with writing(store.engine) as connection:
                connection.execute(sa.delete(risk_contributions))
    copied, one_by_one = (statistics.median(each) for each in taken.values())
    print(
        f"bulk: {len(rows):,} rows of contributions: COPY {1000 * copied:.0f} ms "
        f"({len(rows) / copied:,.0f}/s), a statement a row {1000 * one_by_one:.0f} ms "
        f"({len(rows) / one_by_one:,.0f}/s), ratio {copied / one_by_one:.2f} (at most {MOST})",
        flush=True,
    )
    return copied / one_by_one <= MOST


def backlog(store: Store, settings: Settings) -> None:
    """Events a second of a worker's handlers, and how much of the time the database has."""
    context = Context(settings, store)
    weights = dict.fromkeys(context.panel().symbols, 0.05)
    fill(store, BACKLOG + 256, weights)
    handlers = [Validation(context), Numbers(context), Stress(context)]
    events = [parse(each.cloud_event()) for each in store.events_after(0, limit=BACKLOG + 256)]
    spent = {handler.name: 0.0 for handler in handlers}
    writing_sec = timed(store, "write_days", "write_verdicts", "note_handled")
    for start in range(0, len(events), 256):
        batch = events[start : start + 256]
        if not start:  # the first has imports and compilation in it
            for handler in handlers:
                handler.handle(batch)
            writing_sec.clear()
            continue
        for handler in handlers:
            began = time.perf_counter()
            handler.handle(batch)
            store.note_handled(handler.name, [each.id for each in batch], batch[0].time)
            spent[handler.name] += time.perf_counter() - began
    total = sum(spent.values())
    each = ", ".join(f"{name} {1000 * s / BACKLOG:.2f} ms" for name, s in spent.items())
    print(
        f"bulk: a backlog of {BACKLOG:,} events: {BACKLOG / total:,.0f} events/s; an event takes "
        f"{each}; {100 * sum(writing_sec) / total:.0f} % of it to write rows",
        flush=True,
    )


def fill(store: Store, count: int, weights: dict[str, float]) -> None:
    """So many landings of one portfolio, over fifty worlds."""
    document = {"as_of": "2022-12-28T21:00:00Z", "version": "v0", "weights": weights}
    for start in range(0, count, 500):
        store.land(
            [
                validate(
                    document | {"version": f"v{number}"},
                    world_id=f"w{number % 50}",
                    actor="bench",
                    stage="paper",
                    received_at=utc_now(),
                )
                for number in range(start, min(start + 500, count))
            ]
        )


def timed(store: Store, *names: str) -> list[float]:
    """Have the time of these calls noted."""
    seconds: list[float] = []

    def timing(call: Callable[..., None]) -> Callable[..., None]:
        def measured(*args: Any, **kwargs: Any) -> None:
            began = time.perf_counter()
            call(*args, **kwargs)
            seconds.append(time.perf_counter() - began)

        return measured

    for name in names:
        setattr(store, name, timing(getattr(store, name)))
    return seconds


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
