"""One writer of budgets at a time: a lease in the Redis that the budgets are written to.

The lease is a key with a time to live that names its owner. Whoever holds it renews it with every
transaction; when its owner dies it runs out, and the next one to ask has it. Holding it is no
promise for later, so each write is a transaction that Redis refuses when the key is another's by
then: a process that slept through the end of its lease can't write over its successor.

WATCH and MULTI, not a script: the embedded stand-in for Redis knows no Lua.
"""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.client import Pipeline

from riskhub.errors import RiskHubError

WRITER_KEY = "riskhub:governor:writer"


class LeaseLost(RiskHubError):
    """The lease isn't ours, or not any more: another's to write."""


class Lease:
    """The right of one owner to write budgets. For one thread.

    Time is that of the Redis server: clocks of the machines don't matter.
    """

    def __init__(self, redis: redis.Redis, owner: str, *, sec: float) -> None:
        """Take nothing yet.

        Args:
            redis: with or without `decode_responses`.
            owner: who writes, for people to read; no two processes may have the same, see `owner`.
            sec: how long the lease holds after it was last renewed.
        """
        self.owner = owner
        self._redis = redis
        self._milliseconds = round(sec * 1000)

    def take(self) -> bool:
        """Take the lease when it is free, renew it when it is ours; whether it is ours now.

        Raises:
            redis.RedisError: Redis is out of reach.
        """
        if self._redis.set(WRITER_KEY, self.owner, nx=True, px=self._milliseconds):
            return True
        try:
            with self.transaction():
                return True
        except LeaseLost:
            return False

    @contextmanager
    def transaction(self) -> Iterator[Pipeline]:
        """What is queued in the block is executed at its end if the lease is still ours.

        All of it or nothing, and with it the lease is renewed.

        Raises:
            LeaseLost: it isn't. Also when the connection breaks in the middle: what was queued
                may then be written or not.
            redis.RedisError: Redis is out of reach, or refused a command.
        """
        with self._redis.pipeline(transaction=True) as transaction:
            try:
                transaction.watch(WRITER_KEY)  # type: ignore[no-untyped-call]
                holder = _text(transaction.get(WRITER_KEY))
                if holder != self.owner:
                    raise LeaseLost(f"budgets are written by {holder or 'nobody'}")
                transaction.multi()
                transaction.pexpire(WRITER_KEY, self._milliseconds)
                yield transaction
                transaction.execute()
            except redis.WatchError as error:
                raise LeaseLost(
                    "the lease went to another, or the connection broke, in the middle of a write"
                ) from error

    def holder(self) -> str | None:
        """Who holds the lease now, if anybody does.

        Raises:
            redis.RedisError: Redis is out of reach.
        """
        return holder(self._redis)

    def release(self) -> None:
        """Give the lease back, if it is ours: the next one need not wait until it runs out.

        Raises:
            redis.RedisError: Redis is out of reach; then it runs out by itself.
        """
        try:
            with self.transaction() as transaction:
                transaction.delete(WRITER_KEY)
        except LeaseLost:
            pass


def holder(redis: redis.Redis) -> str | None:
    """Who writes budgets now, if anybody does. Raises `redis.RedisError`."""
    return _text(redis.get(WRITER_KEY))


def owner(role: str) -> str:
    """A name for this process that no other has: ``governor on host, process 12 (9f3a6c01)``."""
    return f"{role} on {socket.gethostname()}, process {os.getpid()} ({secrets.token_hex(4)})"


def _text(value: object) -> str | None:
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
