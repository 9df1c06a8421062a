"""What the OpenAPI document says of the hub's routes: the contract as a schema, with examples."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.problems import MEDIA_TYPE, Problem
from riskhub.hub import MAX_LIMIT
from riskhub.snapshot import DEFAULT_TTL_SEC, MAX_TTL_SEC, parse_instant, validate

_Json = dict[str, Any]
_JSON = "application/json"

_LABEL: _Json = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[ -~]+$"}
_WORLD: _Json = {"type": "string", "pattern": r"^[A-Za-z0-9._:-]{1,128}$"}
_INSTANT: _Json = {
    "type": "string",
    "format": "date-time",
    "examples": ["2026-01-31T21:00:00Z", "2026-01-31T16:00:00-05:00"],
}
_DIGEST: _Json = {"type": "string", "pattern": "^(sha256|blake3):[0-9a-f]{64}$"}
_REF: _Json = {
    "type": "string",
    "description": "A reference that the configured blob store gave; another one is never fetched.",
}

_EXAMPLE: _Json = {
    "as_of": "2022-12-28T21:00:00Z",
    "version": "2022-12-28",
    "weights": {"BAC": 0.5, "JPM": 0.5},
    "covariance": {"BAC,BAC": 0.0004, "BAC,JPM": 0.0003, "JPM,JPM": 0.0003},
    "realized_returns": {"portfolio": [0.0031, -0.0112, 0.0048]},
    "stress": {"2008": {"pnl": -0.38}},
    "ttl_sec": 900,
}
# As the hub would store it, its hash included.
_STORED_EXAMPLE: _Json = json.loads(
    validate(
        _EXAMPLE,
        world_id="equities",
        actor="optimizer",
        stage="paper",
        received_at=parse_instant("2022-12-28T21:00:01.482031Z"),
    ).body
)

_NUMBERS: _Json = {"type": "object", "additionalProperties": {"type": "number"}}

SNAPSHOT: _Json = {
    "type": "object",
    "required": ["as_of", "version", "weights"],
    "additionalProperties": False,
    "properties": {
        "world_id": _WORLD | {"description": "The world; as in the path, where there is one."},
        "as_of": _INSTANT | {"description": "What instant it describes; not in the future."},
        "version": _LABEL | {"description": "Unique in its world, immutable."},
        "weights": _NUMBERS
        | {
            "minProperties": 1,
            "description": "Symbol to weight; sums to 1 ± 0.001. Shorts below 0.",
        },
        "covariance": _NUMBERS
        | {
            "minProperties": 1,
            "description": 'Pairs "A,B" to per-day simple-return covariance, symmetric; the '
            "variance of each symbol is present.",
        },
        "covariance_ref": _REF,
        "realized_returns": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "maxItems": 200_000,
                "items": {"type": "number"},
            },
            "description": "Series to simple daily returns, oldest first.",
        },
        "realized_returns_ref": _REF,
        "stress": {
            "type": "object",
            "additionalProperties": _NUMBERS,
            "description": "Scenario to measure to number.",
        },
        "stress_ref": _REF,
        "constraints": {
            "type": "object",
            "description": "Free; `candidate_id` with `candidate_weight` in (0, 1] asks for "
            "incremental VaR and ES.",
        },
        "ttl_sec": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TTL_SEC,
            "default": DEFAULT_TTL_SEC,
            "description": "How long it is served as current, from the hub's receipt; 900.0 is no "
            "integer.",
        },
        "provenance": {
            "type": "object",
            "description": "Free; `actor` and `stage` are those of the headers.",
        },
        "hash": _DIGEST | {"description": "Must be the digest of the body when it is given."},
        "created_at": _INSTANT | {"description": "Kept as `provenance.produced_at`."},
    },
    "examples": [_EXAMPLE],
}
STORED_SNAPSHOT: _Json = {
    "type": "object",
    "required": [
        *("world_id", "as_of", "version", "weights", "ttl_sec", "provenance"),
        *("created_at", "hash"),
    ],
    "properties": SNAPSHOT["properties"]
    | {
        "created_at": _INSTANT | {"description": "When the hub received it."},
        "hash": _DIGEST | {"description": "Of the content, without `hash` and `created_at`."},
    },
    "examples": [_STORED_EXAMPLE],
}

_PARAMETERS: dict[str, _Json] = {
    "dry_run": {
        "schema": {"type": "boolean", "default": False},
        "description": "Check, and say what would happen; store nothing.",
    },
    "stage": {"schema": _LABEL, "description": "Only of this stage."},
    "actor": {"schema": _LABEL, "description": "Only by this actor."},
    "include_expired": {
        "schema": {"type": "boolean", "default": False},
        "description": "Also those whose `ttl_sec` has run out.",
    },
    "expand": {
        "schema": {"type": "boolean", "default": False},
        "description": "With large fields in place of the references to them.",
    },
    "limit": {
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
        "description": "How many a page holds at most.",
    },
    "cursor": {"schema": {"type": "string"}, "description": "From the page before."},
    "as_of_from": {"schema": _INSTANT, "description": "Only with an `as_of` at or after it."},
    "as_of_to": {"schema": _INSTANT, "description": "Only with an `as_of` at or before it."},
    "version": {"schema": _LABEL, "description": "This version."},
    "as_of": {"schema": _INSTANT, "description": "The greatest `as_of` at or before it."},
    "known_at": {
        "schema": _INSTANT,
        "description": "As the hub would have answered at this moment.",
    },
    "method": {
        "schema": _LABEL,
        "description": "Only tails by this method, such as `historical` or `normal`.",
    },
    "level": {
        "schema": {"type": "string", "pattern": r"^0\.[5-9][0-9]{0,38}$"},
        "description": "Only tails at this confidence level: `0.99` is 99 %.",
    },
}
_WORLD_PARAMETER: _Json = {
    "name": "world_id",
    "in": "path",
    "required": True,
    "schema": _WORLD,
    "description": "The world.",
    "example": "equities",
}
_PRODUCER: list[_Json] = [
    {
        "name": "X-Actor",
        "in": "header",
        "required": True,
        "schema": _LABEL,
        "description": "Who produced the snapshot.",
        "example": "optimizer",
    },
    {
        "name": "X-Stage",
        "in": "header",
        "required": True,
        "schema": _LABEL,
        "description": "Such as backtest, paper or live.",
        "example": "paper",
    },
]
SECURITY: _Json = {"security": [{"bearer": []}]}


def parameters(*names: str) -> _Json:
    """What a route of one world takes in its path and query."""
    query = [
        {"name": name, "in": "query", "required": False, **_PARAMETERS[name]} for name in names
    ]
    return {"parameters": [_WORLD_PARAMETER, *query], **SECURITY}


def problems(*statuses: HTTPStatus) -> dict[int | str, _Json]:
    """The entries of refusals."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }


