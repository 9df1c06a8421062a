"""Backtests as the OpenAPI document has them: what each test asks, and how it is answered."""

from typing import get_args

from api.openapi.parts import (
    CODE_VERSION,
    COUNT,
    FRACTION,
    FRACTION_OR_NULL,
    LEVEL,
    METHOD,
    WORLD,
    Json,
    array_of,
    body,
    object_of,
)
from riskhub.backtesting import WINDOW
from riskhub.risk import LEVELS, Method, format_level

SVG = "image/svg+xml"
BACKTEST_STAGE = "backtest"
LONGEST_WINDOW = 2_500

_DAY: Json = {"type": "string", "format": "date", "examples": ["2008-09-15"]}
_METHODS: Json = {"enum": [*get_args(Method)]}
_PROBABILITY: Json = {"type": "number", "minimum": 0, "maximum": 1}
_PROBABILITY_OR_NULL: Json = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_REJECT: Json = {"type": "boolean", "description": "Whether `p_value` is at most `significance`."}
_SIGNIFICANCE = _PROBABILITY | {"description": "At which it is rejected."}

BACKTEST_PARAMETERS: dict[str, Json] = {
    "stage": {
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "pattern": r"^[ -~]+$",
            "default": BACKTEST_STAGE,
        },
        "description": "Of the forecasts.",
    },
    "method": {"schema": _METHODS, "description": "Only of this method."},
    "level": {
        "schema": {"enum": [*map(format_level, LEVELS)], "default": format_level(LEVELS[-1])},
        "description": "The confidence level that is tested.",
    },
    "from": {"schema": _DAY, "description": "The first day of outcomes; of all, by default."},
    "to": {"schema": _DAY, "description": "The last day of outcomes; of all, by default."},
    "window": {
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": LONGEST_WINDOW,
            "default": WINDOW,
        },
        "description": "How many outcomes a traffic light is of.",
    },
}
METHOD_OF_PICTURE: Json = {
    "schema": _METHODS,
    "required": True,
    "description": "The method that is shown.",
}

