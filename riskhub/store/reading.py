"""Snapshots as consumers ask for them: latest, list, lookup, now or as of what was known then.

**Expiry without scanning.** What has expired stays in the table for ever, in front of what is
alive when a world has stopped. So the newest rows are read first, and when some of them have
expired, the alive ones are found by their expiry instead: those are at most a day of landings.

**The quarantine.** What is asked for as the latest is never a snapshot that is in the quarantine;
what is asked for by version, or listed, may be. Here too the newest row is read first: it says
whether it was ever there, which one probe of an index answers, and mostly it was not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from riskhub.snapshot import MAX_TTL_SEC
from riskhub.store.engine import reading
from riskhub.store.tables import quarantine, snapshots, world_stages

Position = int
Order = tuple[datetime, datetime, Position]

_LONGEST_LIFE = timedelta(seconds=MAX_TTL_SEC)
# Behind a newest row that was rejected, so many are looked at before all that is alive.
_NEAR = 100
_END = datetime.max.replace(tzinfo=UTC)
_ORDER = (snapshots.c.as_of, snapshots.c.received_at, snapshots.c.position)


def _quarantined(*when: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether a snapshot is in the quarantine, or was.

    A subquery that yields a value is asked row by row, by index. EXISTS could become a join, for
    which a planner may read all that is quarantined, or all of a world.
    """
    held = sa.select(quarantine.c.since).where(quarantine.c.position == snapshots.c.position, *when)
    return held.limit(1).scalar_subquery().is_not(None)


