"""What the descriptions of all routes share: kinds of values, parameters, refusals."""

from http import HTTPStatus
from typing import Any, get_args

from api.problems import MEDIA_TYPE, Problem
from riskhub.hub import MAX_LIMIT
from riskhub.risk import Method

Json = dict[str, Any]
JSON = "application/json"

LABEL: Json = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[ -~]+$"}
WORLD: Json = {"type": "string", "pattern": r"^[A-Za-z0-9._:-]{1,128}$"}
INSTANT: Json = {
    "type": "string",
    "format": "date-time",
    "examples": ["2026-01-31T21:00:00Z", "2026-01-31T16:00:00-05:00"],
}
DIGEST: Json = {"type": "string", "pattern": "^(sha256|blake3):[0-9a-f]{64}$"}
LEVEL_PARAMETER: Json = {"type": "string", "pattern": r"^0\.[5-9][0-9]{0,38}$"}
COUNT: Json = {"type": "integer", "minimum": 0}
FRACTION: Json = {"type": "number"}
FRACTION_OR_NULL: Json = {"type": ["number", "null"]}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
METHOD: Json = {
    "type": "string",
    "description": f"One of {', '.join(f'`{method}`' for method in get_args(Method))}.",
}
LEVEL: Json = {"type": "string", "description": "The confidence level, an exact decimal."}
SOURCE: Json = TEXT_OR_NULL | {
    "description": "`realized_returns`, `covariance`, `prices` or `fallback`; null: none."
}
CODE_VERSION: Json = {"type": "string", "description": "The code that made these numbers."}
SNAPSHOT_DIGEST: Json = {"type": "string", "description": "The snapshot's `hash`."}
OF_A_SNAPSHOT: Json = {
    "world_id": WORLD,
    "version": {"type": "string"},
    "as_of": INSTANT,
    "stage": {"type": "string"},
    "position": {"type": "integer", "description": "The snapshot's place in landing order."},
}
NEXT: Json = {
    "type": ["string", "null"],
    "description": "The next page's `cursor`; null at the end.",
}
AGE: Json = {
    "type": "number",
    "minimum": 0,
    "description": "How old the snapshot is by its `as_of`, in seconds; 0 when it is ahead of the "
    "hub's clock.",
}
AGE_HEADER: Json = {
    "X-Snapshot-Age": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "How old the snapshot is by its `as_of`, in whole seconds.",
    }
}
LINK: Json = {"Link": {"schema": {"type": "string"}, "description": 'rel="next"'}}


def page_of(largest: int) -> Json:
    """The parameter `limit` where pages are shorter than elsewhere."""
    schema = {"type": "integer", "minimum": 1, "maximum": largest, "default": min(50, largest)}
    return {"schema": schema, "description": "How many a page holds at most."}


_PARAMETERS: dict[str, Json] = {
    "dry_run": {
        "schema": {"type": "boolean", "default": False},
        "description": "Check, and say what would happen; store nothing.",
    },
    "stage": {"schema": LABEL, "description": "Only of this stage."},
    "actor": {"schema": LABEL, "description": "Only by this actor."},
    "include_expired": {
        "schema": {"type": "boolean", "default": False},
        "description": "Also those whose `ttl_sec` has run out.",
    },
    "expand": {
        "schema": {"type": "boolean", "default": False},
        "description": "With large fields in place of the references to them.",
    },
    "limit": page_of(MAX_LIMIT),
    "cursor": {"schema": {"type": "string"}, "description": "From the page before."},
    "as_of_from": {"schema": INSTANT, "description": "Only with an `as_of` at or after it."},
    "as_of_to": {"schema": INSTANT, "description": "Only with an `as_of` at or before it."},
    "version": {"schema": LABEL, "description": "This version."},
    "as_of": {"schema": INSTANT, "description": "The greatest `as_of` at or before it."},
    "known_at": {
        "schema": INSTANT,
        "description": "As the hub would have answered at this moment.",
    },
    "method": {
        "schema": LABEL,
        "description": f"Only tails by this method. {METHOD['description']}",
    },
    "level": {
        "schema": LEVEL_PARAMETER,
        "description": "Only tails at this confidence level: `0.99` is 99 %.",
    },
}
WORLD_PARAMETER: Json = {
    "name": "world_id",
    "in": "path",
    "required": True,
    "schema": WORLD,
    "description": "The world.",
    "example": "equities",
}
PRODUCER: list[Json] = [
    {
        "name": "X-Actor",
        "in": "header",
        "required": True,
        "schema": LABEL,
        "description": "Who produced the snapshot.",
        "example": "optimizer",
    },
    {
        "name": "X-Stage",
        "in": "header",
        "required": True,
        "schema": LABEL,
        "description": "Such as backtest, paper or live.",
        "example": "paper",
    },
]
SECURITY: Json = {"security": [{"bearer": []}]}


def parameters(*names: str, **own: Json) -> Json:
    """What a route of one world takes in its path and query.

    Args:
        own: what a parameter is on this route, where that is another thing than elsewhere.
    """
    known = _PARAMETERS | own
    query = [{"name": name, "in": "query", "required": False} | known[name] for name in names]
    return {"parameters": [WORLD_PARAMETER, *query], **SECURITY}


def problems(*statuses: HTTPStatus) -> dict[int | str, Json]:
    """The entries of refusals."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }


def json_object(description: str) -> dict[int | str, Json]:
    """The entry of a small JSON object of text."""
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return {200: {"description": description, "content": {JSON: {"schema": schema}}}}


def object_of(fields: Json, description: str = "") -> Json:
    """The schema of an object that has these fields, all of them, and no other."""
    return {
        "type": "object",
        "required": [*fields],
        "additionalProperties": False,
        "properties": fields,
    } | ({"description": description} if description else {})


def array_of(items: Json, description: str = "") -> Json:
    """The schema of a list."""
    schema: Json = {"type": "array", "items": items}
    return schema | ({"description": description} if description else {})


def one_or_page(description: str, name: str, schema: Json) -> dict[int | str, Json]:
    """The entries of an answer about one snapshot, or a page of those under a name."""
    page = object_of({name: array_of(schema), "next": NEXT})
    return {
        200: body(
            f"{description} of one snapshot, or a page; the header with the age is that of one",
            {"anyOf": [schema, page]},
        )
        | {"headers": LINK | AGE_HEADER},
        **problems(HTTPStatus.NOT_FOUND),
    }


def body(description: str, schema: Json) -> Json:
    """An answer of JSON."""
    return {"description": description, "content": {JSON: {"schema": schema}}}
