"""What is wrong here, and how to mend it: every dependency is asked once, side by side.

Each check is a plain function from settings to a `Finding`. A dependency that is not configured is
skipped; processes of our own that don't run are a note, not a failure. No sentence holds a secret.
"""

import asyncio
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import redis
import sqlalchemy as sa
from aiokafka.errors import KafkaConnectionError, KafkaError
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub.auth import TokenBook, TokensInvalid
from riskhub.blobs import open_blobs
from riskhub.controlbus import kafka
from riskhub.errors import (
    BlobsUnavailable,
    BlobUnusable,
    DatabaseUrlInvalid,
    StoreNotMigrated,
    StoreUnavailable,
)
from riskhub.freshness import ALWAYS_OPEN, Policies
from riskhub.freshness.calendars import open_hours
from riskhub.prices import PriceFileError, open_prices
from riskhub.settings import Settings
from riskhub.store import create_engine
from riskhub.store.engine import clock_of
from riskhub.store.schema import check_migrated

DEADLINE_SEC = 5.0
_TIMEOUT_SEC = 3.0
_SKEW_WARN_SEC = 1.0
_FREE_WARN_BYTES = 2**30
_FREE_FAIL_BYTES = 64 * 2**20

# `riskhub up` starts all of them, on one machine.
_STARTED_BY = {
    "redis": "start it with `riskhub redis`, or everything with `riskhub up`",
    "api": "start it with `riskhub api`, or everything with `riskhub up`",
    "dagster": "start it with `riskhub dagster web`, or everything with `riskhub up`",
}

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one dependency, in a sentence, and how to mend it."""

    name: str
    status: Status
    sentence: str
    mend: str | None = None


Check = Callable[[Settings], Finding]


def examine(
    settings: Settings,
    checks: Sequence[tuple[str, Check]] | None = None,
    *,
    deadline_sec: float = DEADLINE_SEC,
) -> list[Finding]:
    """Ask every dependency at the same time; what hasn't answered by the deadline has failed."""
    deadline = time.monotonic() + deadline_sec
    asked = [(name, _in_background(check, settings)) for name, check in (checks or CHECKS)]
    return [_answer(name, future, deadline) for name, future in asked]


def check_database(settings: Settings) -> Finding:
    """Whether the database can be reached, and has this code's schema."""
    name = "database"
    if missing := _missing_file(settings):
        return Finding(name, "fail", f"there is no {missing} yet", "run `riskhub migrate`")
    try:
        with _engine(settings) as engine:
            check_migrated(engine)
            return Finding(name, "ok", f"{engine.dialect.name} answers, its schema is this code's")
    except StoreNotMigrated as error:
        return Finding(name, "fail", str(error), "run `riskhub migrate`")
    except (StoreUnavailable, DatabaseUrlInvalid) as error:
        return Finding(name, "fail", str(error), "look at database_url, and at the server")
    except sa.exc.DBAPIError as error:  # a file that is no database, rights that are missing
        return Finding(name, "fail", f"can't be used: {error.orig}", "look at database_url")


def check_clock(settings: Settings) -> Finding:
    """How far this machine's clock and the database's are apart."""
    if not (settings.database_url or "").startswith("postgres"):
        return Finding("clock", "skipped", "the database has this machine's clock")
    try:
        with _engine(settings) as engine:
            before = datetime.now(UTC)
            theirs = clock_of(engine)
            after = datetime.now(UTC)
    except (StoreUnavailable, DatabaseUrlInvalid):
        return Finding("clock", "skipped", "the database can't be asked for the time")
    return judge_skew((theirs - (before + (after - before) / 2)).total_seconds(), settings)


def judge_skew(skew_sec: float, settings: Settings) -> Finding:
    """What to say of a database clock that is `skew_sec` ahead of ours."""
    apart = (
        f"the database's clock is {abs(skew_sec):,.3g} s {'ahead' if skew_sec > 0 else 'behind'}"
    )
    if abs(skew_sec) <= _SKEW_WARN_SEC:
        return Finding("clock", "ok", apart)
    status: Status = "fail" if abs(skew_sec) > settings.future_tolerance_sec else "warn"
    return Finding("clock", status, apart, "have both machines keep time with NTP")


