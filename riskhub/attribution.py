"""Which positions a snapshot's risk comes from, and what a candidate would add: rows of both.

Pure but for what `riskhub.portfolio` reads. Losses are positive fractions of equity.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from riskhub.portfolio import Portfolio, Returns, Sources, portfolio_of
from riskhub.risk import (
    LEVELS,
    Contributions,
    Funding,
    Incremental,
    Level,
    RiskInputError,
    euler_contributions,
    format_level,
    historical_contributions,
    incremental_historical,
    incremental_normal,
)
from riskhub.store.landing import Landed

Row = dict[str, Any]

LEVEL: Level = LEVELS[-1]
FUNDING: Funding = "pro rata"


def contribution_rows(snapshot: Landed, portfolio: Portfolio) -> list[Row]:
    """The contributions at 99 %, a row per position: normal ones, and historical ones if there are
    returns of each position.

    The normal ones are those of the covariance and its means: they add up to the normal tail that
    is made from the same data.

    Raises:
        RiskInputError: no covariance, or a book without risk.
    """
    covariance = portfolio.covariance
    if covariance is None:
        raise RiskInputError(portfolio.why_no_covariance)
    returns = portfolio.returns
    by_asset = returns.by_asset if returns else None
    normal = euler_contributions(portfolio.weights, covariance.matrix, LEVEL, covariance.means)
    historical: Contributions | None = None
    if by_asset is not None:
        historical = historical_contributions(portfolio.weights, by_asset, LEVEL)
    return [
        {
            "position": snapshot.position,
            "symbol": symbol,
            "day": snapshot.day,
            "weight": float(portfolio.weights[place]),
            "marginal_var": float(normal.marginal_var[place]),
            "marginal_es": float(normal.marginal_es[place]),
            "var": float(normal.component_var[place]),
            "es": float(normal.component_es[place]),
            "historical_var": historical and float(historical.component_var[place]),
            "historical_es": historical and float(historical.component_es[place]),
        }
        for place, symbol in enumerate(portfolio.symbols)
    ]


def asks_for_candidate(snapshot: Landed) -> tuple[str, float] | None:
    """The candidate and its weight, in (0, 1], that the snapshot's `constraints` ask about."""
    constraints = json.loads(snapshot.body).get("constraints") or {}
    if "candidate_id" not in constraints or "candidate_weight" not in constraints:
        return None
    return constraints["candidate_id"], constraints["candidate_weight"]


def candidate_rows(
    snapshot: Landed,
    weights: Mapping[str, float],
    candidate: tuple[str, float],
    sources: Sources,
    levels: Sequence[Level] = LEVELS,
) -> list[Row]:
    """The tails without and with the candidate, by each method that the sources allow.

    The candidate is bought pro rata: every other weight is scaled down by what it takes.

    Raises:
        RiskInputError: no source knows the candidate.
        BlobsUnavailable: safe to try again.
    """
    symbol, weight = candidate
    book = portfolio_of(snapshot, {symbol: 0.0, **weights}, sources)
    place = book.symbols.index(symbol)
    found: list[tuple[str, Level, str, Incremental]] = []
    returns: Returns | None = book.returns
    for level in levels:
        if returns is not None and returns.by_asset is not None:
            change = incremental_historical(
                book.weights, place, weight, returns.by_asset, level, FUNDING
            )
            found.append(("historical", level, returns.source, change))
        if book.covariance is not None:
            matrix, means = book.covariance.matrix, book.covariance.means
            change = incremental_normal(book.weights, place, weight, matrix, level, FUNDING, means)
            found.append(("normal", level, book.covariance.source, change))
    if not found:
        raise RiskInputError(book.why_no_covariance)
    return [
        {
            "position": snapshot.position,
            "method": method,
            "level": format_level(level),
            "day": snapshot.day,
            "candidate_id": symbol,
            "candidate_weight": float(weight),
            "funding": change.funding,
            "source": source,
            "var_without": change.without.var,
            "var_with": change.with_candidate.var,
            "es_without": change.without.es,
            "es_with": change.with_candidate.es,
        }
        for method, level, source, change in found
    ]
