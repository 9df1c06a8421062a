"""The handler of workers that judges snapshots, by the frames of the Dagster assets.

It does without Dagster itself, whose import takes longer than all else that a worker does first.
"""

from collections.abc import Sequence
from datetime import date

from riskhub.controlbus.computing import VALIDATION, of_this_hub
from riskhub.controlbus.events import SNAPSHOT_UPDATED, Event
from riskhub.controlbus.handlers import Context
from riskhub.hub import utc_now
from riskhub.portfolio import weight_rows
from riskhub.store.landing import Landed
from riskhub_dagster.frames import Judge, verdict_row


class Validation:
    """Verdicts on snapshots that have none yet, and the weights of those that are accepted."""

    name = VALIDATION
    types = (SNAPSHOT_UPDATED,)
    after = ()

    def __init__(self, context: Context) -> None:
        self._context = context

    def handle(self, events: Sequence[Event]) -> None:
        """Judge what is not judged, and write the weights that are lacking."""
        store = self._context.store
        here = of_this_hub(events, store)
        if gone := len(events) - len(here):
            self._context.passed_over("snapshot is not here", gone)
        if unjudged := store.landed_without("validated_snapshots", here):
            self._judge(unjudged)
        if accepted := store.landed_without("snapshot_weights", here, accepted=True):
            rows = weight_rows(accepted)
            store.write_days({"snapshot_weights": rows}, _days(accepted), replace=False)

    def _judge(self, landed: list[Landed]) -> None:
        judge = Judge.on(self._context.settings, self._context.panel, self._context.blobs)
        verdicts = judge.verdicts(landed)
        rows = [verdict_row(snapshot, verdicts[snapshot.position]) for snapshot in landed]
        self._context.store.write_verdicts(rows, _days(landed), now=utc_now(), replace=False)


def _days(landed: Sequence[Landed]) -> list[date]:
    return sorted({snapshot.day for snapshot in landed})
