"""Alerts as the OpenAPI document has them."""

from api.openapi.parts import (
    COUNT,
    INSTANT,
    LINK,
    NEXT,
    SECURITY,
    TEXT_OR_NULL,
    Json,
    array_of,
    body,
    object_of,
)
from riskhub.alerts.reconcile import Severity

_INSTANT_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_TEXT: Json = {"type": "string"}
_ALERT = object_of(
    {
        "id": _TEXT | {"description": "Of this one opening."},
        "key": _TEXT | {"description": "The same whenever it is the same trouble."},
        "name": _TEXT | {"description": "Of the kind of trouble, as Prometheus names alerts."},
        "severity": {"enum": [*Severity], "description": "The worst that it has been."},
        "state": {"enum": ["open", "resolved"]},
        "summary": _TEXT,
        "detail": _TEXT,
        "labels": {"type": "object", "additionalProperties": _TEXT},
        "runbook": _TEXT,
        "first_seen": INSTANT | {"description": "When the trouble began."},
        "last_seen": INSTANT,
        "opened_at": INSTANT | {"description": "When it had held for long enough."},
        "resolved_at": _INSTANT_OR_NULL,
        "count": COUNT | {"description": "How often it has begun within this alert."},
        "acknowledged_by": TEXT_OR_NULL,
        "acknowledged_at": _INSTANT_OR_NULL,
        "notified": {"type": "object", "description": "Receiver to what it took last, and when."},
    },
    "Something that is wrong, or was.",
)
_WATCH = {
    **object_of(
        {
            "writer": _TEXT,
            "at": INSTANT | {"description": "When it last looked: long ago, and nobody watches."},
        },
        "Who watches.",
    ),
    "type": ["object", "null"],
}
_LISTED: dict[str, Json] = {
    "open": {
        "schema": {"type": "boolean"},
        "description": "Only those that are open, or only those that are not.",
    },
    "limit": {
        "schema": COUNT | {"minimum": 1, "maximum": 1000, "default": 50},
        "description": "How many a page holds at most.",
    },
    "cursor": {"schema": _TEXT, "description": "From the page before."},
}

LIST: Json = {
    "parameters": [
        {"name": name, "in": "query", "required": False} | described
        for name, described in _LISTED.items()
    ],
    **SECURITY,
}
LIST_NAMES = tuple(_LISTED)
ALERTS: dict[int | str, Json] = {
    200: body(
        "A page of alerts",
        object_of({"alerts": array_of(_ALERT), "watch": _WATCH, "next": NEXT}),
    )
    | {"headers": LINK}
}