def check_redis(settings: Settings) -> Finding:
    """Whether Redis answers and how fast, and whether it may evict blobs."""
    try:
        with _redis(settings.effective_redis_url) as client:
            started = time.perf_counter()
            client.ping()
            took = (time.perf_counter() - started) * 1000
        evicts = _evicting_policy(settings)
    except (redis.RedisError, ValueError) as error:
        if settings.redis_url is None and isinstance(error, redis.ConnectionError):
            return _not_running("redis", "the stand-in for Redis", settings.effective_redis_url)
        return Finding(
            "redis",
            "fail",
            f"can't be used: {_reason(error)}",
            "look at redis_url, and at the server",
        )
    sentence = f"answers in {took:.2g} ms"
    if evicts:
        return Finding(
            "redis",
            "warn",
            f"{sentence}, but may evict blobs: its maxmemory-policy is {evicts}",
            "set maxmemory-policy noeviction, or keep blobs elsewhere",
        )
    return Finding("redis", "ok", sentence)


def check_controlbus(settings: Settings) -> Finding:
    """Whether a broker answers, and the topic is there."""
    if not settings.controlbus_brokers:
        return Finding("controlbus", "skipped", "no brokers are configured: nothing is published")
    try:
        topics = asyncio.run(kafka.topics(settings, timeout_sec=_TIMEOUT_SEC))
    except (KafkaError, OSError, ValueError) as error:
        silent = isinstance(error, KafkaConnectionError | TimeoutError)
        return Finding(
            "controlbus",
            "fail",
            f"{settings.controlbus_brokers}: {'no broker answers' if silent else _reason(error)}",
            "look at controlbus_brokers, and at the brokers",
        )
    if settings.controlbus_topic not in topics:
        return Finding(
            "controlbus",
            "warn",
            f"the brokers answer, but have no topic {settings.controlbus_topic}",
            "`riskhub relay` makes it, if it may; else create it",
        )
    return Finding("controlbus", "ok", f"the brokers answer, and have {settings.controlbus_topic}")


def check_blobs(settings: Settings) -> Finding:
    """Whether the blob store keeps what is put, gives it back, and deletes it."""
    kind = settings.blobs.kind
    probe = b'"riskhub doctor ' + secrets.token_hex(16).encode() + b'"'
    try:
        store = open_blobs(settings)
        if store is None:
            return Finding("blobs", "skipped", "large fields stay in the snapshot")
        ref = store.put(probe)
        try:
            store.get(ref)  # verifies the content
        finally:
            store.delete(ref)
    except (BlobsUnavailable, BlobUnusable, ValueError) as error:
        return Finding(
            "blobs", "fail", f"{kind}: {_reason(error)}", "look at the settings in `blobs`"
        )
    return Finding("blobs", "ok", f"{kind}: a probe was put, read and deleted")


def check_prices(settings: Settings) -> Finding:
    """Whether the source of prices has a whole panel, and up to when."""
    source = open_prices(settings)
    try:
        panel = source.load()
    except PriceFileError as error:
        return Finding("prices", "fail", str(error), "look at prices_path, and at `prices`")
    span = f"{len(panel.symbols):,} symbols, {panel.days[0]} to {panel.days[-1]}"
    return Finding("prices", "ok", f"{source.label}: {span}")


def check_calendars(settings: Settings) -> Finding:
    """Whether the calendars that worlds age by can be had."""
    named = [name for name in Policies.of(settings).calendars if name != ALWAYS_OPEN]
    if not named:
        return Finding("calendars", "skipped", "none: worlds age at all hours")
    hours = [open_hours(name) for name in named]
    if wanting := [why for why in hours if isinstance(why, str)]:
        return Finding(
            "calendars", "warn", "; ".join(wanting), "look at the calendars in `freshness`"
        )
    spans = (each.span for each in hours if not isinstance(each, str))
    return Finding("calendars", "ok", "; ".join(spans))


def check_tokens(settings: Settings) -> Finding:
    """Whether there are tokens, and the tokens file is good."""
    try:
        book = TokenBook.of(settings)
    except TokensInvalid as error:
        return Finding("tokens", "fail", str(error), "make entries with `riskhub token new`")
    if book.is_open:
        return Finding("tokens", "skipped", "none: whoever is on this machine may do everything")
    if not book.size:
        return Finding(
            "tokens",
            "warn",
            f"{settings.tokens_file} is empty: nobody is let in",
            "add an entry from `riskhub token new`",
        )
    return Finding("tokens", "ok", f"{book.size:,} valid")


