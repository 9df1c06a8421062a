"""The gate over HTTP: may this position be this large, and what the budgets are."""

import asyncio
import json
from bisect import bisect_right
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import redis
from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from api import openapi
from api.answers import json_answer, page_answer
from api.edge import Edge
from api.openapi import budgets as described
from api.problems import ApiError
from api.requests import Query, authorize, read_body
from riskhub.auth import Scope
from riskhub.governor.gate import LARGEST_NOTIONAL, Decision
from riskhub.governor.inputs import CLUSTER_MARK, PORTFOLIO_KEY
from riskhub.governor.inputs import _number as finite_number
from riskhub.governor.published import Published, read_published
from riskhub.strict_json import Document, parse_json, violation

_CHECK = ("symbol", "position_notional", "reduce_only")
_LIST = ("clusters", "limit", "cursor")
_LIST_WITHIN_SEC = 2.0
_LARGEST_STATE_BYTES = 4096
_STATE_FIELDS = frozenset({"equity_usd", "drawdown", "timestamp"})
_AWAY = "the budgets can't be read: Redis is away"

router = APIRouter(
    tags=["budgets"],
    responses=openapi.problems(
        HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY
    ),
)


@router.post(
    "/budget/check",
    summary="May this position be this large?",
    description=(
        "Holds a position against its symbol's budget. Not allowed is only what exceeds a budget "
        "of mode `enforce` that is there, well-formed and not stale; everything else is allowed, "
        "and the reason says why. A position over its budget is told on the stream "
        "`quantum:stream:budget.violation`, in shadow mode too."
    ),
    responses=described.CHECKED,
    openapi_extra=described.CHECK,
)
async def check_budget(request: Request) -> Response:
    """Hold a position against its symbol's budget."""
    gatekeeper = authorize(request, Scope.READ).gatekeeper
    query = Query(request, _CHECK)
    symbol = _required(query.label("symbol"), "symbol")
    decision = await gatekeeper.check(
        symbol, _notional(query.text("position_notional")), reduce_only=query.flag("reduce_only")
    )
    response = json_answer(_decided(decision))
    found = decision.violation
    if found is not None:
        response.background = BackgroundTask(gatekeeper.write_down, found)
    return response


@router.get(
    "/budget/{symbol:path}",
    summary="The budget of a symbol",
    description="As it stands in Redis, also when it is stale.",
    responses=described.ONE_BUDGET
    | openapi.problems(
        HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE
    ),
    openapi_extra=described.OF_SYMBOL,
)
async def get_budget(request: Request) -> Response:
    """The budget of a symbol as it stands in Redis."""
    edge = authorize(request, Scope.READ)
    Query(request, ())
    symbol: str = request.path_params["symbol"]
    if not (1 <= len(symbol) <= 128 and symbol.isprintable()):
        raise violation("symbol", "must be 1 to 128 printable characters")
    match await edge.gatekeeper.budget(symbol):
        case Published() as budget:
            return json_answer(json.dumps(_shown(edge, budget, edge.now()), allow_nan=False))
        case "redis_unavailable":
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, _AWAY)
        case "budget_malformed":
            raise ApiError(HTTPStatus.BAD_GATEWAY, f"the budget of {symbol} is malformed")
    raise ApiError(HTTPStatus.NOT_FOUND, f"{symbol} has no budget")


@router.get(
    "/budgets",
    summary="The budgets of all symbols",
    description=(
        "A page of them, by symbol, as they stand in Redis, also those that are stale. Malformed "
        'ones are left out. The `Link` header with `rel="next"` leads to the next page.'
    ),
    responses=described.BUDGET_PAGE | openapi.problems(HTTPStatus.SERVICE_UNAVAILABLE),
    openapi_extra=described.LIST,
)
async def list_budgets(request: Request) -> Response:
    """A page of budgets."""
    edge = authorize(request, Scope.READ)
    query = Query(request, _LIST)
    clusters, limit, after = query.flag("clusters"), query.limit(), query.label("cursor")
    page = await asyncio.to_thread(_page, edge, clusters, limit, after)
    return page_answer(request, *page)


