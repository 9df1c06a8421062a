"""Risk numbers as the OpenAPI document has them: each with its sign and its unit."""

from api.openapi.parts import (
    AGE,
    CODE_VERSION,
    COUNT,
    FRACTION,
    FRACTION_OR_NULL,
    LEVEL,
    METHOD,
    OF_A_SNAPSHOT,
    SNAPSHOT_DIGEST,
    SOURCE,
    TEXT_OR_NULL,
    Json,
    array_of,
    object_of,
    one_or_page,
)

MOST_CONTRIBUTIONS = 100  # of a page: a row for each position of a snapshot

_REASONS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
_RETURNS: Json = {
    "returns_source": SOURCE | {"description": "Where the returns came from."},
    "returns_digest": TEXT_OR_NULL | {"description": "Digest of the data behind the returns."},
}
_COVARIANCE: Json = {
    "covariance_source": SOURCE | {"description": "Where the covariance came from."},
    "covariance_digest": TEXT_OR_NULL
    | {"description": "Digest of the data behind the covariance."},
}
_UNAVAILABLE = TEXT_OR_NULL | {
    "description": "Why there are no numbers: they are null then, never zero, and no tails."
}

_TAIL = object_of(
    {
        "method": METHOD,
        "level": LEVEL,
        "var": FRACTION | {"description": "Value at risk: a loss, positive when money is lost."},
        "es": FRACTION | {"description": "Expected shortfall: a loss, at least `var`."},
        "rank": {
            "type": ["integer", "null"],
            "description": "`var` is the rank-th worst return, scaled return or draw; null where "
            "the method has a formula.",
        },
        "var_next": FRACTION_OR_NULL
        | {
            "description": "`var` had the convention picked the next rank; null where there is "
            "none."
        },
        "source": SOURCE
        | {"description": "What this tail was made from; null where it was not noted."},
        "var_error": FRACTION_OR_NULL
        | {"description": "Standard error of `var`; null where nothing is simulated."},
        "es_error": FRACTION_OR_NULL
        | {"description": "Standard error of `es`; null where nothing is simulated."},
    }
)
NUMBERS = object_of(
    {
        **OF_A_SNAPSHOT,
        "age_seconds": AGE,
        "horizon_days": COUNT | {"description": "How many days each loss is over."},
        "window": COUNT | {"description": "How many daily returns were asked for."},
        "n": COUNT | {"description": "How many daily returns there were."},
        "unavailable": _UNAVAILABLE,
        "absent": _REASONS
        | {
            "description": "Why there is no such number, by its name: a method, "
            "`diversification_ratio`, `contributions`, ..."
        },
        "passed_over": _REASONS
        | {"description": "Why a source that comes first was not used, by source."},
        "mean": FRACTION_OR_NULL | {"description": "Mean return a day."},
        "volatility": FRACTION_OR_NULL
        | {
            "description": "Standard deviation of returns a day; the covariance's where there are "
            "no returns."
        },
        "annualised_volatility": FRACTION_OR_NULL | {"description": "The same a year of 252 days."},
        "max_drawdown": FRACTION_OR_NULL
        | {"description": "Deepest in the window: a loss, positive, as a fraction of the peak."},
        "current_drawdown": FRACTION_OR_NULL
        | {"description": "At its end: a loss, positive, as a fraction of the peak."},
        "gross": FRACTION | {"description": "Sum of absolute weights."},
        "net": FRACTION | {"description": "Sum of weights."},
        "largest": FRACTION | {"description": "Greatest absolute weight."},
        "herfindahl": FRACTION | {"description": "Sum of squared shares of `gross`, 0 to 1."},
        "effective_names": FRACTION | {"description": "1 / `herfindahl`, a count."},
        "diversification_ratio": FRACTION_OR_NULL
        | {
            "description": "The volatilities of the positions, added up, as a multiple of the "
            "portfolio's; at least 1."
        },
        "effective_bets": FRACTION_OR_NULL
        | {"description": "Over how many uncorrelated bets the variance is spread, a count."},
        "contributions_level": TEXT_OR_NULL
        | {"description": "The confidence level of `/contributions`; null where there are none."},
        "snapshot_digest": SNAPSHOT_DIGEST,
        **_RETURNS,
        **_COVARIANCE,
        "code_version": CODE_VERSION,
        "tails": array_of(_TAIL, "By method and level; only those asked for."),
    },
    "One snapshot's risk numbers. Losses are positive; returns and losses are fractions of equity, "
    "over one day where nothing else is said.",
)
RISK = one_or_page("The numbers", "risk", NUMBERS)

