"""The outbox as many requests read it at once: history each for itself, news all from one watcher.

While somebody waits, one task asks the database for the newest sequence, reads what is new once and
wakes everybody. What it has read lately stays in memory, so that a thousand who wait for the same
event cost one query.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from riskhub.controlbus.events import OutboxEvent
from riskhub.store.events import PAGE_BYTES, EventStore

LOOK_SEC = 0.05
_LOOK_EVENTS = 1_000
_KEPT_BYTES = 8 * 2**20
# Of the threads that all requests share: whoever reads years of history must not take them all.
_READS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Which:
    """Which events are wanted: of these types (None: of all), with this key (None: with any)."""

    types: frozenset[str] | None = None
    key: str | None = None

    def has(self, event: "Told") -> bool:
        """Whether it is one of them."""
        return (self.types is None or event.type in self.types) and self.key in (None, event.key)


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is told."""

    sequence: int
    type: str
    key: str
    cloud_event: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, and the sequence that the next ones are behind."""

    events: list[Told]
    next: int


class Feed:
    """The outbox for the requests of one process. For one event loop."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._draining = False
        self._waiting = 0
        self._watcher: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        # All that is behind `_from` and not behind `_head` is in `_recent`, as long as somebody
        # watches. And `_head` has been committed, and so has all before it.
        self._recent: deque[Told] = deque()
        self._recent_bytes = 0
        self._from = self._head = 0
        self._fresh = False

    @property
    def is_draining(self) -> bool:
        """Whether nobody shall wait any more."""
        return self._draining

    def drain(self) -> None:
        """Let nobody wait any more: the process is going to end."""
        if not self._draining:
            self._draining = True
            self._wake()

    async def close(self) -> None:
        """Drain, and stop watching."""
        self.drain()
        if self._watcher is not None:
            await asyncio.wait({self._watcher})

    async def head(self) -> int:
        """The newest sequence there is."""
        return await asyncio.to_thread(self._store.events_head)

    async def read(
        self, after: int, which: Which, limit: int, page_bytes: int = PAGE_BYTES
    ) -> Page:
        """What the database has behind a sequence now.

        Args:
            limit: how many events, at most.
            page_bytes: the page ends with the first event that makes it so large.
        """
        seen = self._head
        async with self._reads:
            found, head = await asyncio.to_thread(self._read, after, which, limit, page_bytes)
        return Page(found, found[-1].sequence if found else max(after, seen, head))

    async def next(
        self,
        after: int,
        which: Which,
        limit: int,
        *,
        within_sec: float,
        page_bytes: int = PAGE_BYTES,
    ) -> Page:
        """What is behind a sequence, as soon as there is something.

        Empty when nothing has come in time, or nobody shall wait any more.

        Raises:
            StoreUnavailable, StoreNotMigrated: the database can't be asked.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + within_sec
        while True:
            if self._fresh and after >= self._from:
                page = self._remembered(after, which, limit, page_bytes)
            else:
                page = await self.read(after, which, limit, page_bytes)
            left = until - clock()
            if page.events or left <= 0 or self._draining:
                return page
            after = page.next
            await self._news(after, left)

    async def _news(self, after: int, within_sec: float) -> None:
        """Return when there may be something behind a sequence; at the latest after a time."""
        self._waiting += 1
        try:
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
                # Also when nobody is left to be told.
                self._watcher.add_done_callback(
                    lambda ended: ended.cancelled() or ended.exception()
                )
            watcher, woken = self._watcher, self._woken
            if self._head > after:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(within_sec):
                    await woken.wait()
            if watcher.done():
                watcher.result()  # what it has failed at, they all fail at
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        """Look for news as long as somebody waits."""
        try:
            self._begin(await self.head())
            while self._waiting and not self._draining:
                await asyncio.sleep(LOOK_SEC)
                news, head = await asyncio.to_thread(self._look)
                if head > self._head:
                    self._remember(news, head)
                    self._wake()
        finally:
            self._fresh = False
            self._wake()

    def _begin(self, head: int) -> None:
        self._recent.clear()
        self._recent_bytes = 0
        self._head = self._from = max(head, self._head)
        self._fresh = True
        self._wake()

    def _remember(self, news: Iterable[Told], head: int) -> None:
        for event in news:
            self._recent.append(event)
            self._recent_bytes += len(event.cloud_event)
        self._head = head
        while self._recent_bytes > _KEPT_BYTES:
            oldest = self._recent.popleft()
            self._recent_bytes -= len(oldest.cloud_event)
            self._from = oldest.sequence

    def _remembered(self, after: int, which: Which, limit: int, page_bytes: int) -> Page:
        behind: list[Told] = []
        for event in reversed(self._recent):  # those who wait have seen nearly all of it
            if event.sequence <= after:
                break
            behind.append(event)
        page: list[Told] = []
        size = 0
        for event in reversed(behind):
            if which.has(event):
                page.append(event)
                size += len(event.cloud_event)
                if len(page) == limit or size >= page_bytes:
                    return Page(page, event.sequence)
        return Page(page, max(after, self._head))

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    # -- in threads -------------------------------------------------------------------------------

    def _read(
        self, after: int, which: Which, limit: int, page_bytes: int
    ) -> tuple[list[Told], int]:
        """A page, and a sequence up to which it was looked for."""
        # Asked before: what is committed after that may be missing in the page.
        head = after if which == Which() else self._store.events_head()
        found = self._store.events_after(
            after, limit=limit, types=which.types, key=which.key, page_bytes=page_bytes
        )
        return _told(found), head

    def _look(self) -> tuple[list[Told], int]:
        """What is new, and the sequence up to which it is."""
        head = self._store.events_head()
        if head <= self._head:
            return [], self._head
        news = _told(self._store.events_after(self._head, limit=_LOOK_EVENTS))
        return news, news[-1].sequence if news else head


def _told(events: Iterable[OutboxEvent]) -> list[Told]:
    return [Told(event.sequence, event.type, event.key, event.cloud_event()) for event in events]
