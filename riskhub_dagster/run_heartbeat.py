"""Whether the process of a run lives: it says so in the broker's Redis, and others judge by that.

A process writes a key again and again while it executes a run; the key runs out when it can't. Who
finds it gone writes a verdict in its place, and a process that finds the verdict ends itself. Both
are one key, so either the run goes on or it is lost, never both: clocks don't matter, nor how long
a machine was asleep. A process that can't reach Redis can't know, and ends itself before the key
runs out. What it has not committed by then is rolled back, and its days are free for another run.

WATCH and MULTI, not a script, as in `riskhub.governor.lease`.
"""

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import WatchError
from redis.retry import Retry

from riskhub.logs import tell_error

_DEAD = b"lost"
# Longer than any run: a process that wakes up after days must find what was decided about it.
_VERDICT_KEPT_SEC = 7 * 86_400
# What a Redis knows that has just started is nothing, not that everybody is dead.
REDIS_SETTLES_SEC = 30
_UNAVAILABLE = 69  # EX_UNAVAILABLE


def connect(url: str, *, timeout_sec: float) -> redis.Redis:
    """A client whose commands end within a time, one way or the other. Opens no connection yet."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_sec,
        socket_connect_timeout=timeout_sec,
        retry=Retry(NoBackoff(), 0),
    )


def condemn(client: redis.Redis, run_id: str) -> bool:
    """Whether a run is lost, once and for all: its process will not go on after this is True.

    Raises:
        redis.RedisError: Redis is out of reach, and nothing is known.
    """
    key = _key(run_id)
    if client.get(key) not in (None, _DEAD):
        return False
    if client.info("server")["uptime_in_seconds"] < REDIS_SETTLES_SEC:
        return False
    if client.set(key, _DEAD, nx=True, ex=_VERDICT_KEPT_SEC):
        return True
    return bool(client.get(key) == _DEAD)


def forgive(client: redis.Redis, run_id: str) -> None:
    """Take a verdict back: a new process is about to resume the run."""
    client.delete(_key(run_id))


class RunLost(Exception):
    """Others have judged that this run is lost: it must not be executed here."""


class Heartbeat:
    """Beats for one run as long as its block lasts, in a thread; ends the process if it must."""

    def __init__(
        self,
        client: redis.Redis,
        run_id: str,
        worker: str,
        *,
        every_sec: float,
        lost_after_sec: float,
        timeout_sec: float,
        end: Callable[[str], None] | None = None,
    ) -> None:
        """Say nothing yet.

        Args:
            client: with a timeout of `timeout_sec`; see `connect`.
            worker: who executes it, for people to read.
            lost_after_sec: when the key runs out, by Redis' clock.
            end: ends this process, told why; it does not return, other than in a test.
        """
        self._client = client
        self._run_id = run_id
        self._worker = worker.encode()
        self._every = every_sec
        self._milliseconds = round(lost_after_sec * 1000)
        # From before a beat is sent until the key may be gone, less the attempt that finds out.
        self._alive_sec = lost_after_sec - timeout_sec
        self._end = end or end_this_process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)
        self._alive_until = 0.0

    def __enter__(self) -> Self:
        """Beat for the first time.

        Raises:
            RunLost: it was judged to be lost before it began.
            redis.RedisError: Redis is out of reach.
        """
        if not self._beat():
            raise RunLost(f"run {self._run_id} was judged to be lost")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            if self._client.get(_key(self._run_id)) == self._worker:
                self._client.delete(_key(self._run_id))
        except redis.RedisError:
            pass  # the run has ended, and the key runs out by itself

    def _go_on(self) -> None:
        while not self._ended.wait(min(self._every, max(0.0, self._left()))):
            try:
                lives = self._beat()
            except redis.RedisError as error:
                if self._left() <= 0:
                    self._end(f"Redis was out of reach for too long: {type(error).__name__}")
                    return
                continue
            if not lives:
                self._end("others have judged that it is lost")
                return

    def _left(self) -> float:
        return self._alive_until - time.monotonic()

    def _beat(self) -> bool:
        """Write the key, unless the verdict is there: then False."""
        sent = time.monotonic()
        key = _key(self._run_id)
        with self._client.pipeline(transaction=True) as transaction:
            while True:
                try:
                    transaction.watch(key)  # type: ignore[no-untyped-call]
                    if transaction.get(key) == _DEAD:
                        return False
                    transaction.multi()
                    transaction.set(key, self._worker, px=self._milliseconds)
                    transaction.execute()
                except WatchError:
                    continue  # it changed in between: look again
                self._alive_until = sent + self._alive_sec
                return True


def end_this_process(why: str) -> None:
    """End at once: no clean-up may write another row."""
    tell_error("run_ended_itself", why=why)
    os._exit(_UNAVAILABLE)


def _key(run_id: str) -> str:
    return f"riskhub:run-worker:{run_id}"
