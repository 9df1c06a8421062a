"""What a person looks at: of all worlds the last days, of one its days and its versions.

Each read is bounded by what a page shows. The last days of a world are found one from the other,
the newest snapshot before the midnight of the one before: a probe of an index a day, however many
snapshots a day has, and however long ago the world has stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

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

_OF_LIGHT = ("zone", "exceedances", "observations", "window", "day")
_DAY_US = 86_400_000_000
_CHUNK = 400  # two parameters each, where SQLite may take 999


class Tail(NamedTuple):
    """VaR and ES of one snapshot, by one method at one level."""

    as_of: datetime
    var: float
    es: float


@dataclass(frozen=True, slots=True)
class Overview:
    """All worlds as of one state of the database.

    Attributes:
        newest: of each world and stage the newest measured snapshot: `world_id`, `stage`,
            `position`, `as_of`, `unavailable`, `method`, and `var` and `es`, which are null where
            there is no such tail; and of the newest backtest of that method `zone`, `exceedances`,
            `observations`, `window` and `day`, null where there is none.
        contributions: of `newest` the largest contributors to VaR: `position`, `symbol`, `var`,
            and `total` of all symbols.
    """

    newest: list[Row]
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

    def overview(self, *, methods: Sequence[str], level: str, largest: int) -> Overview:
        """All worlds: see `Overview`.

        Args:
            methods: the tail of each is of the first of these that it has.
            level: of tails and backtests.
            largest: how many contributors.
        """
        with one_state(self.engine) as connection:
            rows = [
                dict(row._mapping) for row in connection.execute(_overview(tuple(methods), level))
            ]
            return Overview(
                rows,
                _largest(connection, [row["position"] for row in rows], largest),
            )

    def days_before(
        self,
        keys: Sequence[tuple[str, str]],
        *,
        days: int,
        methods: Sequence[str],
        level: str,
    ) -> dict[tuple[str, str], list[Tail]]:
        """Of worlds and stages the last days before that of their newest measured snapshot.

        Oldest first, each by the newest snapshot of the day that is measured: its `as_of`, VaR and
        ES. Days without numbers are passed over, and those without such a tail left out.

        Args:
            days: how many, at most.
            methods: as of `overview`.
        """
        found: dict[tuple[str, str], list[Tail]] = {key: [] for key in keys}
        with reading(self.engine) as connection:
            for start in range(0, len(keys), _CHUNK):
                query = _days_before(connection, keys[start : start + _CHUNK], days, methods, level)
                for world_id, stage, *tail in connection.execute(query):
                    found[world_id, stage].append(Tail(*tail))
        return found

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

    def newest_lights(
        self, world_id: str, *, stage: str, methods: Sequence[str], level: str
    ) -> list[Row]:
        """Of each of these methods of a world and a stage the newest backtest; see `Overview`."""
        of = (
            sa.values(
                *(sa.column(name, sa.Text) for name in ("world_id", "stage", "method")), name="of"
            )
            .data([(world_id, stage, method) for method in methods])
            .cte()
        )
        query = sa.select(of.c.method, *(var_backtests.c[name] for name in _OF_LIGHT))
        query = query.select_from(of).join(var_backtests, _newest_light_of(of, level))
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

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


@lru_cache
def _overview(methods: tuple[str, ...], level: str) -> sa.Select[Any]:
    newest = _newest_of_each(methods, level)
    return (
        sa.select(
            *newest.c,
            *(risk_metrics.c[name] for name in ("as_of", "unavailable")),
            *(risk_tails.c[name] for name in ("var", "es")),
            *(var_backtests.c[name] for name in _OF_LIGHT),
        )
        .join(risk_metrics, risk_metrics.c.position == newest.c.position)
        .outerjoin(risk_tails, _tail_of(newest, level))
        .outerjoin(var_backtests, _newest_light_of(newest, level))
    )


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


def _newest_of_each(
    methods: Sequence[str], level: str, keys: Sequence[tuple[str, str]] | None = None
) -> sa.CTE:
    """The newest measured snapshot of worlds and stages (None is all), and which tail it has."""
    of = sa.select(
        world_stages.c.world_id, world_stages.c.stage, _newest(world_stages).label("position")
    )
    if keys is not None:
        of = of.where(sa.tuple_(world_stages.c.world_id, world_stages.c.stage).in_(keys))
    # Materialized, or each place that names it looks for the newest again.
    found = of.cte("found").prefix_with("MATERIALIZED")
    # Each a value, asked for row by row: for EXISTS a planner may read every tail there is.
    has = [
        (
            sa.select(risk_tails.c.var)
            .where(risk_tails.c.position == found.c.position)
            .where(risk_tails.c.method == method, risk_tails.c.level == level)
            .scalar_subquery()
            .is_not(None),
            method,
        )
        for method in methods
    ]
    known = sa.select(found, sa.case(*has, else_=methods[0]).label("method"))
    return known.cte("newest").prefix_with("MATERIALIZED")


def _tail_of(of: sa.CTE, level: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        risk_tails.c.position == of.c.position,
        risk_tails.c.method == of.c.method,
        risk_tails.c.level == level,
    )


def _days_before(
    connection: sa.Connection,
    keys: Sequence[tuple[str, str]],
    days: int,
    methods: Sequence[str],
    level: str,
) -> sa.Select[Any]:
    newest = _newest_of_each(methods, level, keys)
    walk = sa.select(newest, sa.literal(0).label("back")).cte("walk", recursive=True)
    earlier = (
        sa.select(
            walk.c.world_id,
            walk.c.stage,
            _newest(walk, _midnight(connection, risk_metrics.c.as_of)),
            walk.c.method,
            walk.c.back + 1,
        )
        .join(risk_metrics, risk_metrics.c.position == walk.c.position)
        .where(walk.c.back < days)
    )
    walk = walk.union_all(earlier)
    return (
        sa.select(
            walk.c.world_id, walk.c.stage, risk_metrics.c.as_of, risk_tails.c.var, risk_tails.c.es
        )
        .join(risk_metrics, risk_metrics.c.position == walk.c.position)
        .join(risk_tails, _tail_of(walk, level))
        .where(walk.c.back > 0)
        .order_by(walk.c.back.desc())
    )


def _midnight(connection: sa.Connection, as_of: sa.Column[datetime]) -> sa.ColumnElement[Any]:
    """When the UTC day of an instant began."""
    if connection.dialect.name == "postgresql":
        return sa.func.date_trunc("day", as_of, "UTC", type_=as_of.type)
    since_epoch = sa.type_coerce(as_of, sa.BigInteger)
    return sa.type_coerce(since_epoch - since_epoch % _DAY_US, as_of.type)


def _newest_light_of(of: sa.CTE, level: str) -> sa.ColumnElement[bool]:
    table, others = var_backtests, var_backtests.alias("others")

    def same(one: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        named = ("world_id", "stage", "method")
        return [*(one.c[name] == of.c[name] for name in named), one.c.level == level]

    newest = sa.select(sa.func.max(others.c.day)).where(*same(others)).correlate(of)
    return sa.and_(*same(table), table.c.day == newest.scalar_subquery())


def _largest(connection: sa.Connection, positions: Sequence[Position], count: int) -> list[Row]:
    query = _largest_of(count, in_array=connection.dialect.name == "postgresql")
    rows = connection.execute(query, {"positions": positions})
    return [dict(row._mapping) for row in rows]


@lru_cache
def _largest_of(count: int, *, in_array: bool) -> sa.Select[Any]:
    table = risk_contributions
    # An array is one parameter, so it is one statement for any number of positions.
    given: sa.ColumnElement[bool]
    if in_array:
        array = sa.bindparam("positions", type_=postgresql.ARRAY(sa.BigInteger))
        given = table.c.position == sa.any_(array)
    else:
        given = table.c.position.in_(sa.bindparam("positions", expanding=True))
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
        .where(given)
        .subquery("ranked")
    )
    query = sa.select(ranked).where(ranked.c.place <= count)
    return query.order_by(ranked.c.position, ranked.c.place)
