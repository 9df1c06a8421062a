"""What was made of a world's snapshots: of the newest, of one version, or a page by `as_of`.

Risk numbers, contributions and stress results are asked for and answered alike.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer, page_answer, with_age
from api.cursors import Key, cursor_of, key_of
from api.edge import edge_of
from api.problems import ApiError
from api.requests import Query
from riskhub.errors import ContractViolation
from riskhub.freshness import age_seconds
from riskhub.hub import MAX_LIMIT
from riskhub.risk import format_level, parse_level
from riskhub.snapshot import format_instant
from riskhub.store import Store
from riskhub.strict_json import violation

Row = dict[str, Any]

REFUSALS = openapi.problems(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
OF_A_PAGE = ("as_of_from", "as_of_to", "limit", "cursor")


class Found(Protocol):
    """A page of a store: its rows by `as_of`, and where the next one starts."""

    @property
    def rows(self) -> list[Row]: ...

    @property
    def next_key(self) -> Key | None: ...


class Read(Protocol):
    """Reads a page of the rows that were asked for."""

    def __call__(self, *, limit: int, after: Key | None = None) -> Found: ...


async def answer(
    request: Request,
    query: Query,
    name: str,
    read: Read,
    *,
    why_none: Callable[[], str],
    check: Callable[[Sequence[Row]], None] | None = None,
    show: Callable[[Row], Row] = lambda row: row,
    largest: int = MAX_LIMIT,
) -> Response:
    """The newest of what was asked for; a page of it when the query asks for one.

    Args:
        name: of a page's list.
        why_none: says why there is no newest one.
        check: refuses a filter by what was found.
        show: a row as it is served.
        largest: how long a page may be.
    """

    now = edge_of(request).hub.clock()

    def aged(row: Row) -> Row:
        shown = show(row)
        return shown | {"age_seconds": round(age_seconds(shown["as_of"], now), 3)}

    def newest() -> Row:
        rows = read(limit=1).rows
        if not rows:
            raise ApiError(HTTPStatus.NOT_FOUND, why_none())
        if check:
            check(rows)
        return aged(rows[0])

    def page(limit: int, after: Key | None) -> tuple[str, str | None]:
        found = read(limit=limit, after=after)
        if check and after is None:  # who has begun to walk is led to the end
            check(found.rows)
        next_cursor = cursor_of(found.next_key)
        return _text({name: list(map(aged, found.rows)), "next": next_cursor}), next_cursor

    if not any(each in query for each in OF_A_PAGE):
        row = await asyncio.to_thread(newest)
        return with_age(json_answer(_text(row)), row["age_seconds"])
    limit, after = query.limit(largest), key_of(query.text("cursor"))
    body, next_cursor = await asyncio.to_thread(page, limit, after)
    return page_answer(request, body, next_cursor)


def why_no_numbers(store: Store, world_id: str, version: str | None) -> str:
    """Why a world, or a version of it, has none of what is made of accepted snapshots."""
    reasons = None if version is None else store.rejection_of(world_id, version)
    if reasons is None:
        return f"world {world_id} has no such risk numbers"
    return f"version {version} of world {world_id} was rejected: {'; '.join(reasons)}"


def one_of(name: str, there_are: Iterable[str]) -> ContractViolation:
    """The refusal of a parameter that is none of those there are."""
    return violation(name, f"is not one of these numbers; there are {', '.join(there_are)}")


def level_of(query: Query) -> str | None:
    """The parameter `level`, as the store writes it."""
    text = query.text("level")
    try:
        return None if text is None else format_level(parse_level(text))
    except ValueError as error:
        raise violation("level", "must be a confidence level such as 0.99") from error


def _text(document: Row) -> str:
    return json.dumps(document, default=format_instant, allow_nan=False)
