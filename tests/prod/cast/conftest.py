"""Production, started once for all the tests that want it, on services that can be killed."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
import service_resolution
from outages import services
from production import Production, production


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka before the time of any test runs."""
    if not session.config.getoption("collectonly"):
        with suppress(service_resolution.KafkaNotFetched):  # the tests that want it will say so
            service_resolution.prepare_kafka()


@pytest.fixture(scope="package")
def prod(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Production]:
    """The whole cast at work, on an empty hub."""
    home = tmp_path_factory.mktemp("prod")
    try:
        with services(s3_server) as started, production(home, started) as here:
            yield here
    except service_resolution.NoOwnKafka as reason:
        if service_resolution.requires_real():
            raise
        pytest.skip(str(reason))
