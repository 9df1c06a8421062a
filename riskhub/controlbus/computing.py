"""The handlers that compute: from an accepted snapshot to its risk numbers, and to its stress.

They write the same tables by the same code as the Dagster assets, so whoever comes second finds
the rows there and has nothing to do. Snapshots are judged by a handler of the Dagster edge, where
the schemas are that they are judged by.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from riskhub.controlbus.events import SNAPSHOT_UPDATED, Event, metrics_updated
from riskhub.controlbus.handlers import Context, Outage
from riskhub.hub import utc_now
from riskhub.metrics import numbers_of, numbers_tables
from riskhub.portfolio import Sources, portfolio_of
from riskhub.scenarios import load_scenarios
from riskhub.store import Store
from riskhub.store.landing import Landed
from riskhub.store.reading import Position
from riskhub.stressing import StressRunner, book_rows, stress_tables

VALIDATION = "validation"


class Numbers:
    """Risk numbers of accepted snapshots that have none yet, and an event that tells of them."""

    name = "numbers"
    types = (SNAPSHOT_UPDATED,)
    after = (VALIDATION,)

    def __init__(self, context: Context) -> None:
        """Read the prices, for which the first event would have to wait."""
        self._context = context
        with suppress(Outage):  # it has been told; perhaps they are there in time
            context.sources()

    def handle(self, events: Sequence[Event]) -> None:
        """Compute and write what is lacking of them."""
        store, settings = self._context.store, self._context.settings
        landed, weights = accepted_without("risk_metrics", events, store)
        if not landed:
            return
        made = numbers_of(landed, weights, self._context.sources(), settings.risk)
        now = utc_now()
        store.write_days(
            numbers_tables(made),
            sorted({snapshot.day for snapshot in landed}),
            replace=False,
            told=[metrics_updated(rows.metrics, rows.tails, now) for rows in made],
        )


class Stress:
    """Stress results of accepted snapshots that have none yet."""

    name = "stress"
    types = (SNAPSHOT_UPDATED,)
    after = (VALIDATION,)

    def __init__(self, context: Context) -> None:
        """Read the book of scenarios. Raises `ScenarioFileInvalid`."""
        self._context = context
        self._book = load_scenarios(context.settings.scenarios_path)
        self._book_is_noted = False
        self._runner: tuple[Sources, StressRunner] | None = None

    def handle(self, events: Sequence[Event]) -> None:
        """Compute and write what is lacking of them."""
        store = self._context.store
        landed, weights = accepted_without("snapshot_stress", events, store)
        if not landed:
            return
        sources = self._context.sources()
        if self._runner is None or self._runner[0] is not sources:  # what it keeps is of a panel
            risk = self._context.settings.risk
            self._runner = (sources, StressRunner(self._book, sources.panel, risk))
        runner = self._runner[1]
        if not self._book_is_noted:
            store.add_scenario_book(self._book.digest, book_rows(self._book))
            self._book_is_noted = True
        made = [
            runner.rows_of(
                snapshot,
                portfolio_of(snapshot, weights[snapshot.position], sources),
                self._context.blobs,
            )
            for snapshot in landed
        ]
        days = sorted({snapshot.day for snapshot in landed})
        store.write_days(stress_tables(made), days, replace=False)


def of_this_hub(events: Sequence[Event], store: Store) -> list[Position]:
    """The landings that events of snapshots tell of, without those that are not here (any more)."""
    digests: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        digests[event.data["world_id"], event.data["version"]].add(event.data["hash"])
    return [
        position
        for key, (position, digest) in store.positions_of(digests).items()
        if digest in digests[key]
    ]


def accepted_without(
    table: str, events: Sequence[Event], store: Store
) -> tuple[list[Landed], dict[Position, dict[str, float]]]:
    """The accepted snapshots that events tell of and a table has no row of; with their weights."""
    landed = store.landed_without(table, of_this_hub(events, store), accepted=True)
    weights = store.weights_at([snapshot.position for snapshot in landed])
    # One without weights was accepted a moment ago by a run of Dagster, which goes on with it.
    return [snapshot for snapshot in landed if snapshot.position in weights], weights
