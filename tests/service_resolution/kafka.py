"""Kafka for the tests: given, a real one that is run here, or `tests.kafka_stand_in`.

`resolve_kafka` is for tests that want a Kafka; `own_kafka` for those that kill it. What the
stand-in can't do its docstring says; a test of that asks the form whether it is `real`.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec

from .forms import STAND_INS, Form, at, missing
from .kafka_broker import KafkaBroker, serve_broker
from .kafka_installation import Installation, find_installation
from .processes import running, scratch_directory

KAFKA_URL = "RISKHUB_TEST_KAFKA_URL"


class NoOwnKafka(LookupError):
    """This machine has no real Kafka that a test could kill."""


def resolve_kafka(environ: Mapping[str, str] = os.environ) -> Form:
    """The form Kafka takes here. Starts nothing. What it serves is its bootstrap servers."""
    if servers := environ.get(KAFKA_URL):
        return Form(f"{KAFKA_URL} ({servers})", True, partial(at, servers))
    if installation := _own(environ):
        return Form(installation.label, True, partial(_serve, installation))
    if find_spec("confluent_kafka"):
        return Form("stand-in (librdkafka's mock cluster)", False, _serve_stand_in)
    return missing("Kafka", KAFKA_URL, "Java 17 or later and Maven")


def own_kafka(environ: Mapping[str, str] = os.environ) -> AbstractContextManager[KafkaBroker]:
    """A Kafka of the caller's own, to stop, kill and start again. Raises `NoOwnKafka`."""
    installation = _own(environ)
    if installation is None:
        raise NoOwnKafka(
            "this needs a real Kafka of its own to kill: install Java 17 or later and Maven "
            f"(or put kafka-server-start.sh on the PATH), and do not set {STAND_INS}"
        )
    return serve_broker(installation)


def prepare_kafka(environ: Mapping[str, str] = os.environ) -> None:
    """Fetch Kafka if tests are going to run it and it is not here. Raises `KafkaNotFetched`."""
    if installation := _own(environ):
        installation.prepare()


def _own(environ: Mapping[str, str]) -> Installation | None:
    return None if environ.get(STAND_INS) else find_installation(environ)


@contextmanager
def _serve(installation: Installation) -> Iterator[str]:
    with serve_broker(installation) as broker:
        yield broker.bootstrap


@contextmanager
def _serve_stand_in() -> Iterator[str]:
    with (
        scratch_directory("kafka") as scratch,
        running(_stand_in_command, _accepts, scratch, signal.SIGTERM) as port,
    ):
        yield f"127.0.0.1:{port}"


def _stand_in_command(port: int) -> list[str]:
    return [sys.executable, "-m", "tests.kafka_stand_in", "127.0.0.1", str(port)]


def _accepts(port: int) -> bool:
    """Whether it listens, which it does when it is ready."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
