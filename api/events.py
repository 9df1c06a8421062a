"""The outbox over HTTP: events a page at a time, with or without waiting, or as a stream."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api import openapi
from api.feed import Feed, Page, Told, Which
from api.openapi import events as described
from api.problems import ApiError
from api.requests import Query, authorize
from riskhub.auth import Scope
from riskhub.controlbus.events import TYPES
from riskhub.errors import RiskHubError
from riskhub.snapshot import is_world_id
from riskhub.strict_json import violation

HEARTBEAT_SEC = 15.0
"""From one sign of life on a stream to the next, at most: proxies end what is silent."""

_ASKED = ("after", "limit", "wait", "type", "world")
_LATEST = "latest"
_RESUMED = "Last-Event-ID"
_STREAM_EVENTS = 500
# For each client that stopped reading so much is held, twice.
_STREAM_BYTES = 256 * 1024
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

router = APIRouter(
    tags=["events"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.get(
    "/risk-hub/events",
    summary="What happened",
    description=(
        "The events of the ControlBus as CloudEvents, in the order in which they were committed, "
        "each in the same bytes as on the topic. Whoever goes on behind `next` misses none; an "
        "event may be told again, under the same `id`. With `wait`, the answer comes as soon as "
        "there is an event. With `Accept: text/event-stream` it is a stream without an end, to "
        "which `wait` and `limit` do not apply: `id` is the sequence, `event` the type, `data` "
        "the CloudEvent."
    ),
    responses=described.FED,
    openapi_extra=described.FEED,
)
async def get_events(request: Request) -> Response:
    """Events behind a sequence."""
    feed = authorize(request, Scope.READ).feed
    query = Query(request, _ASKED)
    after, which = _after(request, query), _which(query)
    limit = query.limit()
    wait = query.number("wait", 0, described.LONGEST_WAIT_SEC, smallest=0)
    streams = _accepts_stream(request)
    for name in ("wait", "limit"):
        if streams and name in query:
            raise violation(name, "does not apply to a stream")
    if after is None:
        after = await feed.head()
    if streams:
        # Read before it begins: a stream has no way to say 503.
        page = await feed.read(after, which, _STREAM_EVENTS, _STREAM_BYTES)
        return StreamingResponse(
            _stream(request, feed, which, page), media_type=described.EVENT_STREAM, headers=_HEADERS
        )
    if wait:
        page = await feed.next(after, which, limit, within_sec=wait)
    else:
        page = await feed.read(after, which, limit)
    return _answer(request, page)


def _after(request: Request, query: Query) -> int | None:
    """The sequence to go on behind; None for the newest."""
    name, text = _RESUMED, request.headers.get(_RESUMED)
    if text is None:
        name, text = "after", query.text("after")
        if text is None:
            return 0
        if text == _LATEST:
            return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise violation(name, "must be the sequence of an event")
    return int(text)


def _which(query: Query) -> Which:
    world, named = query.text("world"), query.text("type")
    if world is not None and not is_world_id(world):
        raise violation("world", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    types = None if named is None else frozenset(named.split(","))
    if types is not None and not types <= set(TYPES):
        raise violation("type", f"must be of {', '.join(TYPES)}, with commas between them")
    return Which(types, world)


def _accepts_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "").split(",")
    return described.EVENT_STREAM in (each.partition(";")[0].strip().lower() for each in accepted)


def _answer(request: Request, page: Page) -> Response:
    events = b",".join(event.cloud_event for event in page.events)
    url = request.url.include_query_params(after=page.next)
    return Response(
        b'{"events":[%s],"next":%d}' % (events, page.next),
        media_type="application/json",
        headers={"Link": f'<{url.path}?{url.query}>; rel="next"'},
    )


async def _stream(request: Request, feed: Feed, which: Which, page: Page) -> AsyncIterator[bytes]:
    """Server-sent events, beginning with a page, until the process or the database goes away."""
    clock = asyncio.get_running_loop().time
    yield b"retry: 1000\n\n"
    allowed_at = clock()
    while True:
        # What was looked through in vain need not be looked through again: a heartbeat has an id.
        yield b"".join(map(_as_sent, page.events)) or b": still here\nid: %d\n\n" % page.next
        if feed.is_draining:
            return
        try:
            if clock() - allowed_at >= HEARTBEAT_SEC:  # a token may be revoked
                authorize(request, Scope.READ)
                allowed_at = clock()
            page = await feed.next(
                page.next,
                which,
                _STREAM_EVENTS,
                within_sec=HEARTBEAT_SEC,
                page_bytes=_STREAM_BYTES,
            )
        except (ApiError, RiskHubError) as error:
            # Whoever comes back is told it with a status.
            yield f": {error}\n\n".encode()
            return


def _as_sent(event: Told) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.sequence,
        event.type.encode(),
        event.cloud_event,
    )
