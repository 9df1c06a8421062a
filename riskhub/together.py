"""What arrives together is done together.

A commit costs a disk flush whatever it carries, and a question to the database a round trip and a
change of threads whatever it asks. While one group is being worked on, whoever arrives waits here;
the next group takes them all. Under load that turns a flush per snapshot into a flush per few
dozen, and alone a snapshot waits for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

MAX_GROUP = 256
MAX_WEIGHT = 32 * 2**20

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Together(Generic[_Item, _Result]):
    """Does a group of items from one event loop in one thread, in the order they were given."""

    def __init__(
        self,
        work: Callable[[Sequence[_Item]], Sequence[_Result]],
        name: str,
        weigh: Callable[[_Item], int] = lambda _: 0,
    ) -> None:
        """Begin with nothing to do.

        Args:
            work: does a group; gives a result for each item, in order.
            name: of the thread.
            weigh: the bytes of an item; a group has hardly more than `MAX_WEIGHT` of them.
        """
        self._work = work
        self._weigh = weigh
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._working: asyncio.Task[None] | None = None

    async def do(self, item: _Item) -> _Result:
        """The item's result. Raises what the work of its group raised."""
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._working is None:
            self._working = asyncio.create_task(self._work_until_empty())
        return await result

    async def close(self) -> None:
        """Finish what has been given, then stop the thread."""
        if self._working is not None:
            await self._working
        self._thread.shutdown()

    def _next_group(self) -> list[tuple[_Item, asyncio.Future[_Result]]]:
        weight, count = 0, 0
        for item, _ in self._waiting[:MAX_GROUP]:
            weight += self._weigh(item)
            count += 1
            if weight >= MAX_WEIGHT:
                break
        group = self._waiting[:count]
        del self._waiting[:count]
        return group

    async def _work_until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group = self._next_group()
                try:
                    results = await loop.run_in_executor(
                        self._thread, self._work, [item for item, _ in group]
                    )
                except Exception as error:  # noqa: BLE001 - told to each caller, the next go on
                    for _, answer in group:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), result in zip(group, results, strict=True):
                    if not answer.done():  # its client may have gone meanwhile
                        answer.set_result(result)
        finally:
            self._working = None
