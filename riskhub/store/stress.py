"""Stress results as consumers ask for them: one world's snapshots, newest first, each with its own.

The order of snapshots is that of `riskhub.store.numbers`. The results of a snapshot come in the
order of the scenario book that they were made with, then the producer's own by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.store.engine import reading, writing
from riskhub.store.reading import Position
from riskhub.store.tables import scenario_books, snapshot_stress, snapshots, stress_results

Row = dict[str, Any]
StressKey = tuple[datetime, Position]
Origin = Literal["riskhub", "producer"]

_SNAPSHOT = [column for column in snapshot_stress.c if column.name != "day"]
_RESULT = [
    stress_results.c.scenario,
    stress_results.c.origin,
    scenario_books.c.kind,
    scenario_books.c.label,
    *(
        stress_results.c[name]
        for name in (
            *("pnl", "worst", "max_drawdown", "ruined", "var", "es"),
            *("unavailable", "measures"),
        )
    ),
]
_RESULT_NAMES = [column.name for column in _RESULT]
_BOOK = ("scenario", "place", "kind", "label", "definition")


@dataclass(frozen=True, slots=True)
class StressFilter:
    """Which of a world's stress results are asked for; None means any.

    `since` and `up_to` bound `as_of`, both inclusive. `scenario` and `origin` choose among the
    results of a snapshot and leave out no snapshot.
    """

    version: str | None = None
    stage: str | None = None
    since: datetime | None = None
    up_to: datetime | None = None
    scenario: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class StressPage:
    """Rows of `snapshot_stress`, each with its `results`, and where the next page starts.

    A result has `scenario`, `origin`, the `kind` and `label` that the book gives it (null for a
    producer's own), and the numbers of `stress_results`.
    """

    rows: list[Row]
    next_key: StressKey | None


ALL_STRESS = StressFilter()


class StressStore:
    """The stress results of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add_scenario_book(self, digest: str, rows: Sequence[Row]) -> None:
        """Note what the scenarios of a book say, once, whoever else does the same now.

        `rows`: `scenario`, `place`, `kind`, `label` and `definition` of each.
        """
        with writing(self.engine) as connection:
            postgres = connection.dialect.name == "postgresql"
            insert = (postgresql if postgres else sqlite).insert(scenario_books)
            connection.execute(
                insert.on_conflict_do_nothing(), [{"digest": digest, **row} for row in rows]
            )

    def scenario_book(self, digest: str) -> list[Row]:
        """What the scenarios of a book say, in its order; none when nobody has noted it."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(*(scenario_books.c[name] for name in _BOOK))
                .where(scenario_books.c.digest == digest)
                .order_by(scenario_books.c.place)
            )
            return [dict(row._mapping) for row in rows]

    def stress(
        self,
        world_id: str,
        which: StressFilter = ALL_STRESS,
        *,
        limit: int,
        after: StressKey | None = None,
    ) -> StressPage:
        """A page of a world's stress results by `as_of` and landing, each descending.

        Args:
            after: the `next_key` of the page before.
        """
        # One statement: between two a day may be recomputed, and results be another row's.
        statement = _stress(world_id, which, limit + 1, after)
        with reading(self.engine) as connection:
            found = connection.execute(statement).all()
        rows = [
            _with_results(list(joined))
            for _, joined in groupby(found, key=lambda row: row.position)
        ]
        page = rows[:limit]
        is_last = len(rows) <= limit
        return StressPage(page, None if is_last else (page[-1]["as_of"], page[-1]["position"]))


def _stress(
    world_id: str, which: StressFilter, count: int, after: StressKey | None
) -> sa.Select[Any]:
    order = (snapshot_stress.c.as_of, snapshot_stress.c.position)
    newest = (
        sa.select(*_SNAPSHOT)
        .where(snapshot_stress.c.world_id == world_id)
        .order_by(*(column.desc() for column in order))
        .limit(count)
    )
    if which.version is not None:
        its_landing = (
            sa.select(snapshots.c.position)
            .where(snapshots.c.world_id == world_id, snapshots.c.version == which.version)
            .scalar_subquery()
        )
        newest = newest.where(snapshot_stress.c.position == its_landing)
    if which.stage is not None:
        newest = newest.where(snapshot_stress.c.stage == which.stage)
    if which.since is not None:
        newest = newest.where(snapshot_stress.c.as_of >= which.since)
    if which.up_to is not None:
        newest = newest.where(snapshot_stress.c.as_of <= which.up_to)
    if after is not None:
        key = (sa.literal(part, column.type) for part, column in zip(after, order, strict=True))
        newest = newest.where(sa.tuple_(*order) < sa.tuple_(*key))
    page = newest.subquery("newest")

    its_own = stress_results.c.position == page.c.position
    if which.scenario is not None:
        its_own &= stress_results.c.scenario == which.scenario
    if which.origin is not None:
        its_own &= stress_results.c.origin == which.origin
    in_the_book = sa.and_(
        stress_results.c.origin == "riskhub",
        scenario_books.c.digest == page.c.book_digest,
        scenario_books.c.scenario == stress_results.c.scenario,
    )
    return (
        sa.select(*page.c, scenario_books.c.place, *_RESULT)
        .select_from(page.outerjoin(stress_results, its_own).outerjoin(scenario_books, in_the_book))
        .order_by(*(page.c[column.name].desc() for column in order))
    )


def _with_results(joined: Sequence[sa.Row[Any]]) -> Row:
    """One snapshot's row, from those that the joins have made: one for each result, or one."""
    # Sorted here: each database sorts text in its own way.
    found = sorted(
        (row for row in joined if row.scenario is not None),
        key=lambda row: (row.place is None, row.place, row.scenario),
    )
    snapshot = joined[0]._mapping
    return {column.name: snapshot[column.name] for column in _SNAPSHOT} | {
        "results": [dict(zip(_RESULT_NAMES, row[-len(_RESULT) :], strict=True)) for row in found]
    }
