"""How fresh the worlds are: what `riskhub monitor` asks."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer
from api.edge import Edge
from api.requests import Query, authorize
from riskhub.auth import Scope
from riskhub.freshness import WorldFreshness, worst_first
from riskhub.snapshot import format_instant

_ASKED = ("world", "stage")

router = APIRouter(
    prefix="/risk-hub/freshness",
    tags=["freshness"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.get(
    "",
    summary="How fresh each world is",
    description=(
        "Each world and stage by the age of its newest snapshot that was not rejected, the most "
        "urgent first; also those that the settings expect and that never landed. The limits are "
        "held against `open_age_seconds`, which counts the hours in which the calendar's market "
        "is open."
    ),
    responses=openapi.FRESHNESS,
    openapi_extra=openapi.FRESHNESS_PARAMETERS,
)
async def get_freshness(request: Request) -> Response:
    """All worlds, or those that are asked for."""
    edge = authorize(request, Scope.READ)
    query = Query(request, _ASKED)
    world_id = query.world("world")
    return json_answer(await asyncio.to_thread(_text, edge, world_id, query.label("stage")))


def _text(edge: Edge, world_id: str | None, stage: str | None) -> str:
    worlds = worst_first(edge.hub.freshness(world_id=world_id, stage=stage))
    return json.dumps({"worlds": list(map(_shown, worlds))}, allow_nan=False)


def _shown(world: WorldFreshness) -> dict[str, Any]:
    return {
        "world_id": world.world_id,
        "stage": world.stage,
        "state": world.state,
        "severity": world.severity,
        "newest_as_of": world.newest_as_of and format_instant(world.newest_as_of),
        "age_seconds": _rounded(world.age_seconds),
        "open_age_seconds": _rounded(world.open_age_seconds),
        "served": world.served,
        "stale_after_sec": world.policy.stale_after_sec,
        "critical_after_sec": world.policy.critical_after_sec,
        "calendar": world.policy.calendar,
        "note": world.note,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
