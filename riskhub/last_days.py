"""The last days of every world, remembered: what a page of all worlds would else read each time.

The days behind a world's newest one change only when they are computed anew. So they are read when
the newest day is another one, and now and then again, a few worlds at a time: nobody waits for all
of them but who looks first.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from riskhub.store import Store
from riskhub.store.overview import Tail

Key = tuple[str, str]
"""World and stage."""

AGAIN_AFTER_SEC = 60.0
MOST_AGAIN = 5


@dataclass(frozen=True, slots=True)
class _Known:
    newest: date
    days: Sequence[Tail]
    read_at: float


class LastDays:
    """The days before the newest of each world and stage, of one store; any thread may ask."""

    def __init__(
        self,
        store: Store,
        *,
        days: int,
        methods: Sequence[str],
        level: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet; the arguments are those of `Store.days_before`."""
        self._store = store
        self._days = days
        self._methods = methods
        self._level = level
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[Key, _Known] = {}

    def before(self, newest: dict[Key, datetime]) -> dict[Key, Sequence[Tail]]:
        """The days before the newest `as_of` of each, oldest first. Raises `StoreUnavailable`."""
        days = {key: as_of.date() for key, as_of in newest.items()}
        with self._lock:
            self._read(days, self._monotonic())
            return {key: self._known[key].days for key in days}

    def _read(self, days: dict[Key, date], now: float) -> None:
        known = {key: was for key, was in self._known.items() if days.get(key) == was.newest}
        old = [key for key, was in known.items() if now - was.read_at >= AGAIN_AFTER_SEC]
        again = sorted(old, key=lambda key: known[key].read_at)[:MOST_AGAIN]
        asked = [*(key for key in days if key not in known), *again]
        if asked:
            found = self._store.days_before(
                asked, days=self._days, methods=self._methods, level=self._level
            )
            known |= {key: _Known(days[key], found[key], now) for key in asked}
        self._known = known
