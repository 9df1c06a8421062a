"""Production, started once for all the tests that want it."""

from collections.abc import Iterator

import pytest
import service_resolution
from production import Production, production


@pytest.fixture(scope="package")
def prod(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: str,
    redis_server: str,
    kafka_server: str,
    s3_server: str,
) -> Iterator[Production]:
    """The whole cast at work, on an empty hub."""
    form = service_resolution.resolve_kafka()
    if not form.real:
        pytest.skip(f"production needs a real Kafka, and here is only {form.label}")
    home = tmp_path_factory.mktemp("prod")
    with production(home, postgres_server, redis_server, kafka_server, s3_server) as started:
        yield started
