"""What a person looks at: of all worlds the last days, of one its days and its versions.

Each read is bounded by what a page shows. The last days of a world are found one from the other,
the newest snapshot before the midnight of the one before: a probe of an index a day, however many
snapshots a day has, and however long ago the world has stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.reading import Position
from riskhub.store.tables import (
    risk_contributions,
    risk_metrics,
    risk_tails,
    snapshots,
    validated_snapshots,
    var_backtests,
    var_outcomes,
    world_stages,
)

Row = dict[str, Any]
VersionKey = tuple[datetime, Position]

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Overview:
    """All worlds as of one state of the database.

    Attributes:
        days: of each the newest measured snapshot of its last measured days, newest first:
            `world_id`, `stage`, `position`, `version`, `as_of`, `unavailable`, `method`, and `var`
            and `es`, which are null where there is no such tail.
        zones: of each world, stage and method the newest row of `var_backtests`, in part.
        contributions: of the newest of `days` the largest contributors to VaR: `position`,
            `symbol`, `var`, and `total` of all symbols.
    """

    days: list[Row]
    zones: list[Row]
    contributions: list[Row]


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Versions of a world, newest first, and where the next page starts (None at the end)."""

    rows: list[Row]
    next_key: VersionKey | None


class OverviewStore:
    """The reads of the status pages in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def overview(self, *, days: int, methods: Sequence[str], level: str, largest: int) -> Overview:
        """All worlds: see `Overview`.

        Args:
            days: how many of each world, at most.
            methods: the tails of each are of the first of these that its newest snapshot has.
            level: of tails and backtests.
            largest: how many contributors.
        """
        with one_state(self.engine) as connection:
            found = connection.execute(_last_days(connection, days, methods, level))
            rows = [dict(row._mapping) for row in found]
            newest = {(row["world_id"], row["stage"]): row["position"] for row in rows[::-1]}
            return Overview(
                rows,
                _zones(connection, methods, level),
                _largest(connection, list(newest.values()), largest),
            )

    def outcome_days(
        self, world_id: str, *, stage: str, method: str, level: str, limit: int
    ) -> list[Row]:
        """The last outcomes of a world that a method had forecasts for, oldest first.

        Each has `day`, `loss`, `var`, `es`, and the `zone` that the backtest had on that day (null
        where there is none).
        """
        its_tail = sa.and_(
            risk_tails.c.position == var_outcomes.c.position,
            risk_tails.c.method == method,
            risk_tails.c.level == level,
        )
        its_light = sa.and_(
            var_backtests.c.world_id == world_id,
            var_backtests.c.stage == stage,
            var_backtests.c.method == method,
            var_backtests.c.level == level,
            var_backtests.c.day == var_outcomes.c.day,
        )
        query = (
            sa.select(
                var_outcomes.c.day,
                var_outcomes.c.loss,
                risk_tails.c.var,
                risk_tails.c.es,
                var_backtests.c.zone,
            )
            .join(risk_tails, its_tail)
            .outerjoin(var_backtests, its_light)
            .where(var_outcomes.c.world_id == world_id, var_outcomes.c.stage == stage)
            .order_by(var_outcomes.c.day.desc())
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)][::-1]

    def newest_zones(
        self, world_id: str, *, stage: str, methods: Sequence[str], level: str
    ) -> list[Row]:
        """Of each of these methods of a world and a stage the newest backtest; see `Overview`."""
        one = sa.select(world_stages.c.world_id, world_stages.c.stage).where(
            world_stages.c.world_id == world_id, world_stages.c.stage == stage
        )
        with reading(self.engine) as connection:
            return _zones(connection, methods, level, one.subquery("one"))

    def versions(
        self,
        world_id: str,
        *,
        stage: str,
        method: str,
        level: str,
        limit: int,
        after: VersionKey | None = None,
    ) -> VersionPage:
        """A page of what has landed for a world and a stage, by `as_of` and landing, descending.

        Without bodies; with the verdict (`accepted`, `reasons`, `flags`: null where there is none
        yet) and one VaR (null where there is none).

        Args:
            after: the `next_key` of the page before.
        """
        its_tail = sa.and_(
            risk_tails.c.position == snapshots.c.position,
            risk_tails.c.method == method,
            risk_tails.c.level == level,
        )
        order = (snapshots.c.as_of, snapshots.c.position)
        names = ("position", "version", "as_of", "received_at", "expires_at", "actor", "digest")
        query = (
            sa.select(
                *(snapshots.c[name] for name in names),
                *(validated_snapshots.c[name] for name in ("accepted", "reasons", "flags")),
                risk_tails.c.var,
            )
            .outerjoin(validated_snapshots, validated_snapshots.c.position == snapshots.c.position)
            .outerjoin(risk_tails, its_tail)
            .where(snapshots.c.world_id == world_id, snapshots.c.stage == stage)
            .order_by(*(column.desc() for column in order))
            .limit(limit + 1)
        )
        if after is not None:
            key = [sa.literal(part, column.type) for part, column in zip(after, order, strict=True)]
            # The first says the same as the second, in a form that every planner has an index for.
            query = query.where(snapshots.c.as_of <= key[0], sa.tuple_(*order) < sa.tuple_(*key))
        with reading(self.engine) as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        if len(rows) <= limit:
            return VersionPage(rows, None)
        last = rows[limit - 1]
        return VersionPage(rows[:limit], (last["as_of"], last["position"]))


def _newest(
    of: sa.FromClause, before: sa.ColumnElement[Any] | None = None
) -> sa.ScalarSelect[Position]:
    """The newest measured snapshot of the worlds and stages of a query, before an instant."""
    measured = risk_metrics.alias("measured")
    query = (
        sa.select(measured.c.position)
        .where(measured.c.world_id == of.c.world_id, measured.c.stage == of.c.stage)
        .order_by(measured.c.as_of.desc(), measured.c.position.desc())
        .limit(1)
    )
    if before is not None:
        query = query.where(measured.c.as_of < before)
    return query.correlate(of, risk_metrics).scalar_subquery()


def _last_days(
    connection: sa.Connection, days: int, methods: Sequence[str], level: str
) -> sa.Select[Any]:
    newest = sa.select(
        world_stages.c.world_id, world_stages.c.stage, _newest(world_stages).label("position")
    ).cte("newest")
    has = [
        (
            sa.exists().where(
                risk_tails.c.position == newest.c.position,
                risk_tails.c.method == method,
                risk_tails.c.level == level,
            ),
            method,
        )
        for method in methods
    ]
    walk = sa.select(
        newest, sa.case(*has, else_=methods[0]).label("method"), sa.literal(1).label("number")
    ).cte("walk", recursive=True)
    earlier = (
        sa.select(
            walk.c.world_id,
            walk.c.stage,
            _newest(walk, _midnight(connection, risk_metrics.c.as_of)),
            walk.c.method,
            walk.c.number + 1,
        )
        .join(risk_metrics, risk_metrics.c.position == walk.c.position)
        .where(walk.c.number < days)
    )
    walk = walk.union_all(earlier)
    its_tail = sa.and_(
        risk_tails.c.position == walk.c.position,
        risk_tails.c.method == walk.c.method,
        risk_tails.c.level == level,
    )
    names = ("version", "as_of", "unavailable")
    return (
        sa.select(
            walk.c.world_id,
            walk.c.stage,
            walk.c.position,
            *(risk_metrics.c[name] for name in names),
            walk.c.method,
            risk_tails.c.var,
            risk_tails.c.es,
        )
        .join(risk_metrics, risk_metrics.c.position == walk.c.position)
        .outerjoin(risk_tails, its_tail)
        .order_by(walk.c.number)
    )


def _midnight(connection: sa.Connection, as_of: sa.Column[datetime]) -> sa.ColumnElement[Any]:
    """When the UTC day of an instant began."""
    if connection.dialect.name == "postgresql":
        return sa.func.date_trunc("day", as_of, "UTC", type_=as_of.type)
    since_epoch = sa.type_coerce(as_of, sa.BigInteger)
    return sa.type_coerce(since_epoch - since_epoch % _DAY_US, as_of.type)


def _zones(
    connection: sa.Connection,
    methods: Sequence[str],
    level: str,
    of: sa.FromClause = world_stages,
) -> list[Row]:
    """Of each world and stage of a query, and each method, its newest backtest."""
    table, others = var_backtests, var_backtests.alias("others")
    names = ("world_id", "stage", "method", "day", "zone", "window", "observations", "exceedances")
    found: list[Row] = []
    for method in methods:
        newest = (
            sa.select(sa.func.max(others.c.day))
            .where(others.c.world_id == of.c.world_id, others.c.stage == of.c.stage)
            .where(others.c.method == method, others.c.level == level)
            .correlate(of)
            .scalar_subquery()
        )
        query = (
            sa.select(*(table.c[name] for name in names))
            .join(of, sa.and_(table.c.world_id == of.c.world_id, table.c.stage == of.c.stage))
            .where(table.c.method == method, table.c.level == level, table.c.day == newest)
        )
        found += [dict(row._mapping) for row in connection.execute(query)]
    return found


def _largest(connection: sa.Connection, positions: Sequence[Position], count: int) -> list[Row]:
    table = risk_contributions
    of_one: dict[str, Any] = {"partition_by": table.c.position}
    place = sa.func.row_number().over(**of_one, order_by=(table.c.var.desc(), table.c.symbol))
    ranked = (
        sa.select(
            table.c.position,
            table.c.symbol,
            table.c.var,
            sa.func.sum(table.c.var).over(**of_one).label("total"),
            place.label("place"),
        )
        .where(table.c.position.in_(positions))
        .subquery("ranked")
    )
    query = sa.select(ranked).where(ranked.c.place <= count)
    rows = connection.execute(query.order_by(ranked.c.position, ranked.c.place))
    return [dict(row._mapping) for row in rows]
