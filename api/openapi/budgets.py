"""Budgets and the gate as the OpenAPI document has them: USD, and stress from 0 to 1."""

from typing import get_args

from api.openapi.parts import (
    FRACTION,
    FRACTION_OR_NULL,
    LABEL,
    LINK,
    NEXT,
    SECURITY,
    Json,
    array_of,
    body,
    object_of,
)
from riskhub.governor.gate import LARGEST_NOTIONAL, Reason, Unusable

_MODE: Json = {"enum": ["shadow", "enforce"]}
_REASONS = [
    reason
    for each in get_args(Reason)
    for reason in (get_args(each) if each is Unusable else [each])
]
_USD: Json = {"type": "number", "minimum": 0}
_AGE: Json = {"type": "number", "minimum": 0}
_BUDGET = object_of(
    {
        "symbol": {"type": "string", "description": "Of a cluster's budget `cluster:{id}`."},
        "budget_usd": _USD,
        "stress_factor": FRACTION_OR_NULL | {"description": "0 is calm, 1 the most."},
        "equity_usd": FRACTION_OR_NULL | {"description": "Of the whole portfolio."},
        "portfolio_heat": FRACTION_OR_NULL,
        "cluster_stress": FRACTION_OR_NULL,
        "vol_regime": FRACTION_OR_NULL,
        "mode": _MODE,
        "timestamp": FRACTION | {"description": "When it was computed, unix seconds."},
        "base_risk_pct": FRACTION_OR_NULL
        | {"description": "The share of the equity that an unstressed symbol may risk."},
        "age_sec": _AGE,
        "stale": {
            "type": "boolean",
            "description": "Whether it is too old to be held against a position.",
        },
    },
    "A budget as it stands in Redis. Null: the hash does not say.",
)
_DECISION = object_of(
    {
        "symbol": {"type": "string"},
        "position_notional": FRACTION | {"description": "As it was asked for."},
        "allowed": {"type": "boolean", "description": "Whether the position may be taken."},
        "would_block": {
            "type": "boolean",
            "description": "Whether it is over its budget. In shadow mode it is allowed all the "
            "same.",
        },
        "reason": {
            "enum": _REASONS,
            "description": "`no_budget`, `budget_stale`, `budget_malformed` and "
            "`redis_unavailable`: there was nothing to hold it against.",
        },
        "reduce_only": {"type": "boolean"},
        "budget_usd": {"type": ["number", "null"]},
        "over_budget": {
            "type": ["number", "null"],
            "description": "By how many USD the absolute notional exceeds the budget; null where "
            "it was held against none.",
        },
        "mode": {"enum": ["shadow", "enforce", None], "description": "Of the budget."},
        "age_sec": {"type": ["number", "null"], "description": "Of the budget."},
        "timestamp": {"type": "integer", "description": "Of the check, unix seconds."},
    },
    "What the gate says to a position.",
)

_SYMBOL: Json = {
    "schema": LABEL,
    "description": "The symbol; `cluster:{id}` is the budget of a cluster.",
    "example": "BTCUSDT",
}
CHECK: Json = {
    "parameters": [
        {"name": "symbol", "in": "query", "required": True} | _SYMBOL,
        {
            "name": "position_notional",
            "in": "query",
            "required": True,
            "schema": {
                "type": "number",
                "minimum": -LARGEST_NOTIONAL,
                "maximum": LARGEST_NOTIONAL,
            },
            "description": "Of the position as it would be, USD. Of a short it is negative; its "
            "absolute value counts.",
            "example": 1500.0,
        },
        {
            "name": "reduce_only",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean", "default": False},
            "description": "Whether the order can only make the position smaller: never blocked.",
        },
    ],
    **SECURITY,
}
CHECKED: dict[int | str, Json] = {200: body("The decision", _DECISION)}
OF_SYMBOL: Json = {
    "parameters": [{"name": "symbol", "in": "path", "required": True} | _SYMBOL],
    **SECURITY,
}
ONE_BUDGET: dict[int | str, Json] = {200: body("The budget", _BUDGET)}
LIST: Json = {
    "parameters": [
        {
            "name": "clusters",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean", "default": False},
            "description": "Those of the clusters instead of the symbols'.",
        },
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
            "description": "How many a page holds at most.",
        },
        {
            "name": "cursor",
            "in": "query",
            "required": False,
            "schema": LABEL,
            "description": "From the page before.",
        },
    ],
    **SECURITY,
}
BUDGET_PAGE: dict[int | str, Json] = {
    200: body("A page of budgets", object_of({"budgets": array_of(_BUDGET), "next": NEXT}))
    | {"headers": LINK}
}
