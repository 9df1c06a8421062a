"""What tests of the feed of events are made of."""

from collections import Counter
from typing import Any

from builders import WORLD, accept

from riskhub.hub import Hub
from riskhub.store import Store

EVENTS = "/risk-hub/events"
STREAM = {"Accept": "text/event-stream"}
MANY = 200


def land(hub: Hub, *versions: str, world_id: str = WORLD) -> None:
    hub.land([accept(version=version, world_id=world_id) for version in versions])


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._store, name)
