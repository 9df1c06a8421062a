"""Episodes of the exit engine as the OpenAPI document has them. Losses are positive fractions."""

from typing import get_args

from api.openapi.parts import (
    COUNT,
    FRACTION,
    INSTANT,
    LABEL,
    LINK,
    NEXT,
    SECURITY,
    TEXT_OR_NULL,
    WORLD,
    Json,
    array_of,
    body,
    object_of,
)
from riskhub.exits.rules import Action, Severity

EPISODE_ID = r"^[0-9a-f]{20}$"
_INSTANT_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_RULE_ID: Json = {"type": "string", "pattern": r"^[a-z0-9.-]{1,64}$"}
_SIGNAL = object_of(
    {
        "signal_id": {"type": "string", "description": "The same however often it is told."},
        "signal": {"enum": ["opened", "updated", "closed"]},
        "why": {"type": "string"},
        "at": INSTANT,
        "streamed_at": _INSTANT_OR_NULL
        | {"description": "When Redis took it; null while it waits."},
    },
    "What consumers were told.",
)
_EPISODE = object_of(
    {
        "episode_id": {"type": "string", "pattern": EPISODE_ID},
        "rule": _RULE_ID,
        "kind": {"type": "string", "description": "Of the rule, such as `es` or `drawdown`."},
        "world_id": WORLD,
        "stage": {"type": "string"},
        "action": {"enum": list(get_args(Action))},
        "target_fraction": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "Of an action `reduce`: the share of each position that may stay.",
        },
        "severity": {"enum": list(get_args(Severity))},
        "mode": {
            "enum": ["shadow", "enforce"],
            "description": "`shadow` is to be logged, `enforce` to be obeyed.",
        },
        "opened_at": INSTANT,
        "closed_at": _INSTANT_OR_NULL | {"description": "Null while it is open."},
        "closed_because": TEXT_OR_NULL,
        "value": FRACTION | {"description": "The newest that is known, in the rule's unit."},
        "worst": FRACTION,
        "acknowledged_at": _INSTANT_OR_NULL,
        "acknowledged_by": TEXT_OR_NULL,
        "evidence": {
            "type": "object",
            "description": "`rule`: what was measured, in which unit, against what. `opened`, "
            "`worst`, `newest`: the number, with the version and digest of the snapshot that it "
            "was made from. `missing`: why there is no newer one.",
        },
        "signals": array_of(_SIGNAL, "Oldest first."),
    },
    "A time in which a rule asks for its action.",
)
_ID_PARAMETER: Json = {
    "name": "episode_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": EPISODE_ID},
    "description": "The episode.",
    "example": "9ca46a09ba7bf9fe517f",
}
_ACTOR: Json = {
    "name": "X-Actor",
    "in": "header",
    "required": True,
    "schema": LABEL,
    "description": "Who has seen it.",
    "example": "desk-1",
}
_LISTED: dict[str, Json] = {
    "world": {"schema": WORLD, "description": "Only of this world."},
    "stage": {"schema": LABEL, "description": "Only of this stage."},
    "rule": {"schema": _RULE_ID, "description": "Only of this rule."},
    "open": {
        "schema": {"type": "boolean"},
        "description": "Only those that are open, or only those that are not.",
    },
    "since": {
        "schema": INSTANT,
        "description": "Only those that were open at this moment or later.",
    },
    "limit": {
        "schema": COUNT | {"minimum": 1, "maximum": 1000, "default": 50},
        "description": "How many a page holds at most.",
    },
    "cursor": {"schema": {"type": "string"}, "description": "From the page before."},
}

LIST: Json = {
    "parameters": [
        {"name": name, "in": "query", "required": False} | described
        for name, described in _LISTED.items()
    ],
    **SECURITY,
}
LIST_NAMES = tuple(_LISTED)
EPISODES: dict[int | str, Json] = {
    200: body("A page of episodes", object_of({"exit_signals": array_of(_EPISODE), "next": NEXT}))
    | {"headers": LINK}
}
ONE: Json = {"parameters": [_ID_PARAMETER], **SECURITY}
ACK: Json = {"parameters": [_ID_PARAMETER, _ACTOR], **SECURITY}
EPISODE: dict[int | str, Json] = {200: body("The episode", _EPISODE)}
