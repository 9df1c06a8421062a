"""Signs of life for supervisors and load balancers."""

import asyncio
import json
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.edge import edge_of

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    summary="The process lives",
    description="Answers as long as the process does; asks nobody else.",
    responses=openapi.json_object("Alive"),
)
async def healthz(_request: Request) -> Response:
    """Answers as long as the process does."""
    return _json({"status": "ok"})


@router.get(
    "/readyz",
    summary="The hub can serve",
    description=(
        "Each dependency by name. 503 while one is gone that the hub can't serve without: the "
        "database, or the blob store when one is configured. Without Redis it is slower, and ready."
    ),
    responses=openapi.json_object("Ready") | openapi.problems(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(request: Request) -> Response:
    """Each dependency by name."""
    edge = edge_of(request)
    told = await asyncio.to_thread(edge.hub.readiness)
    if problem := edge.tokens.problem:
        told["tokens"] = problem
    return _json({"status": "ready"} | told)


def _json(document: dict[str, str]) -> Response:
    return Response(json.dumps(document), media_type="application/json")