def json_object(description: str) -> dict[int | str, _Json]:
    """The entry of a small JSON object of text."""
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return {200: {"description": description, "content": {_JSON: {"schema": schema}}}}


def _body(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


POST: _Json = {
    **parameters("dry_run"),
    "requestBody": {"required": True, "content": {_JSON: {"schema": SNAPSHOT}}},
}
POST["parameters"] += _PRODUCER
POST_RESPONSES: dict[int | str, _Json] = {
    201: _body("Stored for the first time; the stored body", STORED_SNAPSHOT),
    200: _body(
        "The same content was stored before; the stored body. With `dry_run`: what would happen",
        {
            "anyOf": [
                STORED_SNAPSHOT,
                {
                    "type": "object",
                    "required": ["dry_run", "status", "hash", "snapshot"],
                    "properties": {
                        "dry_run": {"const": True},
                        "status": {"enum": [200, 201]},
                        "hash": _DIGEST,
                        "snapshot": STORED_SNAPSHOT,
                    },
                },
            ]
        },
    ),
    **problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
}
ONE_SNAPSHOT: dict[int | str, _Json] = {
    200: _body("The stored body", STORED_SNAPSHOT),
    **problems(HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY),
}
_NEXT: _Json = {
    "type": ["string", "null"],
    "description": "The next page's `cursor`; null at the end.",
}
_LINK: _Json = {"Link": {"schema": {"type": "string"}, "description": 'rel="next"'}}
SNAPSHOT_PAGE: dict[int | str, _Json] = {
    200: _body(
        "A page",
        {
            "type": "object",
            "required": ["snapshots", "next"],
            "properties": {
                "snapshots": {"type": "array", "items": STORED_SNAPSHOT},
                "next": _NEXT,
            },
        },
    )
    | {"headers": _LINK},
    **problems(HTTPStatus.BAD_GATEWAY),
}

_COUNT: _Json = {"type": "integer", "minimum": 0}
_FRACTION: _Json = {"type": "number"}
_FRACTION_OR_NULL: _Json = {"type": ["number", "null"]}
_TEXT_OR_NULL: _Json = {"type": ["string", "null"]}
_TAIL_FIELDS: dict[str, _Json] = {
    "method": {"type": "string", "description": "Such as `historical` or `normal`."},
    "level": {"type": "string", "description": "The confidence level, an exact decimal."},
    "var": _FRACTION | {"description": "Value at risk: a loss, positive when money is lost."},
    "es": _FRACTION | {"description": "Expected shortfall: a loss, at least `var`."},
    "rank": {
        "type": ["integer", "null"],
        "description": "`var` is the rank-th worst return; null where the method has a formula.",
    },
    "var_next": _FRACTION_OR_NULL
    | {"description": "`var` had the convention picked the next rank; null where there is none."},
}
_NUMBERS_FIELDS: dict[str, _Json] = {
    "world_id": _WORLD,
    "version": {"type": "string"},
    "as_of": _INSTANT,
    "stage": {"type": "string"},
    "position": {"type": "integer", "description": "The snapshot's place in landing order."},
    "horizon_days": _COUNT | {"description": "How many days each loss is over."},
    "window": _COUNT | {"description": "How many daily returns were asked for."},
    "n": _COUNT | {"description": "How many daily returns there were."},
    "unavailable": _TEXT_OR_NULL
    | {"description": "Why there are no numbers: they are null then, never zero, and no tails."},
    "mean": _FRACTION_OR_NULL | {"description": "Mean return a day."},
    "volatility": _FRACTION_OR_NULL | {"description": "Standard deviation of returns a day."},
    "annualised_volatility": _FRACTION_OR_NULL | {"description": "The same a year of 252 days."},
    "max_drawdown": _FRACTION_OR_NULL
    | {"description": "Deepest in the window: a loss, positive, as a fraction of the peak."},
    "current_drawdown": _FRACTION_OR_NULL
    | {"description": "At its end: a loss, positive, as a fraction of the peak."},
    "gross": _FRACTION | {"description": "Sum of absolute weights."},
    "net": _FRACTION | {"description": "Sum of weights."},
    "largest": _FRACTION | {"description": "Greatest absolute weight."},
    "herfindahl": _FRACTION | {"description": "Sum of squared shares of `gross`, 0 to 1."},
    "effective_names": _FRACTION | {"description": "1 / `herfindahl`, a count."},
    "snapshot_digest": {"type": "string", "description": "The snapshot's `hash`."},
    "returns_source": _TEXT_OR_NULL | {"description": "Where the returns came from."},
    "returns_digest": _TEXT_OR_NULL | {"description": "Digest of the data behind the returns."},
    "code_version": {"type": "string", "description": "The code that made these numbers."},
    "tails": {
        "type": "array",
        "items": {"type": "object", "required": [*_TAIL_FIELDS], "properties": _TAIL_FIELDS},
        "description": "By method and level; only those asked for.",
    },
}
NUMBERS: _Json = {
    "type": "object",
    "required": [*_NUMBERS_FIELDS],
    "additionalProperties": False,
    "properties": _NUMBERS_FIELDS,
    "description": "One snapshot's risk numbers. Losses are positive; returns and losses are "
    "fractions of equity, over one day where nothing else is said.",
}
_RISK_PAGE: _Json = {
    "type": "object",
    "required": ["risk", "next"],
    "additionalProperties": False,
    "properties": {"risk": {"type": "array", "items": NUMBERS}, "next": _NEXT},
}
RISK: dict[int | str, _Json] = {
    200: _body("The numbers of one snapshot, or a page", {"anyOf": [NUMBERS, _RISK_PAGE]})
    | {"headers": _LINK},
    **problems(HTTPStatus.NOT_FOUND),
}

_LINES: _Json = {"application/x-ndjson": {"schema": {"type": "string"}}}
BATCH: _Json = {
    "parameters": _PRODUCER,
    "requestBody": {"required": True, "content": _LINES},
    **SECURITY,
}
BATCH_RESPONSES: dict[int | str, _Json] = {
    200: {"content": _LINES},
    **problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have the app describe these routes, and the way to authorize."""

    def document() -> _Json:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=routes,
            )
            schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["bearer"] = {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of the hub, when one is configured.",
            }
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
