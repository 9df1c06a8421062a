"""What every test can ask for."""

import os
from collections.abc import Callable, Iterator

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
    service_resolution.refuse_stand_ins()


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
def free_port() -> Callable[[], int]:
    """Gives a loopback port that nobody listens on."""
    return service_resolution.free_port