_TWO_P_VALUES: Json = {
    "statistic": FRACTION | {"description": "A likelihood ratio, at least 0."},
    "p_value": _PROBABILITY | {"description": "By the chi-square law."},
    "p_value_exact": _PROBABILITY | {"description": "By the exact law for so many days."},
    "reject": _REJECT,
    "reject_exact": {
        "type": "boolean",
        "description": "Whether `p_value_exact` is at most `significance`.",
    },
    "significance": _SIGNIFICANCE,
}
_AFTER = _PROBABILITY_OR_NULL | {
    "description": "How often an exceedance followed; null where no day tells."
}
_ZONE_SHARE = _PROBABILITY_OR_NULL | {
    "description": "The share of windows in this zone; null where none is full."
}
_SHORTFALL = object_of(
    {
        "statistic": FRACTION_OR_NULL
        | {"description": "Negative when losses were larger than ES said; null where undefined."},
        "p_value": _PROBABILITY_OR_NULL | {"description": "Simulated, one-sided."},
        "critical_value": FRACTION_OR_NULL | {"description": "It rejects at or below this."},
        "reject": _REJECT,
    }
)
_MULTINOMIAL = object_of(
    {
        "statistic": FRACTION | {"description": "How far counts are from the expected; >= 0."},
        "degrees_of_freedom": FRACTION | {"description": "Of the chi-square law."},
        "p_value": _PROBABILITY | {"description": "By the chi-square law."},
        "p_value_simulated": _PROBABILITY | {"description": "By the simulated law."},
        "reject": _REJECT,
    }
)
_SIMULATED: Json = {
    "significance": _SIGNIFICANCE,
    "simulations": COUNT | {"description": "How many, for the simulated p-values."},
    "seed": COUNT | {"description": "Of the simulation."},
}
_BACKTEST = object_of(
    {
        "method": METHOD,
        "from": _DAY | {"description": "The day of the first outcome."},
        "to": _DAY | {"description": "The day of the last outcome."},
        "observations": COUNT | {"description": "How many forecasts have met their outcome."},
        "exceedances": COUNT | {"description": "On how many days the loss was beyond the VaR."},
        "expected": FRACTION | {"description": "How many of a right VaR, on average."},
        "hindsight": COUNT | {"description": "How many forecasts landed after their outcome."},
        "kupiec": object_of(_TWO_P_VALUES, "As many exceedances as there should be?"),
        "christoffersen": object_of(
            _TWO_P_VALUES
            | {
                "n00": COUNT | {"description": "Calm days that a calm one followed."},
                "n01": COUNT | {"description": "Calm days that an exceedance followed."},
                "n10": COUNT | {"description": "Exceedances that a calm day followed."},
                "n11": COUNT | {"description": "Exceedances that another one followed."},
                "after_calm": _AFTER,
                "after_exceedance": _AFTER,
            },
            "Are exceedances more likely after another one?",
        ),
        "conditional_coverage": object_of(_TWO_P_VALUES, "Both questions at once."),
        "traffic_light": object_of(
            {
                "zone": {"enum": ["green", "yellow", "red"]},
                "observations": COUNT | {"description": "`window`, or all when there are fewer."},
                "exceedances": COUNT | {"description": "Among these."},
                "yellow_from": COUNT | {"description": "The smallest count that is yellow."},
                "red_from": COUNT | {"description": "The smallest count that is red."},
                "cumulative_probability": _PROBABILITY
                | {"description": "Of so many exceedances or fewer, by a right VaR."},
                "p_value": _PROBABILITY | {"description": "Of so many or more."},
                "multiplier": FRACTION_OR_NULL
                | {"description": "Basel's, 3 to 4, for 250 days at 0.99; null elsewhere."},
            },
            "Basel's zone of the last outcomes.",
        ),
        "windows": object_of(
            {
                "count": COUNT | {"description": "How many full windows there are."},
                **dict.fromkeys(("green", "yellow", "red"), _ZONE_SHARE),
            },
            "The light of every full window.",
        ),
        "acerbi_szekely": {
            "anyOf": [
                object_of({"z1": _SHORTFALL, "z2": _SHORTFALL, **_SIMULATED}),
                {"type": "null"},
            ],
            "description": "Were losses beyond VaR as large as ES said? Z1: given the VaR is "
            "right. Z2: with the number of exceedances. Null where `untested` says why.",
        },
        "multinomial": {
            "anyOf": [
                object_of(
                    {
                        "levels": array_of(LEVEL, "Ascending."),
                        "counts": array_of(
                            COUNT, "Days beyond none, just one, ..., all of the VaRs."
                        ),
                        "expected": array_of(FRACTION, "As many of a right model, on average."),
                        "nass": _MULTINOMIAL
                        | {"description": "Keeps its size whatever the levels: go by this."},
                        "pearson": _MULTINOMIAL,
                        "likelihood_ratio": _MULTINOMIAL,
                        **_SIMULATED,
                    }
                ),
                {"type": "null"},
            ],
            "description": "VaR at several levels at once (Kratz, Lok and McNeil). Null where "
            "`untested` says why.",
        },
        "untested": array_of({"type": "string"}, "What is missing or says nothing, and why."),
        "outcomes_digest": {
            "type": "string",
            "description": "Digest of the forecasts and outcomes that were tested.",
        },
    },
    "One method's forecasts against what they met.",
)
BACKTESTS: dict[int | str, Json] = {
    200: body(
        "The tests of each method",
        object_of(
            {
                "world_id": WORLD,
                "stage": {"type": "string"},
                "level": LEVEL,
                "window": COUNT | {"description": "How many outcomes a traffic light is of."},
                "prices_digests": array_of(
                    {"type": "string"}, "Of the prices that the outcomes were made from."
                ),
                "code_version": CODE_VERSION,
                "backtests": array_of(_BACKTEST, "By method."),
            }
        ),
    )
}
BACKTEST_PICTURE: dict[int | str, Json] = {
    200: {
        "description": "The picture; one that says so where there is no outcome yet",
        "content": {SVG: {"schema": {"type": "string"}}},
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "Of what is shown."}},
    },
    304: {"description": "It shows what `If-None-Match` names"},
}
