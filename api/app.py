"""The app: composition of the HTTP edge over one hub."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import batch, health, problems, snapshots
from riskhub import __version__, bootstrap
from riskhub.group_commit import GroupCommit
from riskhub.hub import Hub
from riskhub.settings import Settings, load_settings


def create_app(settings: Settings, hub: Hub) -> FastAPI:
    """The API over a hub. The app closes the hub's store when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.group_commit = GroupCommit(hub.land)
        yield
        await app.state.group_commit.close()
        hub.store.close()

    app = FastAPI(
        title="riskhub",
        version=__version__,
        summary="The single source of truth for portfolio risk snapshots",
        lifespan=lifespan,
    )
    app.state.hub = hub
    app.state.settings = settings
    problems.install(app)
    app.include_router(batch.router)
    app.include_router(snapshots.router)
    app.include_router(health.router)
    return app


def app_from_environment() -> FastAPI:
    """What uvicorn calls: the app with the settings of the environment."""
    settings = load_settings()
    return create_app(settings, bootstrap.hub(settings))
