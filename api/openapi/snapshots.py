"""Snapshots as the OpenAPI document has them: the contract as a schema, with examples."""

import json
from http import HTTPStatus

from api.openapi.parts import (
    AGE_HEADER,
    DIGEST,
    INSTANT,
    JSON,
    LABEL,
    LINK,
    NEXT,
    PRODUCER,
    SECURITY,
    WORLD,
    Json,
    body,
    parameters,
    problems,
)
from riskhub.snapshot import DEFAULT_TTL_SEC, MAX_TTL_SEC, parse_instant, validate

_REF: Json = {
    "type": "string",
    "description": "A reference that the configured blob store gave; another one is never fetched.",
}

_EXAMPLE: Json = {
    "as_of": "2022-12-28T21:00:00Z",
    "version": "2022-12-28",
    "weights": {"BAC": 0.5, "JPM": 0.5},
    "covariance": {"BAC,BAC": 0.0004, "BAC,JPM": 0.0003, "JPM,JPM": 0.0003},
    "realized_returns": {"portfolio": [0.0031, -0.0112, 0.0048]},
    "stress": {"2008": {"pnl": -0.38}},
    "ttl_sec": 900,
}
# As the hub would store it, its hash included.
_STORED_EXAMPLE: Json = json.loads(
    validate(
        _EXAMPLE,
        world_id="equities",
        actor="optimizer",
        stage="paper",
        received_at=parse_instant("2022-12-28T21:00:01.482031Z"),
    ).body
)

_NUMBERS: Json = {"type": "object", "additionalProperties": {"type": "number"}}

SNAPSHOT: Json = {
    "type": "object",
    "required": ["as_of", "version", "weights"],
    "additionalProperties": False,
    "properties": {
        "world_id": WORLD | {"description": "The world; as in the path, where there is one."},
        "as_of": INSTANT | {"description": "What instant it describes; not in the future."},
        "version": LABEL | {"description": "Unique in its world, immutable."},
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
        "hash": DIGEST | {"description": "Must be the digest of the body when it is given."},
        "created_at": INSTANT | {"description": "Kept as `provenance.produced_at`."},
    },
    "examples": [_EXAMPLE],
}
STORED_SNAPSHOT: Json = {
    "type": "object",
    "required": [
        *("world_id", "as_of", "version", "weights", "ttl_sec", "provenance"),
        *("created_at", "hash"),
    ],
    "properties": SNAPSHOT["properties"]
    | {
        "created_at": INSTANT | {"description": "When the hub received it."},
        "hash": DIGEST | {"description": "Of the content, without `hash` and `created_at`."},
    },
    "examples": [_STORED_EXAMPLE],
}

POST: Json = {
    **parameters("dry_run"),
    "requestBody": {"required": True, "content": {JSON: {"schema": SNAPSHOT}}},
}
POST["parameters"] += PRODUCER
POST_RESPONSES: dict[int | str, Json] = {
    201: body("Stored for the first time; the stored body", STORED_SNAPSHOT),
    200: body(
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
                        "hash": DIGEST,
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
ONE_SNAPSHOT: dict[int | str, Json] = {
    200: body("The stored body", STORED_SNAPSHOT) | {"headers": AGE_HEADER},
    **problems(HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY),
}
SNAPSHOT_PAGE: dict[int | str, Json] = {
    200: body(
        "A page",
        {
            "type": "object",
            "required": ["snapshots", "next"],
            "properties": {
                "snapshots": {"type": "array", "items": STORED_SNAPSHOT},
                "next": NEXT,
            },
        },
    )
    | {"headers": LINK},
    **problems(HTTPStatus.BAD_GATEWAY),
}

_LINES: Json = {"application/x-ndjson": {"schema": {"type": "string"}}}
BATCH: Json = {
    "parameters": PRODUCER,
    "requestBody": {"required": True, "content": _LINES},
    **SECURITY,
}
BATCH_RESPONSES: dict[int | str, Json] = {
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
