"""When to try again, and how long to wait before. Pure: clocks and chance are arguments."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a client is.

    `attempts` counts the first one. The wait before attempt n+1 is uniform between 0 and
    ``min(max_sec, first_sec * 2**(n-1))``, so that producers that failed together don't come back
    together. After `deadline_sec` no attempt begins, and the last one's timeouts end with it.
    """

    attempts: int = 6
    first_sec: float = 0.25
    max_sec: float = 8.0
    deadline_sec: float = 30.0

    def wait_sec(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures; `chance` is uniform in [0, 1)."""
        return chance * float(min(self.max_sec, self.first_sec * 2 ** (failures - 1)))


@dataclass(frozen=True, slots=True)
class Runtime:
    """Time and chance, for tests to replace."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def is_transient(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


def retry_after_sec(header: str | None, now: datetime) -> float:
    """What a ``Retry-After`` asks for, in either form (seconds, HTTP date); 0 for anything else."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    # An HTTP date is GMT, also where it says so in a way that Python takes for "unknown".
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
