"""What an audit reads: a page of landings with all that was made of them, in one state.

Everything is read by keys, a page at a time, each in a short transaction of its own: an audit of
ten million landings holds up nobody, and neither vacuum. Comparing is `riskhub.audit.compare`'s.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from riskhub.controlbus.events import (
    METRICS_UPDATED,
    SNAPSHOT_QUARANTINED,
    SNAPSHOT_UPDATED,
    OutboxEvent,
)
from riskhub.store.engine import one_state, reading
from riskhub.store.events import PAGE_BYTES, events_at
from riskhub.store.reading import Position
from riskhub.store.tables import (
    MADE_FROM_SNAPSHOTS,
    dead_letters,
    events,
    quarantine,
    risk_contributions,
    risk_metrics,
    risk_tails,
    scenario_books,
    snapshot_blobs,
    snapshot_stress,
    snapshot_weights,
    snapshots,
    stress_results,
    validated_snapshots,
    world_stages,
)

Row = Mapping[str, Any]

LANDINGS = 200
"""Landings a page; fewer, where their bodies are large."""
_WINDOW = 20_000
_PAGE = 1_000
_GO_WITH_A_SNAPSHOT = (*MADE_FROM_SNAPSHOTS, quarantine, snapshot_blobs, events)


@dataclass(frozen=True, slots=True)
class AuditedLanding:
    """A landing, and what there is of it.

    Attributes:
        row: of `snapshots`.
        world_known: whether `world_stages` has its world and stage.
        verdict, numbers, stress: its rows of `validated_snapshots`, `risk_metrics` and
            `snapshot_stress`; None where there is none.
        stays: in the quarantine, rows of that.
        weights: by symbol.
        tails: its rows of `risk_tails`.
        contributions: how many rows of `risk_contributions`.
        results: how many rows of `stress_results` that are the hub's own.
        scenarios: how many scenarios the book of its stress has.
        refs: the blobs that are noted as referred to.
        told: how many events of its landing are in the outbox.
        numbers_told: the data of each event of its numbers.
        quarantine_told: `occurred_at` and `data` of each event of its entering the quarantine.
    """

    row: Row
    world_known: bool
    verdict: Row | None
    stays: Sequence[Row]
    weights: Mapping[str, float]
    numbers: Row | None
    tails: Sequence[Row]
    contributions: int
    stress: Row | None
    results: int
    scenarios: int
    refs: frozenset[str]
    told: int
    numbers_told: Sequence[str]
    quarantine_told: Sequence[Row]

    @property
    def in_quarantine(self) -> bool:
        """Now."""
        return any(stay["until"] is None for stay in self.stays)


class AuditStore:
    """What an audit reads of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def position_before(self, received_at: datetime) -> Position:
        """A position up to which everything was received before an instant.

        Positions and receipts grow together, but for what waits for the lock: look a while before.
        """
        low, high = 0, self._newest()
        with reading(self.engine) as connection:
            while low < high:
                middle = (low + high + 1) // 2
                receipt = connection.execute(
                    sa.select(snapshots.c.received_at)
                    .where(snapshots.c.position <= middle)
                    .order_by(snapshots.c.position.desc())
                    .limit(1)
                ).scalar()
                if receipt is None or receipt < received_at:
                    low = middle
                else:
                    high = middle - 1
        return low

    def audited_landings(
        self, after: Position, *, up_to: Position, world_id: str | None = None
    ) -> list[AuditedLanding]:
        """The next landings behind a position, each with all that there is of it."""
        text_bytes = (
            sa.func.octet_length if self.engine.dialect.name == "postgresql" else sa.func.length
        )(snapshots.c.body)
        wanted = (
            sa.select(snapshots.c.position, text_bytes.label("size"))
            .where(snapshots.c.position > after, snapshots.c.position <= up_to)
            .order_by(snapshots.c.position)
            .limit(LANDINGS)
        )
        if world_id is not None:
            wanted = wanted.where(snapshots.c.world_id == world_id)
        with one_state(self.engine) as connection:
            positions: list[Position] = []
            size = 0
            for row in connection.execute(wanted):
                if positions and size + row.size > PAGE_BYTES:
                    break
                positions.append(row.position)
                size += row.size
            return _landings(connection, positions) if positions else []

    def orphans(self, table_name: str) -> Iterator[tuple[Position, int]]:
        """The landings that are gone and still have rows in a table, with how many rows."""
        table = snapshots.metadata.tables[table_name]
        after, newest = 0, self._newest_in(table)
        while after < newest:
            query = (
                sa.select(table.c.position, sa.func.count())
                .where(table.c.position > after, table.c.position <= after + _WINDOW)
                .where(~sa.exists().where(snapshots.c.position == table.c.position))
                .group_by(table.c.position)
                .order_by(table.c.position)
            )
            with reading(self.engine) as connection:
                found = [(position, count) for position, count in connection.execute(query)]
            yield from found
            after += _WINDOW

    def audited_events(self, after: int, *, up_to: int) -> list[OutboxEvent]:
        """The next events of the outbox, without those of landings that are gone."""
        there = sa.exists().where(snapshots.c.position == events.c.position)
        query = (
            sa.select(events.c.sequence)
            .where(events.c.sequence > after, events.c.sequence <= up_to)
            .where(sa.or_(events.c.event_id.is_not(None), there))
            .order_by(events.c.sequence)
            .limit(_PAGE)
        )
        with reading(self.engine) as connection:
            return events_at(connection, query, PAGE_BYTES)

    def doubled_events(self) -> Iterator[tuple[str, int]]:
        """The ids of events that are there more than once, with how often; without landings'."""
        after = ""
        while True:
            query = (
                sa.select(events.c.event_id, sa.func.count())
                .where(events.c.event_id > after)
                .group_by(events.c.event_id)
                .having(sa.func.count() > 1)
                .order_by(events.c.event_id)
                .limit(_PAGE)
            )
            with reading(self.engine) as connection:
                found = [(event_id, count) for event_id, count in connection.execute(query)]
            yield from found
            if len(found) < _PAGE:
                return
            after = found[-1][0]

    def buried_by(self, handler: str, event_ids: Sequence[str]) -> set[str]:
        """Those of these events that a handler has given up on."""
        query = sa.select(dead_letters.c.event_id).where(
            dead_letters.c.handler == handler, dead_letters.c.event_id.in_(event_ids)
        )
        with reading(self.engine) as connection:
            return set(connection.execute(query).scalars())

    def audited_worlds(self, now: datetime, world_id: str | None = None) -> Iterator[Row]:
        """Each world and stage with its news as noted, and as its landings have them.

        `newest` and `alive` are those of the landings; the latter only of what is alive at `now`.
        """
        held = (
            sa.exists()
            .where(quarantine.c.position == snapshots.c.position, quarantine.c.until.is_(None))
            .correlate(snapshots)
        )
        counts = sa.and_(
            snapshots.c.world_id == world_stages.c.world_id,
            snapshots.c.stage == world_stages.c.stage,
            ~held,
        )
        newest = (
            sa.select(snapshots.c.as_of)
            .where(counts)
            .order_by(snapshots.c.as_of.desc())
            .limit(1)
            .scalar_subquery()
        )
        alive = (
            sa.select(sa.func.max(snapshots.c.expires_at))
            .where(counts, snapshots.c.expires_at > now)
            .scalar_subquery()
        )
        key = (world_stages.c.world_id, world_stages.c.stage)
        after = ("", "")
        while True:
            query = (
                sa.select(world_stages, newest.label("newest"), alive.label("alive"))
                .where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, after)))
                .order_by(*key)
                .limit(_PAGE)
            )
            if world_id is not None:
                query = query.where(world_stages.c.world_id == world_id)
            with reading(self.engine) as connection:
                found = [dict(row._mapping) for row in connection.execute(query)]
            yield from found
            if len(found) < _PAGE:
                return
            after = (found[-1]["world_id"], found[-1]["stage"])

    def _newest(self) -> Position:
        return self._newest_in(snapshots)

    def _newest_in(self, table: sa.Table) -> Position:
        with reading(self.engine) as connection:
            return connection.execute(sa.select(sa.func.max(table.c.position))).scalar() or 0


