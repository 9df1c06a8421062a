"""An app on a hub of its own, with a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi import Api, serving
from builders import Clock
from databases import migrate

from api.app import create_app
from riskhub.blobs import open_blobs
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import create_engine, open_store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_body_bytes=64 * 1024)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(settings: Settings, clock: Clock) -> Iterator[Hub]:
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    store = open_store(settings.effective_database_url)
    hub = Hub(store, settings, clock, blobs=open_blobs(settings))
    yield hub
    hub.store.close()


@pytest.fixture
def api(settings: Settings, hub: Hub) -> Iterator[Api]:
    with serving(create_app(settings, hub)) as api:
        yield api
