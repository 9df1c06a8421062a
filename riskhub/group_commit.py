"""Landings that arrive together share one transaction.

A commit costs a disk flush whatever it carries. While one transaction is being committed, whoever
arrives waits here; the next transaction takes them all. Under load that turns a flush per snapshot
into a flush per few dozen, and alone a snapshot waits for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from riskhub.snapshot import Snapshot
from riskhub.store import Landing

MAX_GROUP = 256


class GroupCommit:
    """Lands snapshots from one event loop through one thread, in the order they were given."""

    def __init__(self, land: Callable[[Sequence[Snapshot]], list[Landing]]) -> None:
        self._land = land
        self._waiting: list[tuple[Snapshot, asyncio.Future[Landing]]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="landing")
        self._committing: asyncio.Task[None] | None = None

    async def land(self, snapshot: Snapshot) -> Landing:
        """Land one snapshot; returns once it is durable.

        Raises:
            StoreUnavailable: it is not stored.
        """
        answer: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()
        self._waiting.append((snapshot, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_until_empty())
        return await answer

    async def close(self) -> None:
        """Finish what has been given, then stop the thread."""
        if self._committing is not None:
            await self._committing
        self._thread.shutdown()

    async def _commit_until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group = self._waiting[:MAX_GROUP]
                del self._waiting[:MAX_GROUP]
                try:
                    landings = await loop.run_in_executor(
                        self._thread, self._land, [snapshot for snapshot, _ in group]
                    )
                except Exception as error:  # noqa: BLE001 - told to each producer, the next go on
                    for _, answer in group:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), landing in zip(group, landings, strict=True):
                    if not answer.done():  # its client may have gone meanwhile
                        answer.set_result(landing)
        finally:
            self._committing = None
