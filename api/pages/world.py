"""The page of one world."""

from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.cursors import cursor_of, key_of
from api.edge import Edge, edge_of
from api.pages.access import is_guarded, may_read, to_login
from api.pages.rendering import failure, page, render
from api.requests import Query
from riskhub.world_status import world_detail

_ASKED = ("stage", "cursor")

router = APIRouter(include_in_schema=False)


@router.get("/worlds/{world_id}")
async def get_world(request: Request) -> Response:
    """One world and stage: its numbers, how good they were, what they come from, its versions."""
    if not may_read(request, edge_of(request)):
        return to_login(request)
    world_id: str = request.path_params["world_id"]

    def make(edge: Edge) -> Response:
        query = Query(request, _ASKED)
        stage, after = query.label("stage"), key_of(query.text("cursor"))
        found = world_detail(edge.hub, world_id, stage=stage, after=after)
        if found is None:
            named = world_id if stage is None else f"{world_id} with a stage {stage}"
            return failure(request, HTTPStatus.NOT_FOUND, f"There is no world {named}.")
        return render(
            request,
            "world.html",
            world_id=world_id,
            world=found,
            is_first_page=after is None,
            next_cursor=cursor_of(found.versions.next_key),
            is_guarded=is_guarded(edge),
        )

    return await page(request, make)
