"""Publishing the portfolio state, beat by beat, by one updater at a time.

State and high-water mark are written in one transaction, in which Redis also refuses whoever is
not the writer. The lease on that is the governor's pattern with a key of its own: it runs out
after two beats, so the next updater takes over within three. WATCH and MULTI, not a script: the
embedded stand-in for Redis knows no Lua.
"""

import json
import time
from collections.abc import Callable
from math import ceil
from typing import Protocol

import redis
from redis.exceptions import RedisError, ResponseError

from riskhub.errors import RiskHubError
from riskhub.governor.inputs import PORTFOLIO_KEY
from riskhub.portfolio_state.sources import EquitySource, read
from riskhub.portfolio_state.state import (
    Book,
    Equity,
    HighWater,
    NoPortfolioState,
    PortfolioUpdate,
    book_of,
    equity_of,
    high_water_of,
    update_of,
)

HIGH_WATER_KEY = "riskhub:portfolio:high_water"
WRITER_KEY = "riskhub:portfolio:writer"

_HIGH_WATER_FIELDS = ("equity_usd", "reached_at", "net_flow_usd")
_NAMED = 20  # of malformed positions; how many there are is told of all
_ATTEMPTS = 3


class AnotherPublishes(RiskHubError):
    """The portfolio state is another updater's to write now."""


class Stop(Protocol):
    """What ends a run: a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to end."""

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds, or until told to end."""


class Updater:
    """One updater of `quantum:state:portfolio`. For one thread."""

    def __init__(
        self,
        redis: redis.Redis,
        source: EquitySource,
        *,
        owner: str,
        stale_sec: float,
        interval_sec: float,
    ) -> None:
        """Write nothing yet.

        Args:
            redis: where positions are and the state goes; with or without `decode_responses`.
            source: of the equity.
            owner: who writes; no two processes may have the same.
            stale_sec: an equity of this age is not published.
            interval_sec: between two beats; the lease holds for twice as long, and 1 s at least.
        """
        self._redis = redis
        self._source = source
        self._owner = owner
        self._stale_sec = stale_sec
        self._lease_ms = max(1000, round(2000 * interval_sec))

    def publish(self, now: float) -> PortfolioUpdate:
        """Read, compute, and write state and high-water mark.

        Raises:
            NoPortfolioState: nothing was written.
            AnotherPublishes: nothing was written.
            StoreUnavailable: nothing was written.
            redis.RedisError: Redis is out of reach; safe to try again.
        """
        self._check_writer(self._redis.get(WRITER_KEY))
        book, equity = self._read(now)
        for _ in range(_ATTEMPTS):
            try:
                return self._write(book, equity, now)
            except redis.WatchError:
                continue  # a new writer, or a reset: looked at again
        raise AnotherPublishes("the portfolio state changes hands")

    def preview(self, now: float) -> PortfolioUpdate:
        """What `publish` would write, whoever the writer is. Raises as `publish` does."""
        return update_of(*self._read(now), kept_high_water(self._redis))

    def release(self) -> None:
        """Let the next updater write at once. Raises `redis.RedisError`."""
        with self._redis.pipeline(transaction=True) as transaction:
            transaction.watch(WRITER_KEY)  # type: ignore[no-untyped-call]
            if _text(transaction.get(WRITER_KEY)) != self._owner:
                return
            transaction.multi()
            transaction.delete(WRITER_KEY)
            transaction.execute()

    def _read(self, now: float) -> tuple[Book, Equity]:
        snapshots, said = read(self._redis, self._source, now)
        book = book_of(snapshots)
        return book, equity_of(said, book, now=now, stale_sec=self._stale_sec)

    def _write(self, book: Book, equity: Equity, now: float) -> PortfolioUpdate:
        with self._redis.pipeline(transaction=True) as transaction:
            transaction.watch(WRITER_KEY, HIGH_WATER_KEY)  # type: ignore[no-untyped-call]
            self._check_writer(transaction.get(WRITER_KEY))
            update = update_of(book, equity, kept_high_water(transaction))
            mark = dict(zip(_HIGH_WATER_FIELDS, _values(update.high_water), strict=True))
            transaction.multi()
            transaction.set(WRITER_KEY, self._owner, px=self._lease_ms)
            for key, fields in ((PORTFOLIO_KEY, fields_of(update, now)), (HIGH_WATER_KEY, mark)):
                transaction.delete(key)
                transaction.hset(key, mapping={k: v for k, v in fields.items() if v is not None})
            transaction.execute()
        return update

    def _check_writer(self, raw: object) -> None:
        writer = _text(raw)
        if writer not in {None, self._owner}:
            raise AnotherPublishes(f"the portfolio state is published by {writer}")


def fields_of(update: PortfolioUpdate, now: float) -> dict[str, str | float]:
    """The fields of `quantum:state:portfolio`: those of the contract, and what else is known.

    Args:
        update: what is published.
        now: when, unix seconds; `timestamp` is when the equity was so.
    """
    return {
        "equity_usd": update.equity_usd,
        "drawdown": update.drawdown,
        "timestamp": update.timestamp,
        "published_at": int(now),
        "high_water_usd": update.high_water.equity_usd,
        "gross_notional_usd": update.gross_notional_usd,
        "net_notional_usd": update.net_notional_usd,
        "positions": update.positions,
        "malformed_positions": len(update.malformed_positions),
        "malformed_symbols": json.dumps(update.malformed_positions[:_NAMED]),
        "net_flow_unknown": int(update.net_flow_unknown),
    }


def kept_high_water(redis: redis.Redis) -> HighWater | None:
    """The high-water mark that is kept, if one is.

    Raises:
        NoPortfolioState: what is kept there is none.
        redis.RedisError: Redis is out of reach.
    """
    try:
        return high_water_of(*redis.hmget(HIGH_WATER_KEY, *_HIGH_WATER_FIELDS))
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return high_water_of("no hash", None, None)


def reset_high_water(redis: redis.Redis) -> None:
    """Forget the high-water mark: it starts at the next equity that is published.

    An updater that is at work just then does not write the old one back.

    Raises:
        redis.RedisError: Redis is out of reach.
    """
    redis.delete(HIGH_WATER_KEY)


def run(
    beat: Callable[[float], PortfolioUpdate],
    *,
    interval_sec: float,
    stop: Stop,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Beat until told to stop, every `interval_sec` counted from the first beat.

    A beat that takes longer than the interval makes the ones it missed fall away. What fails is
    told, and tried again at the next beat; told is what changed, not each beat.

    Args:
        beat: `Updater.publish` or `Updater.preview`.
        interval_sec: > 0.
        stop: ends the run when set.
        tell: takes one line for the log.
        clock: unix seconds.
        monotonic: seconds that never go back.
    """
    log = _Log(tell)
    due = monotonic()
    while not stop.is_set():
        try:
            log.published(beat(clock()))
        except NoPortfolioState as error:
            log.failed(error.reason, error)
        except (RiskHubError, RedisError, OSError, UnicodeDecodeError) as error:
            log.failed(type(error).__name__, error)
        due += interval_sec * max(1, ceil((monotonic() - due) / interval_sec))
        stop.wait(max(0.0, due - monotonic()))


