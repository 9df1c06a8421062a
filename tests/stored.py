"""What tests of the store are made of: rows to write, and short ways to ask."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from builders import NOW, WORLD, accept
from sqlalchemy import event

from riskhub.snapshot import Snapshot
from riskhub.store import Filter, Store
from riskhub.store.engine import reading
from riskhub.store.landing import Outcome
from riskhub.store.tables import snapshot_blobs, snapshots

CREATED, DUPLICATE, CONFLICT = Outcome.CREATED, Outcome.DUPLICATE, Outcome.CONFLICT
DAY = date(2026, 1, 31)
THREADS = 8
STRESS_NUMBERS = (
    *("pnl", "worst", "max_drawdown", "ruined", "var", "es"),
    *("unavailable", "measures"),
)
ALL = Filter(include_expired=True)


class Stumbled(Exception):
    """What goes wrong in the middle of a transaction."""


def outcomes(store: Store, *offered: Snapshot) -> list[Outcome]:
    return [landing.outcome for landing in store.land(offered)]


def versions(bodies: list[str]) -> list[str]:
    return [json.loads(body)["version"] for body in bodies]


def latest(store: Store, now: datetime = NOW, **which: Any) -> str | None:
    found = store.latest(WORLD, Filter(**which), now=now)
    return versions([found.body])[0] if found else None


def body_of(store: Store, version: str) -> str | None:
    found = store.by_version(WORLD, version, now=NOW)
    return found.body if found else None


def row_count(store: Store) -> int:
    with reading(store.engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(snapshots)).scalar_one()


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """Run the tasks in threads that all set off at once."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def about_to_land(store: Store) -> threading.Event:
    """Set once the store has taken a connection to begin on; SQLite waits in that beginning."""
    begun = threading.Event()
    event.listen(store.engine, "checkout", lambda *_: begun.set())
    return begun


def waits_for_a_lock(store: Store) -> bool:
    """Whether some connection of the database waits for another's lock."""
    if store.engine.dialect.name != "postgresql":
        return True  # seen in `about_to_land`
    with reading(store.engine) as connection:
        waiting = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(waiting.scalar_one())


def references(store: Store) -> list[tuple[str, str]]:
    """Every reference to a blob, and the version that has it."""
    with reading(store.engine) as connection:
        rows = connection.execute(
            sa.select(snapshot_blobs.c.ref, snapshots.c.version)
            .outerjoin(snapshots, snapshots.c.position == snapshot_blobs.c.position)
            .order_by(snapshot_blobs.c.ref, snapshot_blobs.c.position)
        )
        return [(row.ref, row.version) for row in rows]


def verdict(position: int, *, day: date = DAY, accepted: bool = True, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "digest": "sha256:0",
        "accepted": accepted,
        "reasons": [],
        "flags": [],
        "evidence": None,
        "schema_version": "1",
    } | row


def metrics(position: int, *, day: date = DAY, **row: Any) -> dict[str, Any]:
    numbers = ["mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown"]
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "unavailable": None,
        "horizon_days": 1,
        "window": 500,
        "n": 500,
        **dict.fromkeys(numbers, 0.01),
        **dict.fromkeys(["gross", "net", "largest", "herfindahl", "effective_names"], 1.0),
        "snapshot_digest": "sha256:0",
        "returns_source": "prices",
        "returns_digest": "sha256:1",
        "covariance_source": "prices",
        "covariance_digest": "sha256:1",
        "diversification_ratio": 1.2,
        "effective_bets": 1.5,
        "contributions_level": None,
        "passed_over": {},
        "absent": {},
        "code_version": "riskhub/0",
    } | row


def tail(position: int, level: str = "0.99", *, day: date = DAY, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "method": "historical",
        "level": level,
        "day": day,
        "var": 0.02,
        "es": 0.03,
        "rank": 5,
        "var_next": 0.021,
        "source": "prices",
        "var_error": None,
        "es_error": None,
    } | row


def weight(position: int, symbol: str, value: float, *, day: date = DAY) -> dict[str, Any]:
    return {
        "position": position,
        "symbol": symbol,
        "day": day,
        "world_id": WORLD,
        "weight": value,
    }


def contribution(position: int, symbol: str, var: float, **row: Any) -> dict[str, Any]:
    """Of a position of one half."""
    return {
        "position": position,
        "symbol": symbol,
        "day": DAY,
        "weight": 0.5,
        "marginal_var": var / 0.5,
        "marginal_es": 2 * var / 0.5,
        "var": var,
        "es": 2 * var,
        "historical_var": var / 2,
        "historical_es": var / 4,
    } | row


def candidate(position: int, level: str, method: str = "normal", **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "method": method,
        "level": level,
        "day": DAY,
        "candidate_id": "GLD",
        "candidate_weight": 0.125,
        "funding": "pro rata",
        "source": "covariance",
        "var_without": 0.5,
        "var_with": 0.25,
        "es_without": 0.5,
        "es_with": 0.625,
    } | row


def stressed(position: int, *, day: date = DAY, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "book_digest": "sha256:book",
        "snapshot_digest": "sha256:0",
        "prices_digest": "sha256:1",
        "covariance_source": "prices",
        "loss_limit": 0.25,
        "against": 0.2,
        "market": -0.5,
        "code_version": "riskhub/0",
    } | row


def stress_result(
    position: int, scenario: str, origin: str = "riskhub", **numbers: Any
) -> dict[str, Any]:
    named = {"position": position, "day": DAY, "origin": origin, "scenario": scenario}
    return named | dict.fromkeys(STRESS_NUMBERS) | numbers


def outcome(position: int, day: date, loss: float, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "stage": "backtest",
        "forecast_day": day - timedelta(1),
        "loss": loss,
        "hindsight": False,
        "prices_digest": "sha256:prices",
        "code_version": "riskhub/0",
    } | row


def compute(store: Store, position: int, *, day: date = DAY) -> None:
    """Everything that the pipeline makes of one landing."""
    made = {
        "validated_snapshots": [verdict(position, day=day)],
        "risk_metrics": [metrics(position, day=day)],
        "snapshot_stress": [stressed(position, day=day)],
    }
    store.write_days(made, [day], replace=False)


def land_days(store: Store, *days: int, **kwargs: Any) -> list[int]:
    """Land a snapshot for each January day; their positions."""
    before = store.head()
    store.land(
        [
            accept(version=f"{before + n}", as_of=f"2026-01-{day:02}T12:00:00Z", **kwargs)
            for n, day in enumerate(days)
        ]
    )
    return [row.position for row in store.landed_on(date(2026, 1, 1), DAY)][-len(days) :]


@contextmanager
def plans_of(
    store: Store, how: str = "", kinds: tuple[str, ...] = ("SELECT", "WITH")
) -> Iterator[list[str]]:
    """The plans of the queries that the store issues inside the block.

    Args:
        how: options of Postgres's EXPLAIN, in brackets.
        kinds: how the statements begin whose plans are wanted.
    """
    issued: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(kinds):
            issued.append((statement, parameters))

    plans: list[str] = []
    event.listen(store.engine, "before_cursor_execute", note)
    yield plans
    event.remove(store.engine, "before_cursor_execute", note)
    postgres = store.engine.dialect.name == "postgresql"
    explain = f"EXPLAIN {how} " if postgres else "EXPLAIN QUERY PLAN "
    with reading(store.engine) as connection:
        for statement, parameters in issued:
            rows = [row[-1] for row in connection.exec_driver_sql(explain + statement, parameters)]
            plans.append(
                "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
            )