_COLUMNS = (
    *_ORDER,
    snapshots.c.expires_at,
    snapshots.c.stage,
    snapshots.c.digest,
    snapshots.c.body,
    _quarantined().label("ever_quarantined"),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored snapshot as consumers get it; instants are UTC."""

    as_of: datetime
    received_at: datetime
    position: Position
    expires_at: datetime
    stage: str
    digest: str
    body: str
    ever_quarantined: bool

    @property
    def order(self) -> Order:
        """What snapshots of a world are ordered by; greatest is latest."""
        return self.as_of, self.received_at, self.position


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a world's snapshots are asked for; None means any.

    `since` and `up_to` bound `as_of`, both inclusive. With `known_at` the answer is what the hub
    would have said at that moment: only what it had received by then, and expiry as of then.
    """

    stage: str | None = None
    actor: str | None = None
    include_expired: bool = False
    since: datetime | None = None
    up_to: datetime | None = None
    known_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """One version of a world, or without one the latest that the filter leaves."""

    world_id: str
    version: str | None
    which: Filter


@dataclass(frozen=True, slots=True)
class Page:
    """Snapshots, newest first, and where the next page starts (None at the end)."""

    snapshots: list[Stored]
    next_key: Order | None

    @property
    def bodies(self) -> list[str]:
        """What is served."""
        return [snapshot.body for snapshot in self.snapshots]


EVERYTHING_ALIVE = Filter()


class SnapshotReads:
    """The landing table as consumers read it; each call sees one state of the database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def latest(
        self, world_id: str, which: Filter = EVERYTHING_ALIVE, *, now: datetime
    ) -> Stored | None:
        """The greatest `as_of`, then the later receipt, in whatever order they arrived.

        Never one that is in the quarantine; with `known_at`, that was in it at that moment.
        """
        with reading(self.engine) as connection:
            return _latest(connection, world_id, which, now)

    def newest_first(
        self,
        world_id: str,
        which: Filter = EVERYTHING_ALIVE,
        *,
        now: datetime,
        limit: int,
        after: Order | None = None,
    ) -> Page:
        """A page of a world's snapshots by `as_of`, receipt and landing, each descending.

        What is in the quarantine is listed like the rest.

        Args:
            after: the `next_key` of the page before.
        """
        with reading(self.engine) as connection:
            found = _newest(connection, world_id, which, now, limit + 1, after)
        page = found[:limit]
        return Page(page, page[-1].order if len(found) > limit else None)

    def by_version(
        self, world_id: str, version: str, which: Filter = EVERYTHING_ALIVE, *, now: datetime
    ) -> Stored | None:
        """One version, if it is alive or expired ones are asked for."""
        return self.look_up([Lookup(world_id, version, which)], now=now)[0]

    def look_up(self, lookups: Sequence[Lookup], *, now: datetime) -> list[Stored | None]:
        """What is stored for each of these, read over one connection."""
        with reading(self.engine) as connection:
            newest = _newest_of_each(connection, lookups)
            return [
                _look_up(connection, lookup, stored, now)
                for lookup, stored in zip(lookups, newest, strict=True)
            ]

    def stamps(self, world_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Of each world that has snapshots: its stages, and their stamps."""
        found: dict[str, dict[str, int]] = {}
        with reading(self.engine) as connection:
            for world_id, stage, stamp in connection.execute(
                _STAMPS, {"world_ids": list(world_ids)}
            ):
                found.setdefault(world_id, {})[stage] = stamp
        return found


def _newest(
    connection: sa.Connection,
    world_id: str,
    which: Filter,
    now: datetime,
    count: int,
    after: Order | None,
) -> list[Stored]:
    given = _given(world_id, which, count, after)
    newest = _found(connection, _newest_rows, given)
    alive = [stored for stored in newest if _is_asked_for(stored, which, now)]
    if len(alive) == len(newest) or len(newest) < count:
        return alive
    return _found(connection, _alive_rows, given | _alive_at(which, now))


def _latest(
    connection: sa.Connection, world_id: str, which: Filter, now: datetime
) -> Stored | None:
    found = _found(connection, _newest_rows, _given(world_id, which, 1))
    return _latest_from(connection, world_id, which, now, found[0]) if found else None


def _latest_from(
    connection: sa.Connection, world_id: str, which: Filter, now: datetime, newest: Stored
) -> Stored | None:
    """The latest, given the newest row: that one, or else one behind it."""
    if not newest.ever_quarantined and _is_asked_for(newest, which, now):
        return newest
    given = _given(world_id, which, 1) | {"served_at": which.known_at or _END}
    if which.include_expired:
        found = _found(connection, _newest_rows, given)
    else:
        given |= _alive_at(which, now)
        # Mostly a few were rejected, and there may be many alive: so a few are looked at first.
        found = []
        if newest.ever_quarantined:
            found = _found(connection, _alive_rows, given | {"near": _NEAR})
        if not found:
            found = _found(connection, _alive_rows, given)
    return found[0] if found else None


def _found(
    connection: sa.Connection,
    statement: Callable[[frozenset[str]], sa.Select[Any]],
    given: Mapping[str, Any],
) -> list[Stored]:
    return [Stored(*row) for row in connection.execute(statement(frozenset(given)), given)]


def _given(world_id: str, which: Filter, count: int, after: Order | None = None) -> dict[str, Any]:
    """The parameters that a question gives; see `_asked_for`."""
    parameters: dict[str, Any] = {
        "world_id": world_id,
        "stage": which.stage,
        "actor": which.actor,
        "since": which.since,
        "up_to": which.up_to,
        "known_at": which.known_at if which.include_expired else None,
        "rows": count,
    }
    if after is not None:
        parameters |= dict(zip(("as_of", "received_at", "position"), after, strict=True))
    return {name: value for name, value in parameters.items() if value is not None}


def _alive_at(which: Filter, now: datetime) -> dict[str, Any]:
    """The further parameters of what was alive at the moment that is asked about."""
    known = {} if which.known_at is None else {"known_at": which.known_at}
    return {
        "moment": which.known_at or now,
        "last_expiry": _last_expiry(which.known_at),
        **known,
    }


def _last_expiry(known_at: datetime | None) -> datetime:
    """The greatest expiry of what was known at a moment; without one, for ever.

    Another machine's clock may have received a snapshot any time ahead of ours. A bound is given
    all the same: with one the planners see that the alive ones are few.
    """
    return _END if known_at is None else min(known_at, _END - _LONGEST_LIFE) + _LONGEST_LIFE


def _newest_of_each(connection: sa.Connection, lookups: Sequence[Lookup]) -> list[Stored | None]:
    """For each the version, or the newest row that stage, actor and `as_of` leave, expired or not.

    Postgres is asked for those of a kind in one statement: a group of lookups is a few round trips.
    """
    found: list[Stored | None] = [None] * len(lookups)
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, lookup in enumerate(lookups):
        kinds.setdefault(_kind(lookup), []).append(number)
    for kind, numbers in kinds.items():
        if connection.dialect.name == "postgresql":
            asked = [_asked(lookups[number]) for number in numbers]
            arrays = {name: [row[name] for row in asked] for name in _ASKED if name in asked[0]}
            for place, *row in connection.execute(_many(kind), arrays):
                found[numbers[place - 1]] = Stored(*row)
        else:
            for number in numbers:
                only = connection.execute(_one(kind), _asked(lookups[number])).first()
                found[number] = Stored(*only) if only else None
    return found


def _look_up(
    connection: sa.Connection, lookup: Lookup, newest: Stored | None, now: datetime
) -> Stored | None:
    if newest is None:
        return None
    if lookup.version is None:
        return _latest_from(connection, lookup.world_id, lookup.which, now, newest)
    return newest if _is_asked_for(newest, lookup.which, now) else None


def _is_asked_for(stored: Stored, which: Filter, now: datetime) -> bool:
    if which.known_at is not None and stored.received_at > which.known_at:
        return False
    # Without `known_at` a receipt in the future is another machine's clock, and no reason.
    return which.include_expired or stored.expires_at > (which.known_at or now)


# -- the statements, made once --------------------------------------------------------------------

# What a lookup asks by, and the condition for it; `_kind` says which of them are given.
_ASKED: dict[str, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]] = {
    "world_id": lambda world_id: snapshots.c.world_id == world_id,
    "version": lambda version: snapshots.c.version == version,
    "stage": lambda stage: snapshots.c.stage == stage,
    "actor": lambda actor: snapshots.c.actor == actor,
    "since": lambda since: snapshots.c.as_of >= since,
    "up_to": lambda up_to: snapshots.c.as_of <= up_to,
}


