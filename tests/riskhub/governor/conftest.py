"""What every test of the governor can ask for."""

from collections.abc import Iterator

import pytest
import service_resolution


@pytest.fixture(scope="session")
def stand_in_server() -> Iterator[str]:
    """The URL of the stand-in for Redis that `riskhub up` runs."""
    with service_resolution.resolve_redis({service_resolution.STAND_INS: "1"}).serve() as url:
        yield url


@pytest.fixture(params=["redis_server", "stand_in_server"], ids=["redis", "stand-in"])
def either_redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database of Redis, and then of its stand-in: what holds, holds on both."""
    with service_resolution.flushed(str(request.getfixturevalue(request.param))) as url:
        yield url
