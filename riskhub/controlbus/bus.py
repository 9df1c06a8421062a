"""Where workers take events from: a Kafka topic, or without brokers the outbox itself.

A bus has one batch in hand at a time: after `take` gave some records, `commit` or `give_back` says
what became of them before the next `take`. What was not committed comes again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Protocol, TypeVar

from riskhub.controlbus.records import Letter, Record
from riskhub.errors import StoreUnavailable
from riskhub.settings import Settings
from riskhub.store import Store

GROUP = "group:"
"""The beginning of the names of readers that are groups of workers; the group's name follows."""

POLL_SEC = 0.025
LOOK_SEC = 0.5

_T = TypeVar("_T")


class Bus(Protocol):
    """One worker's end of a bus. Used within one event loop."""

    @property
    def stands_by(self) -> bool:
        """Whether another worker has all that there is to take."""
        ...

    async def take(self, limit: int, wait_sec: float) -> Sequence[Record]:
        """The next records, those of a key in order; none when none came in time.

        Raises:
            StoreUnavailable: of the outbox.
            aiokafka.errors.KafkaError: of Kafka.
        """
        ...

    async def commit(self) -> None:
        """The batch in hand is done with. Raises as `take`; then give it back."""
        ...

    async def give_back(self) -> None:
        """The batch in hand is to come again, to whoever takes next."""
        ...

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Show dead letters to those who watch the bus. Raises as `take`."""
        ...

    async def lag(self) -> Mapping[str, int]:
        """How many events lie before this worker, by part of the bus; of some it may not be known.

        Raises as `take`.
        """
        ...

    async def close(self) -> None:
        """Give back what is in hand, and leave the rest to others at once."""
        ...


def open_bus(
    settings: Settings,
    store: Store,
    *,
    clock: Callable[[], datetime],
    hurry: Callable[[], None],
    tell: Callable[..., None],
) -> Bus:
    """The bus of the settings; it connects at the first `take`.

    Args:
        hurry: is called when others wait for the batch in hand, perhaps from another thread.
    """
    if settings.controlbus_brokers is None:
        return OutboxBus(store, settings.worker.group, clock=clock)
    from riskhub.controlbus.kafka_bus import KafkaBus  # noqa: PLC0415 - aiokafka is slow to import

    return KafkaBus(settings, hurry=hurry, tell=tell)


class OutboxBus:
    """The outbox, read by one worker of a group at a time; others take over when it goes."""

    def __init__(self, store: Store, group: str, *, clock: Callable[[], datetime]) -> None:
        """Read nothing yet."""
        self._store = store
        self._reader = GROUP + group
        self._clock = clock
        # One thread: who is alone here is a matter of one database session.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._alone = ExitStack()
        self._still_alone: Callable[[], None] | None = None
        self._done = self._taken = 0

    @property
    def stands_by(self) -> bool:
        """See `Bus`."""
        return self._still_alone is None

    async def take(self, limit: int, wait_sec: float) -> Sequence[Record]:
        """See `Bus`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_sec
        while True:
            page = await self._do(lambda: self._page(limit))
            if page or loop.time() >= until:
                return page
            await asyncio.sleep(min(LOOK_SEC if self.stands_by else POLL_SEC, wait_sec))

    async def commit(self) -> None:
        """See `Bus`."""
        await self._do(self._commit)

    async def give_back(self) -> None:
        """See `Bus`."""
        self._taken = self._done

    async def bury(self, letters: Sequence[Letter]) -> None:
        """See `Bus`: the table has them, and nobody else watches."""

    async def lag(self) -> Mapping[str, int]:
        """See `Bus`."""
        if self.stands_by:
            return {}
        return {"outbox": max(0, await self._do(self._store.events_head) - self._done)}

    async def close(self) -> None:
        """See `Bus`."""
        with suppress(StoreUnavailable):  # then the database has let go of us by itself
            await self._do(self._alone.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _page(self, limit: int) -> list[Record]:
        try:
            if self._still_alone is None:
                alone = self._store.reading_alone(self._reader)
                self._still_alone = self._alone.enter_context(alone)
                if self._still_alone is None:
                    self._alone.close()
                    return []
                self._done = self._taken = self._store.cursor(self._reader)
            page = self._store.events_after(self._taken, limit=limit)
        except StoreUnavailable:
            self._leave()
            raise
        if page:
            self._taken = page[-1].sequence
        return [
            Record(event.cloud_event(), event.key, f"outbox {event.sequence}") for event in page
        ]

    def _commit(self) -> None:
        if self._still_alone is None or self._taken == self._done:
            return
        try:
            self._still_alone()
            self._store.move_cursor(self._reader, self._taken, self._clock())
        except StoreUnavailable:
            self._leave()
            raise
        self._done = self._taken

    def _leave(self) -> None:
        """A database that was away has let another be the one that reads."""
        self._still_alone = None
        with suppress(StoreUnavailable):
            self._alone.close()