def _asked(lookup: Lookup) -> dict[str, Any]:
    which = lookup.which
    values = (
        *(lookup.world_id, lookup.version),
        *(which.stage, which.actor, which.since, which.up_to),
    )
    return {name: value for name, value in zip(_ASKED, values, strict=True) if value is not None}


def _kind(lookup: Lookup) -> tuple[str, ...]:
    return tuple(_asked(lookup))


@lru_cache
def _one(kind: tuple[str, ...]) -> sa.Select[Any]:
    binds = {name: sa.bindparam(name, type_=_type_of(name)) for name in kind}
    return (
        sa.select(*_COLUMNS)
        .where(*(_ASKED[name](bind) for name, bind in binds.items()))
        .order_by(*(column.desc() for column in _ORDER))
        .limit(1)
    )


@lru_cache
def _many(kind: tuple[str, ...]) -> sa.Select[Any]:
    arrays = (sa.bindparam(name, type_=postgresql.ARRAY(_type_of(name))) for name in kind)
    asked = (
        sa.func.unnest(*arrays).table_valued(*kind, with_ordinality="place").render_derived("asked")
    )
    newest = (
        sa.select(*_COLUMNS)
        .where(*(_ASKED[name](asked.c[name]) for name in kind))
        .order_by(*(column.desc() for column in _ORDER))
        .limit(1)
        .lateral("newest")
    )
    return sa.select(asked.c.place, *newest.c).join_from(asked, newest, sa.true())


def _type_of(name: str) -> Any:
    return snapshots.c.as_of.type if name in ("since", "up_to") else sa.Text()


_STAMPS = sa.select(world_stages.c.world_id, world_stages.c.stage, world_stages.c.stamp).where(
    world_stages.c.world_id.in_(sa.bindparam("world_ids", expanding=True))
)


def _asked_for(given: frozenset[str]) -> list[sa.ColumnElement[bool]]:
    """The conditions on a row for the parameters that are given."""
    instant = snapshots.c.as_of.type
    conditions: dict[str, sa.ColumnElement[bool]] = {
        "world_id": snapshots.c.world_id == sa.bindparam("world_id"),
        "stage": snapshots.c.stage == sa.bindparam("stage"),
        "actor": snapshots.c.actor == sa.bindparam("actor"),
        "since": snapshots.c.as_of >= sa.bindparam("since"),
        "up_to": snapshots.c.as_of <= sa.bindparam("up_to"),
        "known_at": snapshots.c.received_at <= sa.bindparam("known_at"),
        "moment": snapshots.c.expires_at > sa.bindparam("moment"),
        "last_expiry": snapshots.c.expires_at <= sa.bindparam("last_expiry"),
        "served_at": ~_quarantined(
            quarantine.c.since <= sa.bindparam("served_at"),
            sa.or_(quarantine.c.until.is_(None), quarantine.c.until > sa.bindparam("served_at")),
        ),
        "position": sa.tuple_(*_ORDER)
        < sa.tuple_(
            sa.bindparam("as_of", type_=instant),
            sa.bindparam("received_at", type_=instant),
            sa.bindparam("position", type_=snapshots.c.position.type),
        ),
    }
    return [condition for name, condition in conditions.items() if name in given]


# The conditions on a row that depend on when it is asked for.
_OF_THE_MOMENT = frozenset({"moment", "last_expiry", "known_at", "served_at"})


@lru_cache
def _newest_rows(given: frozenset[str]) -> sa.Select[Any]:
    return (
        sa.select(*_COLUMNS)
        .where(*_asked_for(given))
        .order_by(*(column.desc() for column in _ORDER))
        .limit(sa.bindparam("rows"))
    )


@lru_cache
def _alive_rows(given: frozenset[str]) -> sa.Select[Any]:
    """What is alive, and served where that is asked; of the newest `near` rows if that is given."""
    query = sa.select(*_ORDER)
    if "near" in given:
        near = _newest_positions(given - _OF_THE_MOMENT)
        query = query.join(near, near.c.position == snapshots.c.position)
        given &= _OF_THE_MOMENT
    # Materialized, or the planner walks the newest rows in the hope that one of them is alive.
    alive = query.where(*_asked_for(given)).cte("alive").prefix_with("MATERIALIZED")
    newest = (
        sa.select(alive.c.position)
        .order_by(*(alive.c[column.name].desc() for column in _ORDER))
        .limit(sa.bindparam("rows"))
        .subquery("newest")
    )
    return (
        sa.select(*_COLUMNS)
        .join(newest, newest.c.position == snapshots.c.position)
        .order_by(*(column.desc() for column in _ORDER))
    )


def _newest_positions(given: frozenset[str]) -> sa.CTE:
    return (
        sa.select(snapshots.c.position)
        .where(*_asked_for(given))
        .order_by(*(column.desc() for column in _ORDER))
        .limit(sa.bindparam("near"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
