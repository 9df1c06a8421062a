"""Whoever stands at the gate: asks Redis for the budget, and tells of what is over it.

A check is one round trip, HGETALL. A violation costs another one before the answer is given, which
puts the event on the stream and counts it; its row in the database is written afterwards. Whatever
is away costs neither the answer nor, silently, the event: without Redis the answer is fail-open,
without the stream there is the row, without the database the stream, and both are logged.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from riskhub.errors import StoreNotMigrated, StoreUnavailable
from riskhub.governor import counters
from riskhub.governor.counters import Tally
from riskhub.governor.gate import FAIL_OPEN, Decision, Unusable, Violation, decide
from riskhub.governor.publish import BUDGET_PREFIX
from riskhub.governor.published import Published, is_no_hash, parse_budget
from riskhub.together import Together

VIOLATION_STREAM = "quantum:stream:budget.violation"
VIOLATIONS_KEPT = 1_000

# Longer than this nobody wants to wait for a gate; a Redis that is there takes a millisecond.
_TIMEOUT_SEC = 0.25
_PAUSE_SEC = 1.0
_FLUSH_EVERY_SEC = 1.0
_MOST_PUBLISHING = 16
_MOST_UNWRITTEN = 10_000
# ValueError: of the client's parser, when what answers does not speak Redis's protocol.
_FAILURES = (redis.RedisError, OSError, ValueError)
_logger = logging.getLogger(__name__)

Clock = Callable[[], float]
Record = Callable[[Sequence[Violation]], None]


def client_of(url: str) -> Redis:
    """A client for the gate: it connects at its first command, and gives up soon.

    A connection that broke while it lay idle is made anew, once.
    """
    return Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_SEC,
        socket_connect_timeout=_TIMEOUT_SEC,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        decode_responses=True,
        encoding_errors="replace",  # what is no text is malformed, not the end of the answer
    )


class Gatekeeper:
    """One event loop's gate."""

    def __init__(
        self,
        client: Redis,
        *,
        stale_sec: float,
        clock: Clock,
        record: Record,
        monotonic: Clock = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            client: which decodes its responses; closed by `close`.
            stale_sec: a budget of this age is not held against anything.
            clock: unix seconds.
            record: writes violations to the database, in a thread.
            monotonic: seconds, for how long to leave Redis alone.
        """
        self._client = client
        self._hashes = _Hashes(client)
        self._stale_sec = stale_sec
        self._clock = clock
        self._monotonic = monotonic
        self._tally = Tally()
        self._record = record
        self._rows: Together[Violation, None] = Together(self._write, "violations")
        # A burst would run into the limit of the pool, and be told as a Redis that is away.
        self._publishing = asyncio.Semaphore(_MOST_PUBLISHING)
        self._unwritten = 0
        self._away = False
        self._paused_until = 0.0
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def check(
        self, symbol: str, position_notional: float, *, reduce_only: bool = False
    ) -> Decision:
        """Decide on a position, and tell of it if it is over its budget; see `gate.decide`.

        Whoever asked must have `write_down` called with the decision's violation, after the
        answer.
        """
        budget = await self.budget(symbol)
        decision = decide(
            symbol,
            position_notional,
            budget,
            now=self._clock(),
            stale_sec=self._stale_sec,
            reduce_only=reduce_only,
        )
        counts = _counts_of(decision)
        violation = decision.violation
        if violation is None or not await self._publish(violation, counts):
            self._count(counts)
        return decision

    async def budget(self, symbol: str) -> Published | Unusable:
        """The budget of a symbol as it stands in Redis, stale or not; or why there is none."""
        if self._is_left_alone():
            return "redis_unavailable"
        try:
            fields = await self._hashes.read(symbol)
        except _FAILURES as error:
            self._failed(error)
            return "redis_unavailable"
        if is_no_hash(fields):
            return "budget_malformed"
        self._answered()
        if not fields:
            return "no_budget"
        return parse_budget(symbol, fields, self._clock()) or "budget_malformed"

    async def write_down(self, violation: Violation) -> None:
        """Write a violation to the database; when it can't be had, count and log that."""
        if self._unwritten >= _MOST_UNWRITTEN:
            self._lost(violation, "too many are waiting to be written")
            return
        self._unwritten += 1
        try:
            await self._rows.do(violation)
        except (StoreUnavailable, StoreNotMigrated) as error:
            self._lost(violation, str(error))
        finally:
            self._unwritten -= 1

    async def bring_counts(self) -> None:
        """Bring to Redis what has been counted; what Redis doesn't take is brought next time."""
        counts = self._tally.take()
        if not counts or self._is_left_alone():
            self._tally.give_back(counts)
            return
        try:
            async with self._client.pipeline(transaction=True) as transaction:
                counters.add(transaction, counts)
                await transaction.execute()
        except _FAILURES as error:
            self._failed(error)
            self._tally.give_back(counts)

    async def close(self) -> None:
        """Write and count what has been decided, and let go of Redis."""
        await self._rows.close()
        self._closing.set()
        if self._flushing is not None:
            await self._flushing
        await self.bring_counts()
        if self._tally:
            _logger.warning("counts that Redis did not take are lost: %s", self._tally)
        await self._client.aclose()

    async def _publish(self, violation: Violation, counts: dict[str, int]) -> bool:
        """Put it on the stream and count it, in one transaction; whether Redis took it."""
        event = json.dumps(violation.event(), allow_nan=False)
        try:
            async with self._publishing:
                if self._is_left_alone():
                    raise redis.ConnectionError("Redis does not answer")
                async with self._client.pipeline(transaction=True) as transaction:
                    transaction.xadd(
                        VIOLATION_STREAM, {"json": event}, maxlen=VIOLATIONS_KEPT, approximate=True
                    )
                    counters.add(transaction, counts)
                    await transaction.execute()
        except _FAILURES as error:
            self._failed(error)
            self._count({counters.REDIS_WRITE_FAIL: 1})
            _logger.warning("Redis did not take a violation, %s: %s", error, event)
            return False
        return True

    def _write(self, violations: Sequence[Violation]) -> Sequence[None]:
        self._record(violations)
        return [None] * len(violations)

    def _lost(self, violation: Violation, why: str) -> None:
        self._count({counters.VIOLATION_ROWS_LOST: 1})
        _logger.warning(
            "the database did not take a violation, %s: %s", why, json.dumps(violation.event())
        )

    def _failed(self, error: Exception) -> None:
        # One that refuses does so at once. One that says nothing would hold up every check.
        if isinstance(error, redis.TimeoutError):
            self._paused_until = self._monotonic() + _PAUSE_SEC
        if not self._away:
            self._away = True
            _logger.warning("Redis is away, the gate lets everything pass: %s", error)

    def _is_left_alone(self) -> bool:
        return self._monotonic() < self._paused_until

    def _answered(self) -> None:
        if self._away:
            self._away = False
            _logger.warning("Redis is back, and the gate holds budgets against positions again")

    def _count(self, counts: dict[str, int]) -> None:
        for field, count in counts.items():
            self._tally.count(field, count)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._bring_counts_until_all_are())

    async def _bring_counts_until_all_are(self) -> None:
        try:
            while self._tally and not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _FLUSH_EVERY_SEC)
                await self.bring_counts()
        finally:
            self._flushing = None


