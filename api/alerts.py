"""Alerts over HTTP: what is wrong, and what was."""

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import page_answer
from api.openapi import alerts as described
from api.requests import Query, authorize
from riskhub.auth import Scope
from riskhub.snapshot import format_instant, parse_instant
from riskhub.store import Store
from riskhub.store.alerts import AlertKey
from riskhub.strict_json import violation

_SHOWN = (
    *("id", "key", "name", "severity", "state", "summary", "detail", "labels", "runbook"),
    *("first_seen", "last_seen", "opened_at", "resolved_at", "count"),
    *("acknowledged_by", "acknowledged_at", "notified"),
)

router = APIRouter(
    prefix="/risk-hub/alerts",
    tags=["alerts"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.get(
    "",
    summary="What is wrong",
    description=(
        "Alerts as `riskhub alerts` has them on record; what opened last is first. `watch` says "
        "who looked last, and when: while nobody watches, an empty list says nothing. A "
        'page; the `Link` header with `rel="next"` leads to the next one.'
    ),
    responses=described.ALERTS,
    openapi_extra=described.LIST,
)
async def list_alerts(request: Request) -> Response:
    """A page of alerts."""
    store = authorize(request, Scope.READ).hub.store
    query = Query(request, described.LIST_NAMES)
    is_open = query.flag("open") if "open" in query else None
    after = _key_of(query.text("cursor"))
    page = await asyncio.to_thread(_page, store, is_open, query.limit(), after)
    return page_answer(request, *page)


def _page(
    store: Store, is_open: bool | None, limit: int, after: AlertKey | None
) -> tuple[str, str | None]:
    page, watch = store.alerts(is_open=is_open, limit=limit, after=after), store.alert_watch()
    next_cursor = None
    if page.next_key is not None:
        opened_at, alert_id = page.next_key
        next_cursor = f"{format_instant(opened_at)}_{alert_id}"
    document: dict[str, Any] = {
        "alerts": [{name: row[name] for name in _SHOWN} for row in page.rows],
        "watch": watch and {name: watch[name] for name in ("writer", "at")},
        "next": next_cursor,
    }
    return json.dumps(document, default=format_instant, allow_nan=False), next_cursor


def _key_of(cursor: str | None) -> AlertKey | None:
    if cursor is None:
        return None
    instant, _, alert_id = cursor.rpartition("_")
    try:
        if not re.fullmatch("[0-9a-f]{20}", alert_id):
            raise ValueError("no alert")
        return parse_instant(instant), alert_id
    except ValueError as error:
        raise violation("cursor", "is not a cursor that this hub gave") from error
