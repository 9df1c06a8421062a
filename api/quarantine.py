"""The quarantine: snapshots that were rejected, so that they are not served as latest."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import page_answer
from api.cursors import cursor_of, key_of
from api.openapi.parts import (
    INSTANT,
    LINK,
    NEXT,
    OF_A_SNAPSHOT,
    WORLD,
    array_of,
    body,
    object_of,
)
from api.requests import Query, authorize
from riskhub.auth import Scope
from riskhub.snapshot import format_instant
from riskhub.store import Store
from riskhub.store.verdicts import QuarantineKey

_ASKED = ("world_id", "stage", "limit", "cursor")
_SHOWN = (*OF_A_SNAPSHOT, "since", "reasons", "flags", "evidence")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_QUARANTINED = object_of(
    {
        **OF_A_SNAPSHOT,
        "since": INSTANT | {"description": "When the verdict was given."},
        "reasons": _TEXTS | {"description": "What speaks against it."},
        "flags": _TEXTS | {"description": "What else is worth knowing."},
        "evidence": {
            "type": ["object", "null"],
            "description": "What was measured, by field; of a covariance that is none, how far "
            "the nearest one is. Null: nothing.",
        },
    },
    "One snapshot that was rejected.",
)
_PAGE = object_of({"quarantined": array_of(_QUARANTINED), "next": NEXT})
_OF_A_WORLD: dict[str, Any] = {
    "name": "world_id",
    "in": "query",
    "required": False,
    "schema": WORLD,
    "description": "Only of this world.",
}

router = APIRouter(
    prefix="/risk-hub/quarantine",
    tags=["snapshots"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


def _parameters() -> dict[str, Any]:
    described = openapi.parameters(*(name for name in _ASKED if name != "world_id"))
    _in_the_path, *others = described["parameters"]
    return described | {"parameters": [_OF_A_WORLD, *others]}


@router.get(
    "",
    summary="What is in the quarantine",
    description=(
        "Snapshots of all worlds that were rejected, with the reasons; what was rejected last is "
        'first. A page; the `Link` header with `rel="next"` leads to the next one. They are not '
        "served as latest; by version and in lists they are."
    ),
    responses={200: body("A page of snapshots", _PAGE) | {"headers": LINK}},
    openapi_extra=_parameters(),
)
async def list_quarantined(request: Request) -> Response:
    """A page of what is in the quarantine."""
    store = authorize(request, Scope.READ).hub.store
    query = Query(request, _ASKED)
    world_id = query.world("world_id")
    page = await asyncio.to_thread(
        _page, store, world_id, query.label("stage"), query.limit(), key_of(query.text("cursor"))
    )
    return page_answer(request, *page)


def _page(
    store: Store,
    world_id: str | None,
    stage: str | None,
    limit: int,
    after: QuarantineKey | None,
) -> tuple[str, str | None]:
    page = store.quarantined(world_id=world_id, stage=stage, limit=limit, after=after)
    rows = [{name: row[name] for name in _SHOWN} for row in page.rows]
    next_cursor = cursor_of(page.next_key)
    document = {"quarantined": rows, "next": next_cursor}
    return json.dumps(document, default=format_instant, allow_nan=False), next_cursor
