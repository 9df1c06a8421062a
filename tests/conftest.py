"""What every test can ask for."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import hypothesis
import pytest
import service_resolution

from riskhub.blobs.settings import BlobSettings

# No deadline: a shared machine is slow now and then, and that is not the property under test.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_report_header() -> str:
    return service_resolution.report()


def pytest_sessionstart() -> None:
    # A shell that starts us in the background has SIGINT ignored: what we start inherits that, no
    # Ctrl-C would end it; and Dagster would have SIGTERM ignored as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    service_resolution.refuse_stand_ins()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka, if a test is going to want it, before the time of any test runs."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if wanted & {"kafka_server", "kafka_broker"} and not session.config.getoption("collectonly"):
        with suppress(service_resolution.KafkaNotFetched):  # the tests that want it will say so
            service_resolution.prepare_kafka()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a Postgres server, started at the first test that wants it."""
    with service_resolution.resolve_postgres().serve() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server, started at the first test that wants it."""
    with service_resolution.resolve_redis().serve() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server, started at the first test that wants it."""
    with service_resolution.resolve_s3().serve() as url:
        yield url


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """The bootstrap servers of a Kafka, started at the first test that wants it."""
    with service_resolution.resolve_kafka().serve() as bootstrap:
        yield bootstrap


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of the test's own, empty."""
    with service_resolution.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """A Redis database with nothing in it."""
    with service_resolution.flushed(redis_server) as url:
        yield url


@pytest.fixture
def s3_bucket(s3_server: str) -> Iterator[BlobSettings]:
    """Settings of a bucket of the test's own, empty."""
    with service_resolution.fresh_bucket(s3_server) as settings:
        yield settings


@pytest.fixture
def kafka_topic(kafka_server: str) -> Iterator[str]:
    """The name of a topic of the test's own on `kafka_server`, empty, of six partitions."""
    with service_resolution.fresh_topic(kafka_server, partitions=6) as name:
        yield name


@pytest.fixture
def kafka_broker() -> Iterator[service_resolution.KafkaBroker]:
    """A real Kafka of the test's own, running, to stop, kill and start again.

    Where there is none the test is skipped, but not in a run that asked for real services.
    """
    try:
        serving = service_resolution.own_kafka()
    except service_resolution.NoOwnKafka as reason:
        if service_resolution.requires_real():
            raise
        pytest.skip(str(reason))
    with serving as broker:
        yield broker


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a loopback port that nobody listens on."""
    return service_resolution.free_port


@pytest.fixture(autouse=True)
def no_signal_is_kept_away() -> Iterator[None]:
    """What the next test starts inherits what is ignored or blocked, and would not end."""
    yield
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ends = (signal.SIGINT, signal.SIGTERM)
    assert signal.SIG_IGN not in [signal.getsignal(number) for number in ends]