@router.post("/test/inject_portfolio_state", include_in_schema=False)
async def inject_portfolio_state(request: Request) -> Response:
    """Write a portfolio state as its producer would: only where the settings say test mode."""
    edge = authorize(request, Scope.WRITE)
    if not edge.settings.governor.test_mode:
        raise ApiError(HTTPStatus.FORBIDDEN, "only in test mode: P28_TEST_MODE is not 1")
    raw = await read_body(request, _LARGEST_STATE_BYTES, edge.settings.body_timeout_sec)
    state = _state(parse_json(raw), edge.now())
    try:
        await asyncio.to_thread(_inject, edge.budgets, state)
    except (redis.RedisError, OSError) as error:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "Redis is away") from error
    return json_answer(json.dumps({"injected": state}))


def _required(text: str | None, name: str) -> str:
    if text is None:
        raise violation(name, "is required")
    return text


def _notional(text: str | None) -> float:
    notional = finite_number(_required(text, "position_notional"))
    if notional is None or abs(notional) > LARGEST_NOTIONAL:
        raise violation(
            "position_notional",
            f"must be a finite number of USD, at most {LARGEST_NOTIONAL:g} either way",
        )
    return notional


def _decided(decision: Decision) -> str:
    return json.dumps(
        {
            "symbol": decision.symbol,
            "position_notional": decision.position_notional,
            "allowed": decision.allowed,
            "would_block": decision.would_block,
            "reason": decision.reason,
            "reduce_only": decision.reduce_only,
            "budget_usd": decision.budget_usd,
            "over_budget": decision.over_budget,
            "mode": decision.mode,
            "age_sec": decision.age_sec,
            "timestamp": int(decision.at),
        },
        allow_nan=False,
    )


def _shown(edge: Edge, budget: Published, now: float) -> dict[str, Any]:
    age = budget.age_sec(now)
    return {
        "symbol": budget.symbol,
        "budget_usd": budget.budget_usd,
        "mode": budget.mode,
        "timestamp": budget.timestamp,
        **budget.told,
        "age_sec": age,
        "stale": age >= edge.settings.governor.gate_stale_sec,
    }


def _page(edge: Edge, clusters: bool, limit: int, after: str | None) -> tuple[str, str | None]:
    now = edge.now()
    try:
        found = read_published(edge.budgets, now, within_sec=_LIST_WITHIN_SEC)
    except (redis.RedisError, OSError, ValueError) as error:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, _AWAY) from error
    symbols = [symbol for symbol in found if symbol.startswith(CLUSTER_MARK) == clusters]
    start = 0 if after is None else bisect_right(symbols, after)
    page: Sequence[str] = symbols[start : start + limit]
    next_cursor = page[-1] if start + limit < len(symbols) else None
    shown = [_shown(edge, found[symbol], now) for symbol in page]
    return json.dumps({"budgets": shown, "next": next_cursor}, allow_nan=False), next_cursor


def _inject(client: redis.Redis, state: dict[str, float]) -> None:
    client.hset(PORTFOLIO_KEY, mapping={name: repr(value) for name, value in state.items()})


def _state(document: Document, now: float) -> dict[str, float]:
    """What a producer would write. Raises `ContractViolation`, naming the field."""
    if unknown := sorted(document.keys() - _STATE_FIELDS):
        raise violation(unknown[0], "is not a field of a portfolio state")
    state = {"drawdown": 0.0, "timestamp": int(now)} | document
    for name in ("equity_usd", "drawdown", "timestamp"):
        value = state.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise violation(name, "must be a number")
    if state["equity_usd"] <= 0:
        raise violation("equity_usd", "must be greater than 0")
    if not 0 <= state["drawdown"] <= 1:
        raise violation("drawdown", "must be from 0 to 1")
    return state
