"""Signals on a Redis stream: each at least once, in their order, with an id that stays the same.

They are kept in the database until Redis has taken them. Whoever dies between the two adds them
again: consumers pass over a `signal_id` that they have seen.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import redis

from riskhub.store import Store

EXIT_STREAM = "quantum:stream:exit.signal"
SIGNALS_KEPT = 10_000
_AT_ONCE = 100


def bring(store: Store, client: redis.Redis, now: datetime) -> int:
    """Add what waits to the stream; how many signals that were.

    Raises:
        redis.RedisError: Redis did not take them; those before are marked.
    """
    brought = 0
    while rows := store.unstreamed_signals(limit=_AT_ONCE):
        with client.pipeline(transaction=True) as transaction:
            for row in rows:
                entry: dict[Any, Any] = {"json": as_entry(row["data"])}
                transaction.xadd(EXIT_STREAM, entry, maxlen=SIGNALS_KEPT, approximate=True)
            transaction.execute()
        store.mark_streamed([row["id"] for row in rows], now)
        brought += len(rows)
    return brought


def as_entry(data: Mapping[str, Any]) -> str:
    """A signal as the stream's field ``json`` has it."""
    return json.dumps({"event_type": "exit.signal", **data}, allow_nan=False)
