"""What the hub tells Prometheus, and the middleware that counts and times every request."""

import asyncio
from http import HTTPStatus
from time import perf_counter

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import openapi
from api.edge import Edge
from api.problems import CLIENT_CLOSED_REQUEST
from api.requests import authorize
from riskhub import auth, standing
from riskhub.errors import StoreNotMigrated, StoreUnavailable
from riskhub.governor import metrics
from riskhub.store.events import RELAY
from riskhub.telemetry import MEDIA_TYPE, Telemetry

UNMATCHED = "_unmatched"

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    description=(
        "Counters of all workers, age and state of each world as of now; the governor's counters "
        "of all processes, and its budgets, as Redis has them; and how the outbox, its readers, "
        "the exit engine, alerts and Dagster stand."
    ),
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **openapi.problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
    },
    openapi_extra=openapi.SECURITY,
)
async def get_metrics(request: Request) -> Response:
    """Counters of all workers, and lags as of now."""
    edge = authorize(request, auth.Scope.READ)
    await edge.gatekeeper.bring_counts()
    parts = await asyncio.gather(
        *(asyncio.to_thread(part, edge) for part in (_page, _governor_page, _standing_page))
    )
    return Response(b"".join(parts), media_type=MEDIA_TYPE)


def _page(edge: Edge) -> bytes:
    try:
        worlds = edge.hub.freshness()
    except (StoreUnavailable, StoreNotMigrated):
        # When the database is gone the counters are wanted most.
        worlds = None
    return edge.hub.telemetry.exposition(worlds)


def _governor_page(edge: Edge) -> bytes:
    return metrics.exposition(edge.budgets, edge.settings.governor, edge.now())


def _standing_page(edge: Edge) -> bytes:
    try:
        found = edge.hub.store.standing()
    except (StoreUnavailable, StoreNotMigrated):
        found = None
    relay = None
    if edge.settings.controlbus_brokers is not None:
        relay = f"{RELAY}{edge.settings.controlbus_topic}"
    said = None if edge.dagster is None else edge.dagster.said()
    return standing.exposition(found, said, edge.hub.clock(), relay=relay)


class RequestMetrics:
    """ASGI middleware: each request, by the template of its route, with status and duration."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and count it, also when it fails."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = perf_counter()
        try:
            await self._app(scope, receive, noting_status)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED_REQUEST
            raise
        finally:
            # Routing has put it there by now, if the path is one that the app knows.
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._telemetry.request(
                route,
                scope["method"],
                status or HTTPStatus.INTERNAL_SERVER_ERROR.value,
                perf_counter() - started,
            )
