"""Is each method's VaR still to be trusted? Basel's traffic light as asset checks, one a method.

Green passes; yellow asks for an explanation, a warning; red presumes that the model is wrong, an
error. None of them fails a run: a wrong model is told, and its numbers are still computed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote, urlencode

import dagster as dg

from riskhub.backtesting import ZONES
from riskhub.risk import Method
from riskhub_dagster.metadata import table

BACKTESTS = dg.AssetKey("var_backtests")
METHODS: tuple[str, ...] = get_args(Method)
MAX_PLOTS = 6

_COLUMNS = [
    *("world_id", "stage", "zone", "exceedances", "expected", "observations"),
    *("kupiec_p", "christoffersen_p", "z2", "day"),
]


def light_checks() -> list[dg.AssetCheckSpec]:
    """The checks, one a method."""
    return [
        dg.AssetCheckSpec(
            _name(method),
            asset=BACKTESTS,
            description=(
                f"The traffic light of the {method} VaR at 99 % over the last 250 outcomes, the "
                "worst of all worlds: yellow warns, red is an error. No light stops anything."
            ),
        )
        for method in METHODS
    ]


def light_results(
    backtests: Sequence[Mapping[str, Any]], api_url: str
) -> Iterator[dg.AssetCheckResult]:
    """What each check says of the backtests of one day (rows of `var_backtests`).

    Args:
        api_url: where the plots are served.
    """
    for method in METHODS:
        rows = [row for row in backtests if row["method"] == method]
        yield _result(method, sorted(rows, key=_badness, reverse=True), api_url)


def _result(
    method: str, worst_first: Sequence[Mapping[str, Any]], api_url: str
) -> dg.AssetCheckResult:
    lights = Counter(row["zone"] for row in worst_first)
    worst = worst_first[0]["zone"] if worst_first else "green"
    shown = [
        {**row, "expected": row["observations"] * (1 - float(row["level"]))} for row in worst_first
    ]
    metadata: dict[str, Any] = {"lights": table(shown, _COLUMNS)}
    for row in worst_first[:MAX_PLOTS]:
        name = f"plot of {row['world_id']}, {row['stage']}"
        metadata[name] = dg.MetadataValue.url(_plot(api_url, row))
    return dg.AssetCheckResult(
        asset_key=BACKTESTS,
        check_name=_name(method),
        passed=worst == "green",
        severity=dg.AssetCheckSeverity.ERROR if worst == "red" else dg.AssetCheckSeverity.WARN,
        description=(
            f"{worst} at worst on {worst_first[0]['day']}: "
            + ", ".join(f"{lights[zone]} {zone}" for zone in ZONES[::-1] if lights[zone])
            if worst_first
            else "no forecast by this method has met an outcome yet"
        ),
        metadata=metadata,
    )


def _name(method: str) -> str:
    return f"light_{method}"


def _badness(row: Mapping[str, Any]) -> tuple[int, float]:
    return ZONES.index(row["zone"]), row["exceedances"] / row["observations"]


def _plot(api_url: str, row: Mapping[str, Any]) -> str:
    asked = urlencode({"stage": row["stage"], "method": row["method"], "level": row["level"]})
    return f"{api_url}/risk-hub/worlds/{quote(row['world_id'])}/backtests.svg?{asked}"
