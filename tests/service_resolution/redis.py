"""Redis for the tests: given, a local binary, or `riskhub.embedded_redis`."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import redis

from .forms import STAND_INS, Form, at, given, missing
from .processes import running, scratch_directory

REDIS_URL = "RISKHUB_TEST_REDIS_URL"

_EMBEDDED_REDIS = (
    "import sys; from riskhub.embedded_redis import serve; serve(sys.argv[1], int(sys.argv[2]))"
)


def resolve_redis(
    environ: Mapping[str, str] = os.environ, *, durable: bool = False, also_on: str | None = None
) -> Form:
    """The form Redis takes here. Starts nothing.

    A local binary that is `durable` appends to a file, as in production; and it also listens on the
    address `also_on`.
    """
    if url := environ.get(REDIS_URL):
        return Form(given(REDIS_URL, url), True, partial(at, url))
    if not environ.get(STAND_INS) and (binary := shutil.which("redis-server")):
        label = f"local binary ({binary})"
        command = partial(_redis_command, binary, durable, also_on)
        return Form(label, True, partial(_serve_redis, command))
    if find_spec("fakeredis"):
        label = "stand-in (fakeredis over TCP)"
        return Form(label, False, partial(_serve_redis, _embedded_redis_command))
    return missing("Redis", REDIS_URL, "redis-server")


@contextmanager
def flushed(url: str) -> Iterator[str]:
    """``url``, with the Redis database it names emptied first."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    yield url


@contextmanager
def _serve_redis(command: Callable[[int], list[str]]) -> Iterator[str]:
    with (
        scratch_directory("redis") as scratch,
        running(command, _redis_answers, scratch, signal.SIGTERM) as port,
    ):
        yield f"redis://127.0.0.1:{port}/0"


def _redis_command(binary: str, durable: bool, also_on: str | None, port: int) -> list[str]:
    kept = ["--save", "", "--appendonly", "yes" if durable else "no"]
    others = [also_on, "--protected-mode", "no"] if also_on else []
    return [binary, "--bind", "127.0.0.1", *others, "--port", str(port), *kept]


def _embedded_redis_command(port: int) -> list[str]:
    return [sys.executable, "-c", _EMBEDDED_REDIS, "127.0.0.1", str(port)]


def _redis_answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
