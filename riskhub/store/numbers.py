"""Risk numbers as consumers ask for them: one world's, newest first, each with its parts.

The order is `as_of`, then landing: a correction that landed later comes before what it corrects.
Expiry plays no part, for a number stays what it was when its snapshot is no longer current.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.reading import Position
from riskhub.store.tables import (
    candidate_risk,
    risk_contributions,
    risk_metrics,
    risk_tails,
    snapshots,
    validated_snapshots,
)

Row = dict[str, Any]
NumbersKey = tuple[datetime, Position]

_METRICS = [column for column in risk_metrics.c if column.name != "day"]
_OF_CONTRIBUTIONS = [
    *("world_id", "version", "as_of", "stage", "position", "horizon_days", "unavailable"),
    *("snapshot_digest", "covariance_source", "covariance_digest"),
    *("returns_source", "returns_digest", "contributions_level", "absent", "code_version"),
]


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
    """Rows of `risk_metrics`, each with its parts, and where the next page starts."""

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

        Each row has its `tails`, by method and level. The `source` of a tail is None where the
        code that made it did not say.

        Args:
            after: the `next_key` of the page before.
        """
        asked = [
            risk_tails.c[name] == value
            for name, value in (("method", which.method), ("level", which.level))
            if value is not None
        ]
        newest = _newest(_METRICS, world_id, which, limit + 1, after)
        with one_state(self.engine) as connection:
            page = _page(connection, newest, limit)
            tails = _parts(connection, risk_tails, page.rows, *asked)
        for row in page.rows:
            row["tails"] = [
                tail | {"source": tail["source"] or None} for tail in tails[row["position"]]
            ]
        return page

    def contributions(
        self,
        world_id: str,
        which: NumbersFilter = ALL_NUMBERS,
        *,
        limit: int,
        after: NumbersKey | None = None,
    ) -> NumbersPage:
        """As `numbers`: rows with their `contributions`, by symbol, and `candidate` tails.

        Both are empty where there are none; `absent` then says why, or `unavailable`.
        """
        columns = [risk_metrics.c[name] for name in _OF_CONTRIBUTIONS]
        newest = _newest(columns, world_id, which, limit + 1, after)
        with one_state(self.engine) as connection:
            page = _page(connection, newest, limit)
            contributions = _parts(connection, risk_contributions, page.rows)
            candidates = _parts(connection, candidate_risk, page.rows)
        for row in page.rows:
            row["contributions"] = contributions[row["position"]]
            row["candidate"] = candidates[row["position"]]
        return page

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


def _newest(
    columns: Sequence[sa.Column[Any]],
    world_id: str,
    which: NumbersFilter,
    count: int,
    after: NumbersKey | None,
) -> sa.Select[Any]:
    order = (risk_metrics.c.as_of, risk_metrics.c.position)
    newest = (
        sa.select(*columns)
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
    return newest


def _page(connection: sa.Connection, newest: sa.Select[Any], limit: int) -> NumbersPage:
    """What was asked for one row more than a page holds."""
    rows = [dict(row) for row in connection.execute(newest).mappings()]
    if len(rows) <= limit:
        return NumbersPage(rows, None)
    last = rows[limit - 1]
    return NumbersPage(rows[:limit], (last["as_of"], last["position"]))


def _parts(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Row],
    *asked: sa.ColumnElement[bool],
) -> dict[Position, list[Row]]:
    """What a table has of these rows' snapshots, by position, in the order of its key."""
    parts: dict[Position, list[Row]] = {row["position"]: [] for row in rows}
    if rows:
        columns = [column for column in table.c if column.name != "day"]
        found = connection.execute(
            sa.select(*columns).where(table.c.position.in_(parts), *asked)
        ).mappings()
        key = itemgetter(*table.primary_key.columns.keys())
        for part in sorted(found, key=key):  # here: each database sorts text in its own way
            values = dict(part)
            parts[values.pop("position")].append(values)
    return parts


def _position_of(world_id: str, version: str) -> sa.ScalarSelect[Position]:
    return (
        sa.select(snapshots.c.position)
        .where(snapshots.c.world_id == world_id, snapshots.c.version == version)
        .scalar_subquery()
    )
