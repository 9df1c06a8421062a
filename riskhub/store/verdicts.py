"""Verdicts on landings, and the quarantine: what is rejected is not served as latest any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from riskhub.controlbus.events import quarantined
from riskhub.store.claims import note_progress
from riskhub.store.derived import Row, Worlds, delete_landings, lock_days, replace_rows
from riskhub.store.engine import reading, writing
from riskhub.store.events import append_events
from riskhub.store.landing import give_new_stamps, lock_landings
from riskhub.store.news import look_again
from riskhub.store.reading import Position
from riskhub.store.tables import MADE_FROM_SNAPSHOTS, quarantine, validated_snapshots

_CHUNK = 500
_IS_THERE = quarantine.c.until.is_(None)
_IS_FLAGGED = sa.cast(validated_snapshots.c.flags, sa.Text) != "[]"

QuarantineKey = tuple[datetime, Position]


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """Snapshots in the quarantine, and where the next page starts (None at the end)."""

    rows: Sequence[Row]
    next_key: QuarantineKey | None


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many verdicts a day has: accepted (of those flagged), and rejected."""

    accepted: int
    flagged: int
    rejected: int


class VerdictStore:
    """The verdicts of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def write_verdicts(
        self,
        verdicts: Sequence[Row],
        days: Sequence[date],
        *,
        now: datetime,
        replace: bool,
        read_up_to: int | None = None,
        worlds: Worlds = None,
        run_id: str | None = None,
    ) -> None:
        """Write `validated_snapshots` of some days, and what follows from them, in one transaction.

        What is rejected enters the quarantine at `now`, or stays there since it first did, and
        loses all that was made from it; what is accepted leaves it. What is new of the worlds of
        both is looked up again, and they get another stamp, so that nobody gives an answer from
        before. The rest as `DerivedStore.write_days`.
        """
        with writing(self.engine) as connection:
            lock_days(connection, days)
            replace_rows(
                connection,
                {validated_snapshots.name: verdicts},
                days,
                replace=replace,
                read_up_to=read_up_to,
                worlds=worlds,
            )
            rejected = {row["position"]: row for row in verdicts if not row["accepted"]}
            accepted = {row["position"]: row for row in verdicts if row["accepted"]}
            for table in MADE_FROM_SNAPSHOTS:
                if table is not validated_snapshots:
                    delete_landings(connection, table, rejected)
            held = _held(connection, [*rejected, *accepted])
            entering = [row for position, row in rejected.items() if position not in held]
            leaving = [row for position, row in accepted.items() if position in held]
            if moved := {(row["world_id"], row["stage"]) for row in (*entering, *leaving)}:
                # Entering is told at the end, and landings give stamps and bring news, too.
                lock_landings(connection)
            _enter(connection, [row["position"] for row in entering], now)
            _leave(connection, [row["position"] for row in leaving], now)
            look_again(connection, moved, now)
            give_new_stamps(connection, moved)
            if run_id is not None:
                note_progress(connection, run_id, validated_snapshots.name, days)
            append_events(connection, [quarantined(row, now) for row in entering])

    def verdicts_per_day(self, first: date, last: date) -> dict[date, VerdictCount]:
        """How many verdicts the days have; a day without any is left out."""
        accepted, rejected = validated_snapshots.c.accepted, ~validated_snapshots.c.accepted
        counted = (accepted, sa.and_(accepted, _IS_FLAGGED), rejected)
        query = (
            sa.select(
                validated_snapshots.c.day,
                *(
                    sa.func.coalesce(sa.func.sum(sa.case((what, 1), else_=0)), 0)
                    for what in counted
                ),
            )
            .where(validated_snapshots.c.day.between(first, last))
            .group_by(validated_snapshots.c.day)
        )
        with reading(self.engine) as connection:
            return {day: VerdictCount(*counts) for day, *counts in connection.execute(query)}

    def rejected_on(self, first: date, last: date, *, limit: int) -> list[Row]:
        """Rejected snapshots of the days, in landing order, with reasons, flags and evidence."""
        return self._verdicts(first, last, ~validated_snapshots.c.accepted, limit)

    def flagged_on(self, first: date, last: date, *, limit: int) -> list[Row]:
        """Accepted snapshots of the days that are flagged, in landing order."""
        return self._verdicts(
            first, last, sa.and_(validated_snapshots.c.accepted, _IS_FLAGGED), limit
        )

    def _verdicts(
        self, first: date, last: date, which: sa.ColumnElement[bool], limit: int
    ) -> list[Row]:
        query = (
            sa.select(validated_snapshots)
            .where(validated_snapshots.c.day.between(first, last), which)
            .order_by(validated_snapshots.c.position)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def quarantined(
        self,
        *,
        world_id: str | None = None,
        stage: str | None = None,
        limit: int,
        after: QuarantineKey | None = None,
    ) -> QuarantinePage:
        """A page of what is in the quarantine now; what entered last is first, then landed last.

        Each row is one of `validated_snapshots`, with `since`: when it entered.

        Args:
            after: the `next_key` of the page before.
        """
        order = (quarantine.c.since, quarantine.c.position)
        query = (
            sa.select(quarantine.c.since, *validated_snapshots.c)
            .join(validated_snapshots, validated_snapshots.c.position == quarantine.c.position)
            .where(_IS_THERE)
            .order_by(*(column.desc() for column in order))
            .limit(limit + 1)
        )
        if world_id is not None:
            query = query.where(validated_snapshots.c.world_id == world_id)
        if stage is not None:
            query = query.where(validated_snapshots.c.stage == stage)
        if after is not None:
            bound = zip(order, after, strict=True)
            query = query.where(
                sa.tuple_(*order) < sa.tuple_(*(sa.literal(key, col.type) for col, key in bound))
            )
        with reading(self.engine) as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        page = rows[:limit]
        more = len(rows) > limit
        return QuarantinePage(page, (page[-1]["since"], page[-1]["position"]) if more else None)


def _held(connection: sa.Connection, positions: Sequence[Position]) -> set[Position]:
    """Those of these positions that are in the quarantine."""
    held: set[Position] = set()
    for asked in _in_chunks(positions):
        query = sa.select(quarantine.c.position).where(_IS_THERE, asked)
        held.update(connection.execute(query).scalars())
    return held


def _enter(connection: sa.Connection, positions: Sequence[Position], now: datetime) -> None:
    # What left at this very instant never left.
    for asked in _in_chunks(positions):
        left_now = sa.update(quarantine).where(asked, quarantine.c.until >= now)
        connection.execute(left_now.values(until=None))
    held = _held(connection, positions)
    new = [{"position": position, "since": now} for position in positions if position not in held]
    if new:
        connection.execute(sa.insert(quarantine), new)


def _leave(connection: sa.Connection, positions: Sequence[Position], now: datetime) -> None:
    for asked in _in_chunks(positions):
        # What entered at this very instant was never there.
        connection.execute(sa.delete(quarantine).where(asked, _IS_THERE, quarantine.c.since >= now))
        connection.execute(sa.update(quarantine).where(asked, _IS_THERE).values(until=now))


def _in_chunks(positions: Sequence[Position]) -> Sequence[sa.ColumnElement[bool]]:
    starts = range(0, len(positions), _CHUNK)
    return [quarantine.c.position.in_(positions[start : start + _CHUNK]) for start in starts]
