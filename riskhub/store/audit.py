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

from riskhub.controlbus.events import METRICS_UPDATED, SNAPSHOT_QUARANTINED, OutboxEvent
from riskhub.store.engine import one_state, reading
from riskhub.store.events import PAGE_BYTES, events_at
from riskhub.store.reading import Position
from riskhub.store.tables import (
    MADE_FROM_SNAPSHOTS,
    budget_cycles,
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
    symbol_budgets,
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
        in_quarantine: now.
        weights: by symbol.
        tails: its rows of `risk_tails`.
        contributions: how many rows of `risk_contributions`.
        results: how many rows of `stress_results` that are the hub's own.
        scenarios: how many scenarios the book of its stress has.
        refs: the blobs that are noted as referred to.
        told: how many events of its landing are in the outbox.
        numbers_told: the data of each event of its numbers.
        quarantine_told: how many events of its entering the quarantine there are.
    """

    row: Row
    world_known: bool
    verdict: Row | None
    in_quarantine: bool
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
    quarantine_told: int


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

    def audited_cycles(self, since: datetime | None) -> Iterator[Row]:
        """Each cycle of the governor's history, with what `symbol_budgets` has of it.

        `rows`: how many; `differing`: how many of them say another equity, heat, mode or formula.
        """
        cycles, budgets = budget_cycles.c, symbol_budgets.c
        differs = sa.or_(
            budgets.equity_usd != cycles.equity_usd,
            budgets.portfolio_heat != cycles.heat,
            budgets.mode != cycles.mode,
            budgets.formula_version != cycles.formula_version,
        )
        after: datetime | None = None
        while True:
            page = sa.select(budget_cycles).order_by(cycles.computed_at).limit(_PAGE)
            if since is not None:
                page = page.where(cycles.computed_at >= since)
            if after is not None:
                page = page.where(cycles.computed_at > after)
            with one_state(self.engine) as connection:
                found = [dict(row._mapping) for row in connection.execute(page)]
                if not found:
                    return
                counted = (
                    sa.select(
                        budgets.computed_at,
                        sa.func.count(),
                        sa.func.sum(sa.case((differs, 1), else_=0)),
                    )
                    .join(budget_cycles, cycles.computed_at == budgets.computed_at)
                    .where(budgets.computed_at >= found[0]["computed_at"])
                    .where(budgets.computed_at <= found[-1]["computed_at"])
                    .group_by(budgets.computed_at)
                )
                of_cycle = {at: (rows, wrong) for at, rows, wrong in connection.execute(counted)}
            for cycle in found:
                rows, differing = of_cycle.get(cycle["computed_at"], (0, 0))
                yield cycle | {"rows": rows, "differing": differing}
            after = found[-1]["computed_at"]

    def budgets_without_cycle(self) -> Iterator[tuple[datetime, int]]:
        """When budgets were computed that no cycle has, and how many."""
        of_cycle = budget_cycles.c.computed_at == symbol_budgets.c.computed_at
        query = (
            sa.select(symbol_budgets.c.computed_at, sa.func.count())
            .where(~sa.exists().where(of_cycle))
            .group_by(symbol_budgets.c.computed_at)
            .order_by(symbol_budgets.c.computed_at)
        )
        with one_state(self.engine) as connection:  # a cursor needs a transaction
            rows = connection.execution_options(yield_per=_PAGE).execute(query)
            yield from ((at, count) for at, count in rows)

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
    held = count(quarantine, quarantine.c.until.is_(None))
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
    told = count(events, events.c.event_id.is_(None))
    in_quarantine_told = count(events, events.c.type == SNAPSHOT_QUARANTINED)
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
            in_quarantine=held[at] > 0,
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
            quarantine_told=in_quarantine_told[at],
        )
        for row in rows
        for at in [row["position"]]
    ]


def _books(connection: sa.Connection, digests: set[str]) -> Counter[str]:
    query = sa.select(scenario_books.c.digest).where(scenario_books.c.digest.in_(digests))
    return Counter(connection.execute(query).scalars())