class _Hashes:
    """Hashes of budgets; those that are asked for while Redis is being asked are asked together.

    A burst of any size takes one connection and few round trips, where a connection for each would
    run into the limit of the pool or of Redis.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def read(self, symbol: str) -> Any:
        """What HGETALL gives, or WRONGTYPE as it is. Raises what the client does."""
        answer = self._waiting.get(symbol)
        if answer is None:
            answer = self._waiting[symbol] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_until_nobody_waits())
        # One that goes away must not take the answer from the others.
        reply = await asyncio.shield(answer)
        if isinstance(reply, Exception) and not is_no_hash(reply):
            raise reply
        return reply

    async def _ask_until_nobody_waits(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, {}
                replies = await self._ask(list(group))
                for answer, reply in zip(group.values(), replies, strict=True):
                    answer.set_result(reply)
        finally:
            self._asking = None

    async def _ask(self, symbols: Sequence[str]) -> Sequence[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hgetall(BUDGET_PREFIX + symbol)
        try:
            return await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - told to each caller, the next are asked for
            return [error] * len(symbols)


def _counts_of(decision: Decision) -> dict[str, int]:
    counts = {counters.BUDGET_ALLOW if decision.allowed else counters.BUDGET_BLOCKS: 1}
    if decision.would_block:
        counts[counters.BUDGET_VIOLATIONS] = 1
    if decision.reason in FAIL_OPEN:
        counts[counters.fail_open(decision.reason)] = 1
    return counts
