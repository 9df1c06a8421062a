"""Kafka for the tests: given, or a real one that is run here.

`resolve_kafka` is for tests that want a Kafka; `own_kafka` for those that kill it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from .forms import STAND_INS, Form, at, missing
from .kafka_broker import KafkaBroker, serve_broker
from .kafka_installation import Installation, find_installation

KAFKA_URL = "RISKHUB_TEST_KAFKA_URL"


class NoOwnKafka(LookupError):
    """This machine has no real Kafka that a test could kill."""


def resolve_kafka(environ: Mapping[str, str] = os.environ) -> Form:
    """The form Kafka takes here. Starts nothing. What it serves is its bootstrap servers."""
    if servers := environ.get(KAFKA_URL):
        return Form(f"{KAFKA_URL} ({servers})", True, partial(at, servers))
    if installation := _own(environ):
        return Form(installation.label, True, partial(_serve, installation))
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
