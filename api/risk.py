"""The risk numbers of one world: the newest, of one version, or a page by `as_of`."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer, page_answer
from api.problems import ApiError
from api.requests import Query, authorize, world_of
from riskhub.auth import Scope
from riskhub.risk import format_level, parse_level
from riskhub.snapshot import format_instant, parse_instant
from riskhub.store import Store
from riskhub.store.numbers import NumbersFilter, NumbersKey, Row
from riskhub.strict_json import violation

_OF_A_PAGE = ("as_of_from", "as_of_to", "limit", "cursor")
_ASKED = ("version", "stage", "method", "level", *_OF_A_PAGE)

router = APIRouter(
    prefix="/risk-hub/worlds/{world_id}/risk",
    tags=["risk"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.get(
    "",
    summary="Risk numbers, each with what it was made from",
    description=(
        "Of the newest snapshot that is measured (the greatest `as_of`, then the later landing), "
        "or of one `version`; expired or not. With `as_of_from`, `as_of_to`, `limit` or `cursor` a "
        'page, newest first, whose `Link` header with `rel="next"` leads to the next one. What is '
        "given applies together. A `method` or `level` that this world's numbers do not have is a "
        "422 that names those there are. A rejected snapshot has no numbers: asked for by "
        "`version`, the 404 says why it was rejected."
    ),
    responses=openapi.RISK,
    openapi_extra=openapi.parameters(*_ASKED),
)
async def get_risk(request: Request) -> Response:
    """The newest numbers, those of a version, or a page."""
    store = authorize(request, Scope.READ).hub.store
    world_id = world_of(request)
    query = Query(request, _ASKED)
    which = NumbersFilter(
        version=query.label("version"),
        stage=query.label("stage"),
        since=query.instant("as_of_from"),
        up_to=query.instant("as_of_to"),
        method=query.label("method"),
        level=_level(query.text("level")),
    )
    if not any(name in query for name in _OF_A_PAGE):
        return json_answer(await asyncio.to_thread(_one, store, world_id, which))
    after = _key(query.text("cursor"))
    answer = partial(_page, store, world_id, which, query.limit(), after)
    body, next_cursor = await asyncio.to_thread(answer)
    return page_answer(request, body, next_cursor)


def _one(store: Store, world_id: str, which: NumbersFilter) -> str:
    rows = store.numbers(world_id, which, limit=1).rows
    if not rows:
        raise ApiError(HTTPStatus.NOT_FOUND, _why_none(store, world_id, which.version))
    _check_kinds(store, world_id, which, rows)
    return _text(rows[0])


def _page(
    store: Store, world_id: str, which: NumbersFilter, limit: int, after: NumbersKey | None
) -> tuple[str, str | None]:
    page = store.numbers(world_id, which, limit=limit, after=after)
    if after is None:  # who has begun to walk is led to the end
        _check_kinds(store, world_id, which, page.rows)
    next_cursor = _cursor(page.next_key) if page.next_key else None
    return _text({"risk": page.rows, "next": next_cursor}), next_cursor


def _why_none(store: Store, world_id: str, version: str | None) -> str:
    reasons = None if version is None else store.rejection_of(world_id, version)
    if reasons is None:
        return f"world {world_id} has no such risk numbers"
    return f"version {version} of world {world_id} was rejected: {'; '.join(reasons)}"


def _check_kinds(store: Store, world_id: str, which: NumbersFilter, found: Sequence[Row]) -> None:
    """Refuse a method or level that neither these snapshots nor the world's newest has.

    A filter that is misspelt must not look like numbers that are missing. Where no tails are at
    all, there is nothing to tell it by.

    Raises:
        ContractViolation: naming the parameter, and what there is.
    """
    if (which.method or which.level) is None or any(row["tails"] for row in found):
        return
    newest = store.numbers(world_id, limit=1).rows
    kinds = store.tail_kinds({row["position"] for row in (*found, *newest)})
    for name, asked, held in (
        ("method", which.method, {method for method, _ in kinds}),
        ("level", which.level, {level for _, level in kinds}),
    ):
        if asked is not None and held and asked not in held:
            raise violation(
                name, f"is not one of these numbers; there are {', '.join(sorted(held))}"
            )


def _level(text: str | None) -> str | None:
    """A confidence level as the store writes it."""
    try:
        return None if text is None else format_level(parse_level(text))
    except ValueError as error:
        raise violation("level", "must be a confidence level such as 0.99") from error


def _cursor(key: NumbersKey) -> str:
    as_of, position = key
    return f"{format_instant(as_of)}_{position}"


def _key(cursor: str | None) -> NumbersKey | None:
    if cursor is None:
        return None
    as_of, _, position = cursor.rpartition("_")
    try:
        if not (position.isascii() and position.isdecimal() and len(position) <= 18):
            raise ValueError("no position")
        return parse_instant(as_of), int(position)
    except ValueError as error:
        raise violation("cursor", "is not a cursor that this hub gave") from error


def _text(document: Row) -> str:
    return json.dumps(document, default=format_instant, allow_nan=False)
