"""Stress results as the OpenAPI document has them: each with its sign and its unit."""

from api.openapi.parts import (
    AGE,
    CODE_VERSION,
    FRACTION,
    FRACTION_OR_NULL,
    LABEL,
    OF_A_SNAPSHOT,
    SNAPSHOT_DIGEST,
    SOURCE,
    TEXT_OR_NULL,
    Json,
    array_of,
    object_of,
    one_or_page,
)

LONGEST_SCENARIO = 256
MOST_STRESSED = 200  # of a page: a row for each scenario of a snapshot

_RESULT_OF_VAR = FRACTION_OR_NULL | {
    "description": "At 99 % under a covariance that was shifted: a loss, positive. Null where the "
    "scenario shifts none."
}
_RESULT = object_of(
    {
        "scenario": {"type": "string", "description": "Its name."},
        "origin": {
            "enum": ["riskhub", "producer"],
            "description": "Computed here, or a number of the snapshot's own `stress`.",
        },
        "kind": TEXT_OR_NULL
        | {"description": "What the scenario does; null for a producer's own."},
        "label": TEXT_OR_NULL | {"description": "What it is; null for a producer's own."},
        "pnl": FRACTION_OR_NULL
        | {"description": "Profit and loss: signed, negative when money is lost."},
        "worst": FRACTION_OR_NULL
        | {"description": "The least P&L on the way of a replay; at most 0."},
        "max_drawdown": FRACTION_OR_NULL
        | {"description": "Of a replay: positive, a fraction of the peak."},
        "ruined": {
            "type": ["boolean", "null"],
            "description": "Whether a replay takes the whole equity on its way.",
        },
        "var": _RESULT_OF_VAR,
        "es": _RESULT_OF_VAR,
        "unavailable": TEXT_OR_NULL
        | {"description": "Why there is no result: the numbers are null then, never zero."},
        "measures": {
            "type": ["object", "null"],
            "additionalProperties": {"type": "number"},
            "description": "A producer's numbers, as it sent them.",
        },
    }
)
_REVERSE = object_of(
    {
        "loss_limit": FRACTION | {"description": "The loss that is asked for, positive."},
        "against": FRACTION_OR_NULL
        | {
            "description": "It is lost when every position moves by this fraction against its "
            "holder; null where no such move loses that much."
        },
        "market": FRACTION_OR_NULL
        | {"description": "And when every price moves by this signed fraction; null as before."},
    },
    "The smallest uniform shocks that lose a limit.",
)
STRESS_OF_ONE = object_of(
    {
        **OF_A_SNAPSHOT,
        "age_seconds": AGE,
        "snapshot_digest": SNAPSHOT_DIGEST,
        "book_digest": {"type": "string", "description": "Of the scenarios that were applied."},
        "prices_digest": {"type": "string", "description": "Of the prices that were replayed."},
        "covariance_source": SOURCE | {"description": "Where the covariance came from."},
        "code_version": CODE_VERSION,
        "reverse": _REVERSE,
        "results": array_of(_RESULT, "In the order of the scenarios; only those asked for."),
    },
    "One snapshot under stress. P&L is signed, VaR and ES are positive losses; all are fractions "
    "of equity.",
)
STRESS = one_or_page("The stress results", "stress", STRESS_OF_ONE)
SCENARIO: Json = {
    "schema": LABEL | {"maxLength": LONGEST_SCENARIO},
    "description": "Only of this scenario.",
}
ORIGIN: Json = {
    "schema": {"enum": ["riskhub", "producer"]},
    "description": "Only computed here, or only the snapshot's own.",
}
