"""Risk numbers as consumers ask for them: one world's, newest first, each with its tails.

The order is `as_of`, then landing: a correction that landed later comes before what it corrects.
Expiry plays no part, for a number stays what it was when its snapshot is no longer current.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import reading
from riskhub.store.reading import Position
from riskhub.store.tables import risk_metrics, risk_tails, snapshots, validated_snapshots

Row = dict[str, Any]
NumbersKey = tuple[datetime, Position]

_METRICS = [column for column in risk_metrics.c if column.name != "day"]
_TAIL = ("method", "level", "var", "es", "rank", "var_next")


@dataclass(frozen=True, slots=True)
class NumbersFilter:
    """Which of a world's numbers are asked for; None means any.

    `since` and `up_to` bound `as_of`, both inclusive. `method` and `level` choose among the tails
    of a snapshot and leave out no snapshot; `level` is as `riskhub.risk.format_level` writes it.
    """

    version: str | None = None
    stage: str | None = None
    since: datetime | None = None
    up_to: datetime | None = None
    method: str | None = None
    level: str | None = None


@dataclass(frozen=True, slots=True)
class NumbersPage:
    """Rows of `risk_metrics`, each with its `tails`, and where the next page starts."""

    rows: list[Row]
    next_key: NumbersKey | None


ALL_NUMBERS = NumbersFilter()


class NumbersStore:
    """The risk numbers of one database; each call sees one state of it."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def numbers(
        self,
        world_id: str,
        which: NumbersFilter = ALL_NUMBERS,
        *,
        limit: int,
        after: NumbersKey | None = None,
    ) -> NumbersPage:
        """A page of a world's numbers by `as_of` and landing, each descending.

        Args:
            after: the `next_key` of the page before.
        """
        # One statement: between two a day may be recomputed, and tails be another row's.
        statement = _numbers(world_id, which, limit + 1, after)
        with reading(self.engine) as connection:
            found = connection.execute(statement).all()
        rows = [
            _with_tails(list(joined)) for _, joined in groupby(found, key=lambda row: row.position)
        ]
        page = rows[:limit]
        is_last = len(rows) <= limit
        return NumbersPage(page, None if is_last else (page[-1]["as_of"], page[-1]["position"]))

    def tail_kinds(self, positions: Collection[Position]) -> list[tuple[str, str]]:
        """The methods and levels, as pairs, that any of these snapshots has tails of."""
        with reading(self.engine) as connection:
            kinds = connection.execute(
                sa.select(risk_tails.c.method, risk_tails.c.level)
                .where(risk_tails.c.position.in_(positions))
                .distinct()
            )
            return [(method, level) for method, level in kinds]

    def rejection_of(self, world_id: str, version: str) -> list[str] | None:
        """Why a version was rejected; None when it wasn't."""
        with reading(self.engine) as connection:
            reasons = connection.execute(
                sa.select(validated_snapshots.c.reasons).where(
                    validated_snapshots.c.position == _position_of(world_id, version),
                    ~validated_snapshots.c.accepted,
                )
            ).scalar()
            return None if reasons is None else list(map(str, reasons))


def _numbers(
    world_id: str, which: NumbersFilter, count: int, after: NumbersKey | None
) -> sa.Select[Any]:
    order = (risk_metrics.c.as_of, risk_metrics.c.position)
    newest = (
        sa.select(*_METRICS)
        .where(risk_metrics.c.world_id == world_id)
        .order_by(*(column.desc() for column in order))
        .limit(count)
    )
    if which.version is not None:
        newest = newest.where(risk_metrics.c.position == _position_of(world_id, which.version))
    if which.stage is not None:
        newest = newest.where(risk_metrics.c.stage == which.stage)
    if which.since is not None:
        newest = newest.where(risk_metrics.c.as_of >= which.since)
    if which.up_to is not None:
        newest = newest.where(risk_metrics.c.as_of <= which.up_to)
    if after is not None:
        key = (sa.literal(part, column.type) for part, column in zip(after, order, strict=True))
        newest = newest.where(sa.tuple_(*order) < sa.tuple_(*key))
    page = newest.subquery("newest")

    its_own = risk_tails.c.position == page.c.position
    if which.method is not None:
        its_own &= risk_tails.c.method == which.method
    if which.level is not None:
        its_own &= risk_tails.c.level == which.level
    return (
        sa.select(*page.c, *(risk_tails.c[name] for name in _TAIL))
        .select_from(page.outerjoin(risk_tails, its_own))
        .order_by(
            *(page.c[column.name].desc() for column in order),
            *(risk_tails.c.method, risk_tails.c.level),
        )
    )


def _with_tails(joined: Sequence[sa.Row[Any]]) -> Row:
    """One snapshot's row, from those that the join has made of it: one for each tail, or one."""
    metrics = joined[0]._mapping
    tails = [
        dict(zip(_TAIL, row[len(_METRICS) :], strict=True))
        for row in joined
        if row.method is not None
    ]
    return {column.name: metrics[column.name] for column in _METRICS} | {"tails": tails}


def _position_of(world_id: str, version: str) -> sa.ScalarSelect[Position]:
    return (
        sa.select(snapshots.c.position)
        .where(snapshots.c.world_id == world_id, snapshots.c.version == version)
        .scalar_subquery()
    )
