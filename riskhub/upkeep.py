"""What riskhub forgets of its own running; `retention` is about snapshots and blobs.

Nothing here is a number that anybody reads again: what consumers have handled, and how budgets were
made long ago.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from riskhub.controlbus.worker import HANDLED_KEPT
from riskhub.settings import RetentionSettings
from riskhub.store import Store


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many rows have gone."""

    handled_events: int
    budget_cycles: int
    symbol_budgets: int


def forget(store: Store, policy: RetentionSettings, now: datetime) -> Forgotten:
    """Forget what is old, and have room for what comes before it is called again.

    Workers forget what they have handled themselves, while there are any; this is for what the last
    one left.

    Raises:
        StoreUnavailable: safe to try again.
    """
    store.make_room_for_budgets(now)
    handled = store.forget_handled(now - HANDLED_KEPT)
    if policy.budget_days is None:
        return Forgotten(handled, 0, 0)
    return Forgotten(handled, *store.forget_budgets(now - timedelta(days=policy.budget_days)))
