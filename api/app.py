"""The app: composition of the HTTP edge over one hub."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from api import (
    alerts,
    backtests,
    batch,
    budgets,
    contributions,
    events,
    exits,
    freshness,
    health,
    metrics,
    pages,
    problems,
    quarantine,
    risk,
    routing,
    snapshots,
    stress,
)
from api.edge import DRAIN, Edge
from api.last_resort import LastResort
from api.request_log import RequestLog, lines_of
from api.traced import Traced
from riskhub import __version__, bootstrap, traces
from riskhub.auth import TokenBook
from riskhub.hub import Hub
from riskhub.settings import Settings, load_settings


def create_app(settings: Settings, hub: Hub) -> FastAPI:
    """The API over a hub. The app closes the hub's store when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        app.state.edge = edge = Edge(hub, settings, TokenBook.of(settings))
        yield {DRAIN: edge.feed.drain}
        await edge.close()
        await asyncio.to_thread(traces.flush)

    app = FastAPI(
        title="riskhub",
        version=__version__,
        summary="The single source of truth for portfolio risk snapshots",
        lifespan=lifespan,
    )
    problems.install(app)
    routing.install(
        app,
        [
            alerts.router,
            batch.router,
            snapshots.router,
            quarantine.router,
            risk.router,
            contributions.router,
            stress.router,
            backtests.router,
            budgets.router,
            events.router,
            exits.router,
            freshness.router,
            health.router,
            metrics.router,
            *pages.ROUTERS,
        ],
    )
    app.add_middleware(LastResort)
    app.add_middleware(Traced)
    app.add_middleware(metrics.RequestMetrics, telemetry=hub.telemetry)
    app.add_middleware(RequestLog, lines=lines_of(settings))
    return app


def app_from_environment() -> FastAPI:
    """What uvicorn calls: the app with the settings of the environment."""
    settings = load_settings()
    return create_app(settings, bootstrap.hub(settings))
