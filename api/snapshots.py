"""The snapshots of one world: post, latest, list, lookup. Stored bodies go out byte for byte."""

import asyncio
import json
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.problems import MEDIA_TYPE, ApiError, Problem
from api.requests import Producer, authorize, group_commit_of, hub_of, read_body, settings_of
from riskhub.errors import ContractViolation, FieldError, VersionConflict
from riskhub.group_commit import GroupCommit
from riskhub.hub import MAX_LIMIT, Filter, Hub
from riskhub.settings import Settings
from riskhub.snapshot import parse_instant
from riskhub.store.landing import Landing, Outcome

WorldId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9._:-]{1,128}$",
        description="The world: 1 to 128 characters of A-Z a-z 0-9 . _ : -",
    ),
]
# No control characters: no label has one, and Postgres refuses NUL in any text.
_LABEL = Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
Label = Annotated[str | None, _LABEL]
IncludeExpired = Annotated[bool, Query(description="Also those whose ttl_sec has run out.")]
TheHub = Annotated[Hub, Depends(hub_of)]


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of refusals."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }


router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/snapshots",
    tags=["snapshots"],
    dependencies=[Depends(authorize)],
    responses=problem_responses(
        HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)

LARGE_BODY_BYTES = 256 * 1024

_SNAPSHOT_EXAMPLE = {
    "as_of": "2022-12-28T21:00:00Z",
    "version": "2022-12-28",
    "weights": {"BAC": 0.5, "JPM": 0.5},
    "ttl_sec": 900,
}


def outcome_of(landing: Landing, world_id: str, version: str, offered: str) -> HTTPStatus:
    """201 for a first landing, 200 for the same content again.

    Raises:
        VersionConflict: the version is stored with other content.
    """
    if landing.outcome is Outcome.CONFLICT:
        raise VersionConflict(world_id, version, landing.digest, offered)
    return HTTPStatus.CREATED if landing.outcome is Outcome.CREATED else HTTPStatus.OK


def _json(body: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status_code=status, media_type="application/json")


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Land a snapshot",
    response_description="Stored for the first time; the stored body",
    responses={
        200: {"description": "The same content was stored before; the stored body"},
        **problem_responses(
            HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object", "required": ["as_of", "version", "weights"]},
                    "example": _SNAPSHOT_EXAMPLE,
                }
            },
        }
    },
)
async def post_snapshot(
    request: Request,
    world_id: WorldId,
    producer: Annotated[Producer, Depends()],
    hub: TheHub,
    settings: Annotated[Settings, Depends(settings_of)],
    group_commit: Annotated[GroupCommit, Depends(group_commit_of)],
) -> Response:
    """Check the snapshot against the contract and store it, once and for ever."""
    raw = await read_body(request, settings.max_body_bytes)
    accept = partial(hub.accept, raw, world_id=world_id, actor=producer.actor, stage=producer.stage)
    # A large body takes long to check, and the loop has other requests to answer meanwhile.
    snapshot = await asyncio.to_thread(accept) if len(raw) > LARGE_BODY_BYTES else accept()
    landing = await group_commit.land(snapshot)
    status = outcome_of(landing, world_id, snapshot.version, snapshot.digest)
    return _json(landing.body, status)


@router.get(
    "/latest", summary="The latest snapshot", responses=problem_responses(HTTPStatus.NOT_FOUND)
)
def get_latest(
    world_id: WorldId,
    hub: TheHub,
    stage: Label = None,
    actor: Label = None,
    include_expired: IncludeExpired = False,
) -> Response:
    """The greatest `as_of` among unexpired snapshots, whatever order they arrived in."""
    body = hub.latest(world_id, Filter(stage, actor, include_expired))
    if body is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"world {world_id} has no such snapshot")
    return _json(body)


@router.get("", summary="List snapshots, newest first")
def list_snapshots(
    request: Request,
    world_id: WorldId,
    hub: TheHub,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(description="From the next link of the page before.")] = (
        None
    ),
    stage: Label = None,
    actor: Label = None,
    include_expired: IncludeExpired = False,
) -> Response:
    """A page of snapshots; the ``Link`` header with ``rel="next"`` leads to the next one."""
    bodies, next_cursor = hub.list(
        world_id, Filter(stage, actor, include_expired), limit=limit, cursor=cursor
    )
    response = _json(f'{{"snapshots":[{",".join(bodies)}],"next":{json.dumps(next_cursor)}}}')
    if next_cursor:
        url = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return response


@router.get(
    "/lookup",
    summary="One version, or the snapshot as of an instant",
    responses=problem_responses(HTTPStatus.NOT_FOUND),
)
def lookup(
    world_id: WorldId,
    hub: TheHub,
    version: Label = None,
    as_of: Annotated[
        str | None, Query(description="ISO 8601 with an offset or Z; at or before it.")
    ] = None,
    include_expired: IncludeExpired = False,
) -> Response:
    """By `version`, or the greatest `as_of` at or before the one given. Exactly one of the two."""
    if (version is None) == (as_of is None):
        raise ContractViolation(FieldError("version", "or as_of: exactly one must be given"))
    if version is not None:
        body = hub.lookup_version(world_id, version, include_expired=include_expired)
    else:
        try:
            instant = parse_instant(as_of or "")
        except ValueError as error:
            raise ContractViolation(FieldError("as_of", str(error))) from error
        body = hub.lookup_as_of(world_id, instant, include_expired=include_expired)
    if body is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"world {world_id} has no such snapshot")
    return _json(body)