class _Log:
    """Tells what is not as it was at the beat before."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._failure: str | None = "not begun"
        self._malformed: tuple[str, ...] = ()
        self._mark: HighWater | None = None
        self._flow_unknown = False

    def failed(self, kind: str, error: Exception) -> None:
        if kind != self._failure:
            self._tell(f"{error}; tried again at each beat")
        self._failure = kind

    def published(self, update: PortfolioUpdate) -> None:
        mark = update.high_water
        if update.high_water_begins:
            self._tell(f"no high-water mark was kept: it begins at {mark.equity_usd:,.2f} USD")
        if self._failure is not None:
            self._tell(
                f"published: equity {update.equity_usd:,.2f} USD, drawdown {update.drawdown:.2%} "
                f"from {mark.equity_usd:,.2f} USD, {update.positions} positions"
            )
        if update.malformed_positions != self._malformed:
            self._tell(_malformed(update.malformed_positions))
        if update.net_flow_unknown != self._flow_unknown:
            self._tell(
                "net_flow_usd is not known any more: the high-water mark stays where it is"
                if update.net_flow_unknown
                else "net_flow_usd is known again"
            )
        if self._mark is not None and self._mark.net_flow_usd != mark.net_flow_usd:
            self._tell(
                f"net flow {self._mark.net_flow_usd} -> {mark.net_flow_usd} USD: the high-water "
                f"mark goes from {self._mark.equity_usd:,.2f} to {mark.equity_usd:,.2f} USD"
            )
        self._failure, self._malformed = None, update.malformed_positions
        self._mark, self._flow_unknown = mark, update.net_flow_unknown


def _malformed(symbols: tuple[str, ...]) -> str:
    if not symbols:
        return "no position is malformed any more"
    named = ", ".join(symbols[:_NAMED])
    more = f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else ""
    return f"malformed positions, in no sum: {named}{more}"


def _values(mark: HighWater) -> tuple[float, float, float | None]:
    return mark.equity_usd, mark.reached_at, mark.net_flow_usd


def _text(raw: object) -> str | None:
    if raw is None:
        return None
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
