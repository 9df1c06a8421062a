"""The freshness of worlds as the OpenAPI document has it."""

from api.openapi.parts import (
    INSTANT,
    LABEL,
    SECURITY,
    TEXT_OR_NULL,
    WORLD,
    Json,
    array_of,
    body,
    object_of,
)
from riskhub.freshness import Freshness, Severity

_AGE: Json = {"type": ["number", "null"], "minimum": 0}
_LIMIT: Json = {"type": "number", "minimum": 0}
_WORLD = object_of(
    {
        "world_id": WORLD,
        "stage": {"type": "string"},
        "state": {
            "enum": [*Freshness],
            "description": "`fresh`; `stale` or `critical`: beyond that limit, and still served; "
            "`expired`: beyond a limit, and nothing is alive to be served; `missing`: expected, or "
            "all that landed was rejected; `exempt`: never late.",
        },
        "severity": {
            "enum": [*Severity],
            "description": "By the limits alone; `missing` is critical.",
        },
        "newest_as_of": {**INSTANT, "type": ["string", "null"], "description": "Null: none."},
        "age_seconds": _AGE | {"description": "Of the newest snapshot, by the clock."},
        "open_age_seconds": _AGE | {"description": "The same in open hours."},
        "served": {"type": "boolean", "description": "Whether `latest` has one to give."},
        "stale_after_sec": _LIMIT | {"description": "Beyond it a world is late: a warning."},
        "critical_after_sec": _LIMIT | {"description": "Beyond it that is critical."},
        "calendar": {"type": "string", "description": "Of exchange-calendars; `24/7`: always."},
        "note": TEXT_OR_NULL | {"description": "Why the calendar could not be used."},
    },
    "One world and stage.",
)
FRESHNESS: dict[int | str, Json] = {
    200: body("The worlds, the most urgent first", object_of({"worlds": array_of(_WORLD)}))
}
FRESHNESS_PARAMETERS: Json = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": f"Only of this {name}.",
        }
        for name, schema in (("world", WORLD), ("stage", LABEL))
    ],
    **SECURITY,
}
