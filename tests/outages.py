"""The services that production stands on, each of which can be killed and comes back.

As an init system has it: what is seen dead is started again, with the directory and the port that
it had. Postgres and Kafka then have what they had. A Redis has it, too, as it appends to a file
like that of `deploy/`; or it comes back empty, as a new machine does, which is harder. A service
that the environment names is somebody else's, and is not killed.

S3 is not killed: what stands in for it keeps everything in memory, so blobs that were acknowledged
would be gone with it, which is no fault of the hub's.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import psutil
import service_resolution
from builders import wait_until
from own_servers import OwnServer, own_server, postgres_answers, redis_answers

Outage = Callable[[float], int]
"""Kills something, and returns when it is back; gives the process id of what was killed.

It is given a number from 0 up to and without 1, which decides what of it is left to chance: which
one of many, or how long it is away.
"""

_LONGEST_AWAY_SEC = 5.0
_STARTED_WITHIN_SEC = 60.0


@dataclass(frozen=True)
class Services:
    """What production stands on, started for it.

    Attributes:
        postgres, redis, kafka, s3: where they are.
        outages: what can be done to them, by what is killed.
        spared: what is not killed, and why.
    """

    postgres: str
    redis: str
    kafka: str
    s3: str
    outages: Mapping[str, Outage]
    spared: Mapping[str, str]


@contextmanager
def services(s3: str) -> Iterator[Services]:
    """Start them, durable; ended with the block.

    Args:
        s3: where that one is.

    Raises:
        NoOwnKafka: there is no real Kafka here.
    """
    outages: dict[str, Outage] = {}
    spared = {"s3": "it keeps all in memory"}
    with ExitStack() as stack:

        def serve(
            name: str, variable: str, form: service_resolution.Form
        ) -> tuple[str, OwnServer | None]:
            """Where it is; and the server, if it is ours."""
            if variable in os.environ:
                spared[name] = f"it is {form.label}"
                return stack.enter_context(form.serve()), None
            server = stack.enter_context(own_server(form))
            return server.url, server

        form = service_resolution.resolve_postgres(durable=True)
        postgres, server = serve("postgres", service_resolution.POSTGRES_URL, form)
        if server:
            outages["postgres"] = partial(_kill_postgres, server)
            outages["a session of postgres"] = partial(_kill_session, server)
        form = service_resolution.resolve_redis(durable=True)
        redis_url, server = serve("redis", service_resolution.REDIS_URL, form)
        if server:
            outages["redis"] = partial(_kill_redis, server)
            outages["redis, and what it had"] = partial(_kill_redis, server, emptied=True)
        if service_resolution.KAFKA_URL in os.environ:
            kafka_form = service_resolution.resolve_kafka()
            kafka = stack.enter_context(kafka_form.serve())
            spared["kafka"] = f"it is {kafka_form.label}"
        else:
            broker = stack.enter_context(service_resolution.own_kafka())
            kafka = broker.bootstrap
            outages["kafka"] = partial(_kill_kafka, broker)
        yield Services(postgres, redis_url, kafka, s3, outages, spared)


def _kill_postgres(server: OwnServer, share: float) -> int:
    killed = server.process.pid
    server.end(signal.SIGKILL)
    _be_away(share)
    server.start(partial(postgres_answers, server))
    return killed


def _kill_session(server: OwnServer, share: float) -> int:
    """One that ends so takes all others with it: Postgres can't know what it had in hand."""
    sessions = sorted(filter(_is_session, server.process.children()), key=lambda each: each.pid)
    killed = sessions[int(share * len(sessions))]
    killed.kill()
    wait_until(lambda: not killed.is_running(), within_sec=_STARTED_WITHIN_SEC)
    wait_until(partial(postgres_answers, server), within_sec=_STARTED_WITHIN_SEC)
    return killed.pid


def _is_session(process: psutil.Process) -> bool:
    try:
        return "127.0.0.1(" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def _kill_redis(server: OwnServer, share: float, *, emptied: bool = False) -> int:
    killed = server.process.pid
    server.end(signal.SIGKILL)
    _be_away(share)
    if emptied:
        shutil.rmtree(Path(server.directory) / "appendonlydir", ignore_errors=True)
    server.start(partial(redis_answers, server))
    return killed


def _kill_kafka(broker: service_resolution.KafkaBroker, _share: float) -> int:
    killed = broker.pid
    broker.kill()
    broker.start()  # which takes it seconds
    return killed


def _be_away(share: float) -> None:
    Event().wait(share * _LONGEST_AWAY_SEC)
