"""Budgets as their consumers find them in Redis, judged before they are believed.

What is read here was written by `riskhub.governor.publish`, or by a deployed governor of the first
generation, which writes the same hashes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub.governor.inputs import FUTURE_TOLERANCE_SEC
from riskhub.governor.inputs import _number as finite_number
from riskhub.governor.publish import BUDGET_PREFIX

_MODES = frozenset({"shadow", "enforce"})
_TOLD = (
    *("stress_factor", "equity_usd", "portfolio_heat"),
    *("cluster_stress", "vol_regime", "base_risk_pct"),
)
_PAGE = 1_000
_TIMEOUT_SEC = 0.5


class TooSlow(redis.TimeoutError):
    """Redis answers, and not soon enough to wait for all of it."""


@dataclass(frozen=True, slots=True)
class Published:
    """A budget that can be held against a position.

    Attributes:
        symbol: what follows the prefix of its key; of a cluster's budget ``cluster:{id}``.
        budget_usd: USD, finite and >= 0.
        mode: `shadow` or `enforce`.
        timestamp: when it was computed, unix seconds.
        told: the other numbers of the hash, from which it was computed; None: not there, or no
            number. Nothing is decided by them.
    """

    symbol: str
    budget_usd: float
    mode: str
    timestamp: float
    told: Mapping[str, float | None]

    def age_sec(self, now: float) -> float:
        """Seconds since it was computed, >= 0: a clock a little ahead of ours is forgiven."""
        return max(now - self.timestamp, 0.0)


def client_of(url: str) -> redis.Redis:
    """A client that reads all budgets: it connects at its first command, and gives up soon.

    For several threads. A connection that broke while it lay idle is made anew, once.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_SEC,
        socket_connect_timeout=_TIMEOUT_SEC,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        decode_responses=True,
        encoding_errors="replace",  # what is no text is malformed, not the end of the answer
    )


def parse_budget(symbol: str, fields: Mapping[str, str], now: float) -> Published | None:
    """The budget in a hash; None when it is malformed.

    Malformed is one without a finite amount >= 0, with a mode that is none, or whose time is no
    time, or lies in the future: a time in milliseconds must not pass for fresh.
    """
    amount = finite_number(fields.get("budget_usd"))
    timestamp = finite_number(fields.get("timestamp"))
    mode = fields.get("mode")
    if amount is None or amount < 0 or timestamp is None or mode is None or mode not in _MODES:
        return None
    if timestamp > now + FUTURE_TOLERANCE_SEC:
        return None
    told = {name: finite_number(fields.get(name)) for name in _TOLD}
    return Published(symbol, amount, mode, timestamp, told)


def read_published(
    client: redis.Redis,
    now: float,
    *,
    within_sec: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Published]:
    """Every budget there is, also of clusters; by symbol, in order. Malformed ones are left out.

    Args:
        client: one that decodes its responses.
        now: unix seconds.
        within_sec: how long to go on; each command may take its own time-out on top.

    Raises:
        redis.RedisError: Redis is out of reach, or too slow (`TooSlow`).
    """
    until = monotonic() + within_sec
    symbols: set[str] = set()
    for key in client.scan_iter(match=f"{BUDGET_PREFIX}*", count=_PAGE):
        symbols.add(key.removeprefix(BUDGET_PREFIX))
        if len(symbols) % _PAGE == 0 and monotonic() > until:
            raise TooSlow("reading the keys of all budgets takes too long")
    ordered = sorted(symbols)
    found = {}
    for start in range(0, len(ordered), _PAGE):
        if monotonic() > until:
            raise TooSlow("reading all budgets takes too long")
        page = ordered[start : start + _PAGE]
        pipeline = client.pipeline(transaction=False)
        for symbol in page:
            pipeline.hgetall(BUDGET_PREFIX + symbol)
        for symbol, fields in zip(page, pipeline.execute(raise_on_error=False), strict=True):
            # Empty is what has expired meanwhile.
            if isinstance(fields, Exception) and not is_no_hash(fields):
                raise fields
            budget = None if is_no_hash(fields) else parse_budget(symbol, fields, now)
            if budget is not None:
                found[symbol] = budget
    return found


def is_no_hash(reply: object) -> bool:
    """Whether this reply to HGETALL says that the key holds something else."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE")
