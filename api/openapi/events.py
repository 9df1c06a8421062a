"""The feed of events as the OpenAPI document has it."""

from api.openapi.parts import (
    COUNT,
    INSTANT,
    JSON,
    SECURITY,
    WORLD,
    Json,
    array_of,
    object_of,
    page_of,
)
from riskhub.controlbus.events import TYPES
from riskhub.hub import MAX_LIMIT

LONGEST_WAIT_SEC = 30
EVENT_STREAM = "text/event-stream"

_TEXT: Json = {"type": "string"}
_CLOUD_EVENT: Json = {
    "type": "object",
    "description": "A CloudEvent 1.0; `docs/schemas` has the schema of each type's data. Later "
    "versions may add to both.",
    "required": ["specversion", "id", "source", "type", "time", "sequence", "partitionkey", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _TEXT | {"description": "Of what happened: the same however often it is told."},
        "source": _TEXT,
        "type": {"enum": [*TYPES]},
        "subject": _TEXT | {"description": "What it is about, such as `world/version`."},
        "time": INSTANT,
        "partitionkey": _TEXT | {"description": "The world, or the symbol of a budget."},
        "correlationid": _TEXT | {"description": "The `id` of the event that it goes back to."},
        "sequence": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {"type": "object"},
    },
}
_PAGE = object_of(
    {
        "events": array_of(_CLOUD_EVENT, "In the order in which they were committed."),
        "next": COUNT | {"description": "The `after` of the next request."},
    },
    "Events, as far as there are any.",
)
_SEQUENCE = "(latest|[0-9]{1,18})"

FEED: Json = {
    "parameters": [
        {
            "name": "after",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "pattern": f"^{_SEQUENCE}$"},
            "description": "Events behind this sequence: the `next` of the answer before. Left "
            "out: from the beginning. `latest`: from now on.",
            "example": "42",
        },
        {"name": "limit", "in": "query", "required": False, **page_of(MAX_LIMIT)},
        {
            "name": "wait",
            "in": "query",
            "required": False,
            "schema": {
                "type": "integer",
                "minimum": 0,
                "maximum": LONGEST_WAIT_SEC,
                "default": 0,
            },
            "description": "For so many seconds at most, wait until there is an event.",
        },
        {
            "name": "type",
            "in": "query",
            "required": False,
            "style": "form",
            "explode": False,
            "schema": {"type": "array", "minItems": 1, "items": {"enum": [*TYPES]}},
            "description": "Only of these types, with commas between them.",
        },
        {
            "name": "world",
            "in": "query",
            "required": False,
            "schema": WORLD,
            "description": "Only of this world; budget violations go by their symbol.",
        },
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
            "description": "As a client of server-sent events sends it when it comes back; it "
            "goes before `after`.",
        },
    ],
    **SECURITY,
}
FED: dict[int | str, Json] = {
    200: {
        "description": "Events; for who accepts server-sent events, a stream of them",
        "content": {JSON: {"schema": _PAGE}, EVENT_STREAM: {"schema": {"type": "string"}}},
        "headers": {"Link": {"schema": {"type": "string"}, "description": 'rel="next"'}},
    }
}