TABLES = tuple(table.name for table in _GO_WITH_A_SNAPSHOT)
"""Those whose rows go when their landing goes."""


def _landings(connection: sa.Connection, positions: Sequence[Position]) -> list[AuditedLanding]:
    known = sa.exists().where(
        world_stages.c.world_id == snapshots.c.world_id, world_stages.c.stage == snapshots.c.stage
    )
    landed = connection.execute(
        sa.select(snapshots, known.label("world_known"))
        .where(snapshots.c.position.in_(positions))
        .order_by(snapshots.c.position)
    ).mappings()
    rows = [dict(row) for row in landed]

    def of(table: sa.Table, *columns: sa.Column[Any], where: Any = None) -> list[Row]:
        query = sa.select(*(columns or table.c)).where(table.c.position.in_(positions))
        found = connection.execute(query if where is None else query.where(where)).mappings()
        return [dict(row) for row in found]

    def one(table: sa.Table) -> dict[Position, Row]:
        return {row["position"]: row for row in of(table)}

    def count(table: sa.Table, where: Any = None) -> Counter[Position]:
        query = sa.select(table.c.position, sa.func.count()).where(table.c.position.in_(positions))
        counted = query if where is None else query.where(where)
        rows = connection.execute(counted.group_by(table.c.position))
        return Counter({row[0]: row[1] for row in rows})

    verdicts, numbers, stress = (
        one(table) for table in (validated_snapshots, risk_metrics, snapshot_stress)
    )
    stays: dict[Position, list[Row]] = defaultdict(list)
    for row in of(quarantine):
        stays[row["position"]].append(row)
    weights: dict[Position, dict[str, float]] = defaultdict(dict)
    for row in of(snapshot_weights):
        weights[row["position"]][row["symbol"]] = row["weight"]
    tails: dict[Position, list[Row]] = defaultdict(list)
    for row in of(risk_tails):
        tails[row["position"]].append(row)
    contributions = count(risk_contributions)
    results = count(stress_results, stress_results.c.origin == "riskhub")
    refs: dict[Position, set[str]] = defaultdict(set)
    for row in of(snapshot_blobs):
        refs[row["position"]].add(row["ref"])
    told: Counter[Position] = Counter()
    worlds = {row["position"]: row["world_id"] for row in rows}
    of_landing = sa.and_(events.c.event_id.is_(None), events.c.type == SNAPSHOT_UPDATED)
    for row in of(events, events.c.position, events.c.key, where=of_landing):
        # Readers choose by key: under another one its world is not told.
        told[row["position"]] += row["key"] == worlds[row["position"]]
    quarantine_told: dict[Position, list[Row]] = defaultdict(list)
    entered = (events.c.position, events.c.occurred_at, events.c.data)
    for row in of(events, *entered, where=events.c.type == SNAPSHOT_QUARANTINED):
        quarantine_told[row["position"]].append(row)
    numbers_told: dict[Position, list[str]] = defaultdict(list)
    of_numbers = events.c.type == METRICS_UPDATED
    for row in of(events, events.c.position, events.c.data, where=of_numbers):
        numbers_told[row["position"]].append(row["data"])
    books = _books(connection, {row["book_digest"] for row in stress.values()})
    return [
        AuditedLanding(
            row=row,
            world_known=row.pop("world_known"),
            verdict=verdicts.get(at),
            stays=stays[at],
            weights=weights[at],
            numbers=numbers.get(at),
            tails=tails[at],
            contributions=contributions[at],
            stress=stress.get(at),
            results=results[at],
            scenarios=books[stress[at]["book_digest"]] if at in stress else 0,
            refs=frozenset(refs[at]),
            told=told[at],
            numbers_told=numbers_told[at],
            quarantine_told=quarantine_told[at],
        )
        for row in rows
        for at in [row["position"]]
    ]


def _books(connection: sa.Connection, digests: set[str]) -> Counter[str]:
    query = sa.select(scenario_books.c.digest).where(scenario_books.c.digest.in_(digests))
    return Counter(connection.execute(query).scalars())
