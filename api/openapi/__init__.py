"""What the OpenAPI document says of the hub's routes.

`parts` is what all of them share; a module for each subject has its schemas and answers.
"""

from api.openapi.backtests import (
    BACKTEST_PARAMETERS,
    BACKTEST_PICTURE,
    BACKTEST_STAGE,
    BACKTESTS,
    LONGEST_WINDOW,
    METHOD_OF_PICTURE,
    SVG,
)
from api.openapi.document import install
from api.openapi.freshness import FRESHNESS, FRESHNESS_PARAMETERS
from api.openapi.parts import SECURITY, json_object, page_of, parameters, problems
from api.openapi.risk import CONTRIBUTIONS, MOST_CONTRIBUTIONS, NUMBERS, RISK
from api.openapi.snapshots import (
    BATCH,
    BATCH_RESPONSES,
    ONE_SNAPSHOT,
    POST,
    POST_RESPONSES,
    SNAPSHOT,
    SNAPSHOT_PAGE,
    STORED_SNAPSHOT,
)
from api.openapi.stress import LONGEST_SCENARIO, MOST_STRESSED, ORIGIN, SCENARIO, STRESS

__all__ = [
    "BACKTESTS",
    "BACKTEST_PARAMETERS",
    "BACKTEST_PICTURE",
    "BACKTEST_STAGE",
    "BATCH",
    "BATCH_RESPONSES",
    "CONTRIBUTIONS",
    "FRESHNESS",
    "FRESHNESS_PARAMETERS",
    "LONGEST_SCENARIO",
    "LONGEST_WINDOW",
    "METHOD_OF_PICTURE",
    "MOST_CONTRIBUTIONS",
    "MOST_STRESSED",
    "NUMBERS",
    "ONE_SNAPSHOT",
    "ORIGIN",
    "POST",
    "POST_RESPONSES",
    "RISK",
    "SCENARIO",
    "SECURITY",
    "SNAPSHOT",
    "SNAPSHOT_PAGE",
    "STORED_SNAPSHOT",
    "STRESS",
    "SVG",
    "install",
    "json_object",
    "page_of",
    "parameters",
    "problems",
]
