"""Exit signals over HTTP: the episodes that they tell of, and who has seen them."""

import asyncio
import json
import re
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer, page_answer
from api.openapi import exits as described
from api.problems import ApiError
from api.requests import Query, authorize, authorize_actor
from riskhub.auth import Scope
from riskhub.snapshot import format_instant, parse_instant
from riskhub.store import Store
from riskhub.store.exits import EpisodeFilter, EpisodeKey
from riskhub.strict_json import violation

_SHOWN = (
    *("rule", "kind", "world_id", "stage", "action", "target_fraction", "severity", "mode"),
    *("opened_at", "closed_at", "closed_because", "value", "worst"),
    *("acknowledged_at", "acknowledged_by", "evidence"),
)

router = APIRouter(
    prefix="/risk-hub/exit-signals",
    tags=["exit signals"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.get(
    "",
    summary="What the exit engine has told",
    description=(
        "Episodes with their signals; what opened last is first. A page; the `Link` header with "
        '`rel="next"` leads to the next one. Each signal also comes as an event `exit_signal` of '
        "the ControlBus, and on the Redis stream `quantum:stream:exit.signal`."
    ),
    responses=described.EPISODES,
    openapi_extra=described.LIST,
)
async def list_exit_signals(request: Request) -> Response:
    """A page of episodes."""
    store = authorize(request, Scope.READ).hub.store
    query = Query(request, described.LIST_NAMES)
    world_id = query.world("world")
    which = EpisodeFilter(
        world_id=world_id,
        stage=query.label("stage"),
        rule=query.label("rule"),
        is_open=query.flag("open") if "open" in query else None,
        since=query.instant("since"),
    )
    page = await asyncio.to_thread(
        _page, store, which, query.limit(), _key_of(query.text("cursor"))
    )
    return page_answer(request, *page)


@router.get(
    "/{episode_id}",
    summary="An episode of the exit engine",
    responses=described.EPISODE | openapi.problems(HTTPStatus.NOT_FOUND),
    openapi_extra=described.ONE,
)
async def get_exit_signal(request: Request) -> Response:
    """One episode with its signals."""
    store = authorize(request, Scope.READ).hub.store
    Query(request, ())
    episode_id = _episode_id_of(request)
    return _found(episode_id, await asyncio.to_thread(store.exit_episode, episode_id))


@router.post(
    "/{episode_id}/ack",
    summary="Note that somebody has seen an episode",
    description=(
        "Who acknowledges it first stays; to do it again is a success that changes nothing. It "
        "closes nothing: an episode ends when its number is back."
    ),
    responses=described.EPISODE | openapi.problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    openapi_extra=described.ACK,
)
async def acknowledge(request: Request) -> Response:
    """Note who has seen an episode."""
    edge, actor = authorize_actor(request)
    Query(request, ())
    episode_id = _episode_id_of(request)
    row = await asyncio.to_thread(
        edge.hub.store.acknowledge, episode_id, by=actor, now=edge.hub.clock()
    )
    return _found(episode_id, row)


def _episode_id_of(request: Request) -> str:
    episode_id: str = request.path_params["episode_id"]
    if not re.fullmatch(described.EPISODE_ID, episode_id):
        raise violation("episode_id", "must be 20 hexadecimal digits")
    return episode_id


def _found(episode_id: str, row: dict[str, Any] | None) -> Response:
    if row is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"there is no episode {episode_id}")
    return json_answer(_text(_shown(row)))


def _page(
    store: Store, which: EpisodeFilter, limit: int, after: EpisodeKey | None
) -> tuple[str, str | None]:
    page = store.exit_episodes(which, limit=limit, after=after)
    next_cursor = None
    if page.next_key is not None:
        opened_at, episode_id = page.next_key
        next_cursor = f"{format_instant(opened_at)}_{episode_id}"
    return _text({"exit_signals": list(map(_shown, page.rows)), "next": next_cursor}), next_cursor


def _key_of(cursor: str | None) -> EpisodeKey | None:
    if cursor is None:
        return None
    instant, _, episode_id = cursor.rpartition("_")
    try:
        if not re.fullmatch(described.EPISODE_ID, episode_id):
            raise ValueError("no episode")
        opened_at: datetime = parse_instant(instant)
    except ValueError as error:
        raise violation("cursor", "is not a cursor that this hub gave") from error
    return opened_at, episode_id


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {"episode_id": row["id"]} | {name: row[name] for name in _SHOWN}
    return shown | {"signals": row["history"]}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, default=format_instant, allow_nan=False)