def check_home(settings: Settings) -> Finding:
    """Whether the home directory can be written to, and has room."""
    home = settings.home.resolve()
    try:
        there = next(path for path in (home, *home.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            return judge_free(home, shutil.disk_usage(there).free)
    except OSError as error:
        return Finding(
            "home",
            "fail",
            f"{home} can't be written to: {error.strerror}",
            "make room for it, or set RISKHUB_HOME to another directory",
        )


def judge_free(home: Path, free: int) -> Finding:
    """What to say of a home with that many bytes free."""
    sentence = f"{home} is writable, {free / 2**30:,.1f} GiB are free"
    if free >= _FREE_WARN_BYTES:
        return Finding("home", "ok", sentence)
    status: Status = "fail" if free < _FREE_FAIL_BYTES else "warn"
    return Finding("home", status, sentence, "make room, or set RISKHUB_HOME to a larger disk")


def check_api(settings: Settings) -> Finding:
    """Whether the API runs and is ready."""
    return _check_http("api", "the API", settings.api_url, "/readyz")


def check_dagster(settings: Settings) -> Finding:
    """Whether the Dagster UI runs."""
    return _check_http("dagster", "the Dagster UI", settings.dagster_url, "/server_info")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("home", check_home),
    ("database", check_database),
    ("clock", check_clock),
    ("redis", check_redis),
    ("controlbus", check_controlbus),
    ("blobs", check_blobs),
    ("prices", check_prices),
    ("calendars", check_calendars),
    ("tokens", check_tokens),
    ("api", check_api),
    ("dagster", check_dagster),
)


def _in_background(check: Check, settings: Settings) -> Future[Finding]:
    future: Future[Finding] = Future()

    def run() -> None:
        try:
            future.set_result(check(settings))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for it
            future.set_exception(error)

    # Daemons: a check that hangs must not keep the process.
    threading.Thread(target=run, daemon=True, name="doctor").start()
    return future


def _answer(name: str, future: Future[Finding], deadline: float) -> Finding:
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return Finding(name, "fail", "no answer in time", "see whether it hangs or is far away")


def _check_http(name: str, what: str, url: str, path: str) -> Finding:
    try:
        answer = httpx.get(f"{url}{path}", timeout=_TIMEOUT_SEC)
    except httpx.TransportError:
        return _not_running(name, what, url)
    if answer.is_success:
        return Finding(name, "ok", f"answers at {url}")
    return Finding(
        name,
        "fail",
        f"{url}{path} answers {answer.status_code}",
        "look at its log, and at this table",
    )


def _not_running(name: str, what: str, url: str) -> Finding:
    return Finding(name, "skipped", f"{what} doesn't run at {url}", _STARTED_BY[name])


@contextmanager
def _engine(settings: Settings) -> Iterator[sa.Engine]:
    try:
        engine = create_engine(settings.effective_database_url)
    except ValueError as error:  # a port that is no number
        raise DatabaseUrlInvalid("the database URL can't be read as one") from error
    try:
        yield engine
    finally:
        engine.dispose()


def _missing_file(settings: Settings) -> Path | None:
    """The file of a SQLite database that isn't there: connecting would make it."""
    url = settings.effective_database_url
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    return path if url.startswith("sqlite:///") and not path.is_file() else None


def _redis(url: str) -> "closing[redis.Redis]":
    return closing(
        redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SEC,
            socket_connect_timeout=_TIMEOUT_SEC,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
    )


def _evicting_policy(settings: Settings) -> str | None:
    """The policy by which the Redis that keeps blobs may drop them; None when it won't."""
    if settings.blobs.kind != "redis":
        return None
    with _redis(settings.blobs.redis_url or settings.effective_redis_url) as client:
        try:
            policy = client.info("memory").get("maxmemory_policy")
        except redis.ResponseError:  # the stand-in has no such section, and never evicts
            return None
    return None if policy in (None, "noeviction") else str(policy)


def _reason(error: Exception) -> str:
    # The text of a ValueError may be a part of the URL that it could not read.
    return type(error).__name__ if isinstance(error, ValueError) else str(error) or "no answer"
