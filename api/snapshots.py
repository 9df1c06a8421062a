"""The snapshots of one world: post, latest, list, lookup. Stored bodies go out byte for byte."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer, page_answer, with_age
from api.edge import Edge
from api.problems import ApiError
from api.requests import (
    Query,
    authorize,
    authorize_producer,
    read_body,
    world_of,
)
from api.traced import note_landings, now_ns
from riskhub.auth import Scope
from riskhub.cache import Question
from riskhub.errors import VersionConflict
from riskhub.freshness import age_seconds
from riskhub.hub import Served
from riskhub.snapshot import Snapshot
from riskhub.store import Filter, Landing
from riskhub.store.landing import Outcome
from riskhub.store.reading import Lookup
from riskhub.strict_json import violation

LARGE_BODY_BYTES = 256 * 1024
_ONE_OF = ("stage", "actor", "include_expired", "expand")
_LATEST = _ONE_OF
_LIST = ("limit", "cursor", "as_of_from", "as_of_to", *_ONE_OF)
_LOOKUP = ("version", "as_of", "known_at", *_ONE_OF)

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/snapshots",
    tags=["snapshots"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


def outcome_of(landing: Landing, snapshot: Snapshot) -> HTTPStatus:
    """201 for a first landing, 200 for the same content again.

    Raises:
        VersionConflict: the version is stored with other content.
    """
    if landing.outcome is Outcome.CONFLICT:
        raise VersionConflict(snapshot.world_id, snapshot.version, landing.digest, snapshot.digest)
    return HTTPStatus.CREATED if landing.outcome is Outcome.CREATED else HTTPStatus.OK


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Land a snapshot",
    description="Checks the snapshot against the contract and stores it, once and for ever.",
    responses=openapi.POST_RESPONSES,
    openapi_extra=openapi.POST,
)
async def post_snapshot(request: Request) -> Response:
    """Check the snapshot against the contract and store it."""
    edge, producer = authorize_producer(request)
    world_id = world_of(request)
    dry_run = Query(request, ("dry_run",)).flag("dry_run")
    raw = await read_body(request, edge.settings.max_body_bytes, edge.settings.body_timeout_sec)
    accept = partial(
        edge.hub.accept,
        raw,
        world_id=world_id,
        actor=producer.actor,
        stage=producer.stage,
        dry_run=dry_run,
    )
    # What takes long to check, or asks the blob store, leaves the loop to other requests.
    takes_long = len(raw) > LARGE_BODY_BYTES or edge.hub.blobs is not None
    snapshot = await asyncio.to_thread(accept) if takes_long else accept()
    if dry_run:
        return await _rehearse(edge, snapshot)
    began = now_ns()
    landing = await edge.landings.do(snapshot)
    note_landings([(snapshot, landing)], began)
    return json_answer(landing.body, outcome_of(landing, snapshot))


async def _rehearse(edge: Edge, snapshot: Snapshot) -> Response:
    landing = await asyncio.to_thread(edge.hub.rehearse, snapshot)
    status = outcome_of(landing, snapshot)
    told = {"dry_run": True, "status": int(status), "hash": landing.digest}
    return json_answer(f'{json.dumps(told)[:-1]}, "snapshot": {landing.body}}}')


@router.get(
    "/latest",
    summary="The latest snapshot",
    description="The greatest `as_of` among unexpired snapshots, whatever order they arrived in.",
    responses=openapi.ONE_SNAPSHOT,
    openapi_extra=openapi.parameters(*_LATEST),
)
async def get_latest(request: Request) -> Response:
    """The greatest `as_of` among unexpired snapshots."""
    edge = authorize(request, Scope.READ)
    world_id = world_of(request)
    query = Query(request, _LATEST)
    which = query.filter()
    if which.include_expired:
        lookup = Lookup(world_id, None, which)
        served = await edge.lookups.do(lookup)
    else:
        served = await edge.latest.do(Question(world_id, which.stage, which.actor))
    return await _found(edge, world_id, served, expand=query.flag("expand"))


@router.get(
    "",
    summary="List snapshots, newest first",
    description='A page of snapshots; the `Link` header with `rel="next"` leads to the next one.',
    responses=openapi.SNAPSHOT_PAGE,
    openapi_extra=openapi.parameters(*_LIST),
)
async def list_snapshots(request: Request) -> Response:
    """A page of snapshots."""
    edge = authorize(request, Scope.READ)
    world_id = world_of(request)
    query = Query(
        request,
        (
            "limit",
            "cursor",
            "stage",
            "actor",
            "as_of_from",
            "as_of_to",
            "include_expired",
            "expand",
        ),
    )
    which = replace(
        query.filter(), since=query.instant("as_of_from"), up_to=query.instant("as_of_to")
    )
    answer = partial(
        _page, edge, world_id, which, query.limit(), query.text("cursor"), query.flag("expand")
    )
    body, next_cursor = await asyncio.to_thread(answer)
    return page_answer(request, body, next_cursor)


@router.get(
    "/lookup",
    summary="One version, or the snapshot as of an instant",
    description=(
        "By `version`, or the greatest `as_of` at or before the one given; exactly one of the two. "
        "With `known_at` the answer is what the hub would have said at that moment: only what it "
        "had received by then, and what was not expired then."
    ),
    responses=openapi.ONE_SNAPSHOT,
    openapi_extra=openapi.parameters(*_LOOKUP),
)
async def lookup(request: Request) -> Response:
    """By version, or as of an instant, now or as known at another."""
    edge = authorize(request, Scope.READ)
    world_id = world_of(request)
    query = Query(request, _LOOKUP)
    if ("version" in query) == ("as_of" in query):
        raise violation("version", "or as_of: exactly one must be given")
    which = replace(
        query.filter(), up_to=query.instant("as_of"), known_at=query.instant("known_at")
    )
    if "version" in query and (which.stage or which.actor):
        raise violation("stage" if which.stage else "actor", "filters nothing next to version")
    served = await edge.lookups.do(Lookup(world_id, query.label("version"), which))
    return await _found(edge, world_id, served, expand=query.flag("expand"))


async def _found(edge: Edge, world_id: str, served: Served | None, *, expand: bool) -> Response:
    if served is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"world {world_id} has no such snapshot")
    body, as_of = served
    if expand:
        body = await asyncio.to_thread(edge.hub.expand, body)
    return with_age(json_answer(body), age_seconds(as_of, edge.hub.clock()))


def _page(
    edge: Edge, world_id: str, which: Filter, limit: int, cursor: str | None, expand: bool
) -> tuple[str, str | None]:
    bodies, next_cursor = edge.hub.page(world_id, which, limit=limit, cursor=cursor)
    if expand:
        bodies = [edge.hub.expand(body) for body in bodies]
    return f'{{"snapshots":[{",".join(bodies)}],"next":{json.dumps(next_cursor)}}}', next_cursor