_SHARE = FRACTION_OR_NULL | {
    "description": "Of the total; negative where the position hedges, null where the total is no "
    "loss to have shares of."
}
_HISTORICAL = FRACTION_OR_NULL | {
    "description": "The same of the historical tail; null where not each position has returns."
}
_CONTRIBUTION = object_of(
    {
        "symbol": {"type": "string"},
        "weight": FRACTION | {"description": "A signed fraction of equity."},
        "marginal_var": FRACTION
        | {"description": "What the VaR grows by with the weight: a loss per unit of weight."},
        "marginal_es": FRACTION | {"description": "The same of the ES."},
        "var": FRACTION
        | {"description": "`weight` times `marginal_var`: a loss, negative where it hedges."},
        "es": FRACTION | {"description": "`weight` times `marginal_es`, as `var`."},
        "historical_var": _HISTORICAL,
        "historical_es": _HISTORICAL,
        "var_share": _SHARE,
        "es_share": _SHARE,
        "historical_var_share": _SHARE,
        "historical_es_share": _SHARE,
    }
)
_TOTAL = FRACTION_OR_NULL | {"description": "A loss, positive; the sum of the contributions."}
_CANDIDATE_TAIL = object_of(
    {
        "method": METHOD,
        "level": LEVEL,
        "source": {"type": "string", "description": "What these tails were made from."},
        "var_without": FRACTION | {"description": "Without the candidate: a loss, positive."},
        "var_with": FRACTION | {"description": "With it."},
        "incremental_var": FRACTION
        | {"description": "`var_with` - `var_without`; negative where the candidate hedges."},
        "es_without": FRACTION | {"description": "Without the candidate: a loss, positive."},
        "es_with": FRACTION | {"description": "With it."},
        "incremental_es": FRACTION | {"description": "`es_with` - `es_without`."},
    }
)
_CANDIDATE = object_of(
    {
        "candidate_id": {"type": "string", "description": "The symbol."},
        "candidate_weight": FRACTION | {"description": "That is bought, a fraction of equity."},
        "funding": {
            "type": "string",
            "description": "Who pays. `pro rata`: every other position is scaled down. `cash`: "
            "nothing else changes.",
        },
        "tails": array_of(_CANDIDATE_TAIL, "By method and level."),
    }
)
CONTRIBUTIONS_OF_ONE = object_of(
    {
        **OF_A_SNAPSHOT,
        "age_seconds": AGE,
        "horizon_days": COUNT | {"description": "How many days each loss is over."},
        "level": TEXT_OR_NULL
        | {"description": "The confidence level; null where there are no contributions."},
        "absent": _REASONS
        | {"description": "Why there are no `contributions`, or is no `candidate`, by this name."},
        "snapshot_digest": SNAPSHOT_DIGEST,
        **_COVARIANCE,
        **_RETURNS,
        "code_version": CODE_VERSION,
        "total": object_of(
            dict.fromkeys(("var", "es", "historical_var", "historical_es"), _TOTAL),
            "The normal tail under the covariance, and the historical one.",
        ),
        "contributions": array_of(
            _CONTRIBUTION,
            "By symbol, all positions. They add up to the total; `var` and `es` are those of the "
            "normal tail under the covariance.",
        ),
        "candidate": {
            "anyOf": [_CANDIDATE, {"type": "null"}],
            "description": "What the candidate of `constraints` would add; null without one.",
        },
    },
    "Which positions one snapshot's VaR and ES come from. Losses are positive fractions of equity.",
)
CONTRIBUTIONS = one_or_page("The contributions", "contributions", CONTRIBUTIONS_OF_ONE)
