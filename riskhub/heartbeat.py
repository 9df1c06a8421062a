"""A sign of life of processes that serve nothing, for whoever restarts what hangs.

A loop asks over and over whether it is to stop. Each time it does, the file of `heartbeat_file` is
touched: its age says whether the loop still turns. It turns, too, while a dependency is away, for
that is no reason to start anything again.
"""

import asyncio
import threading
import time
from pathlib import Path

_EVERY_SEC = 1.0


class Heartbeat:
    """Touches a file, at most once a second; None touches nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next = 0.0

    def beat(self) -> None:
        """Show that we live; raises `OSError` when the file can't be written."""
        now = time.monotonic()
        if self._file is not None and now >= self._next:
            self._next = now + _EVERY_SEC
            self._file.touch()


class Stop(threading.Event):
    """Set when a loop is to end; beats each time that it is asked."""

    def __init__(self, file: Path | None) -> None:
        super().__init__()
        self._heart = Heartbeat(file)

    def is_set(self) -> bool:
        """See `threading.Event`."""
        self._heart.beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event`."""
        self._heart.beat()
        return super().wait(timeout)


class AsyncStop(asyncio.Event):
    """The same for a loop of asyncio."""

    def __init__(self, file: Path | None) -> None:
        super().__init__()
        self._heart = Heartbeat(file)

    def is_set(self) -> bool:
        """See `asyncio.Event`."""
        self._heart.beat()
        return super().is_set()
