"""From accepted snapshots to their risk numbers, as rows.

Ties the pure kernels of `riskhub.risk` to snapshots and what `riskhub.portfolio` measures them on.
Rows of the tables `risk_metrics`, `risk_tails`, `risk_contributions` and `candidate_risk`.
Deterministic: the same snapshot, sources and code give the same rows, whatever else is measured
along with it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub import __version__
from riskhub.attribution import LEVEL, asks_for_candidate, candidate_rows, contribution_rows
from riskhub.portfolio import (
    COVARIANCE,
    REALIZED,
    Portfolio,
    Returns,
    Sources,
    portfolio_of,
)
from riskhub.risk import (
    LEVELS,
    Draws,
    Method,
    RiskInputError,
    Tail,
    Tails,
    annualised,
    cornish_fisher,
    cornish_fisher_many,
    diversification_ratio,
    drawdowns,
    effective_bets,
    effective_names,
    ewma_many,
    filtered_historical_many,
    format_level,
    gross,
    herfindahl,
    historical_many,
    largest,
    moments,
    monte_carlo_levels,
    net,
    normal_from_moments,
    normal_many,
    portfolio_volatility,
    standard_draws,
    student_t,
    student_t_many,
)
from riskhub.settings import RiskSettings
from riskhub.store.landing import Landed

HORIZON_DAYS = 1
CODE_VERSION = f"riskhub/{__version__}"

Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NumbersRows:
    """One snapshot's row in `risk_metrics`, and its rows in the other tables, where it has some."""

    metrics: Row
    tails: list[Row] = field(default_factory=list)
    contributions: list[Row] = field(default_factory=list)
    candidate: list[Row] = field(default_factory=list)


def numbers_tables(made: Sequence[NumbersRows]) -> dict[str, list[Row]]:
    """What is written of the numbers of snapshots, by table; `risk_metrics` is the first."""
    return {
        "risk_metrics": [rows.metrics for rows in made],
        "risk_tails": [row for rows in made for row in rows.tails],
        "risk_contributions": [row for rows in made for row in rows.contributions],
        "candidate_risk": [row for rows in made for row in rows.candidate],
    }


@dataclass(slots=True)
class _Measured:
    """A snapshot on its way to its rows. `absent`: why there is no such number."""

    snapshot: Landed
    portfolio: Portfolio
    tails: list[Row] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


_WithReturns = tuple[_Measured, Returns]


def numbers_of(
    snapshots: Sequence[Landed],
    weights: Mapping[int, Mapping[str, float]],
    sources: Sources,
    simulation: RiskSettings,
) -> list[NumbersRows]:
    """The risk numbers of snapshots, in their order.

    A number that can't be had is null, or no row, with the reason in `absent`; when there is no
    tail at all, `unavailable` says why. Never zero, never guessed.

    All their returns are in memory at once: (n, N) each.

    Args:
        weights: by landing position, of each of the snapshots.

    Raises:
        BlobsUnavailable: an outage says nothing about a snapshot; safe to try again.
    """
    measured = [
        _Measured(snapshot, portfolio_of(snapshot, weights[snapshot.position], sources))
        for snapshot in snapshots
    ]
    by_length: dict[int, list[_WithReturns]] = defaultdict(list)
    for one in measured:
        if returns := one.portfolio.returns:
            by_length[len(returns.values)].append((one, returns))
        else:
            one.absent |= dict.fromkeys(_OF_SERIES, one.portfolio.why_no_returns)
    for together in by_length.values():
        for method in _OF_SERIES:
            _add_tails(method, together)
    for one in measured:
        _add_tails_of_covariance(one, simulation)
    return [_rows(one, weights[one.snapshot.position], sources) for one in measured]


# -- tails ----------------------------------------------------------------------------------------


def _all_rows(many: Callable[[Floats, Any], Tails]) -> Callable[[Floats, Any], Any]:
    return lambda rows, levels: (np.ones(len(rows), dtype=np.bool_), many(rows, levels))


# Each gives which rows it accepts, and the tails of these.
_OF_SERIES: dict[Method, Callable[[Floats, Any], tuple[NDArray[np.bool_], Tails]]] = {
    "historical": _all_rows(historical_many),
    "normal": _all_rows(normal_many),
    "cornish_fisher": cornish_fisher_many,
    "student_t": student_t_many,
    "ewma": _all_rows(ewma_many),
    "filtered_historical": _all_rows(filtered_historical_many),
}
# What says, of a row that was not accepted, why.
_REFUSES = {"cornish_fisher": cornish_fisher, "student_t": student_t}


def _add_tails(method: Method, together: Sequence[_WithReturns]) -> None:
    """The tails of snapshots that have returns of one length."""
    series = np.array([returns.values for _, returns in together])
    try:
        accepted, tails = _OF_SERIES[method](series, LEVELS)
    except RiskInputError as error:
        if len(together) == 1:
            together[0][0].absent[method] = str(error)
            return
        for alone in together:  # one spoils it for the others; alone they have the same numbers
            _add_tails(method, [alone])
        return
    row = 0
    for (one, returns), values, is_accepted in zip(together, series, accepted, strict=True):
        if is_accepted:
            one.tails += (_tail_row(one.snapshot, tail, returns.source) for tail in tails.of(row))
            row += 1
        else:
            one.absent[method] = _reason(method, values)


def _reason(method: Method, values: Floats) -> str:
    try:
        _REFUSES[method](values, LEVEL)
    except RiskInputError as error:
        return str(error)
    raise AssertionError(f"{method} refuses a row of many and takes it alone")


def _add_tails_of_covariance(one: _Measured, simulation: RiskSettings) -> None:
    """The simulated tails; and the normal ones, of a covariance that precedes the returns."""
    snapshot, portfolio = one.snapshot, one.portfolio
    covariance = portfolio.covariance
    if covariance is None:
        one.absent["monte_carlo"] = portfolio.why_no_covariance
        return
    try:
        if portfolio.returns is None or (
            covariance.source == COVARIANCE and portfolio.returns.source != REALIZED
        ):
            sigma = portfolio_volatility(portfolio.weights, covariance.matrix)
            one.absent.pop("normal", None)
            one.tails = [tail for tail in one.tails if tail["method"] != "normal"]
            one.tails += (
                _tail_row(snapshot, normal_from_moments(0.0, sigma, level), covariance.source)
                for level in LEVELS
            )
        simulated = monte_carlo_levels(
            covariance.means,
            covariance.matrix,
            portfolio.weights,
            LEVELS,
            _draws(simulation, len(portfolio.weights)),
        )
    except RiskInputError as error:
        one.absent["monte_carlo"] = str(error)
        if not any(tail["method"] == "normal" for tail in one.tails):
            one.absent["normal"] = str(error)
        return
    for each in simulated:
        row = _tail_row(snapshot, each.tail, covariance.source)
        one.tails.append(row | {"var_error": each.var_error, "es_error": each.es_error})


_REMEMBERED = 1 << 21  # floats: 16 MB
_remembered_draws = lru_cache(maxsize=8)(standard_draws)


def _draws(simulation: RiskSettings, assets: int) -> Draws:
    """A seed's draws serve every portfolio of so many positions."""
    small = simulation.draws * assets <= _REMEMBERED
    make = _remembered_draws if small else standard_draws
    return make(simulation.draws, assets, simulation.seed, simulation.degrees)


def _tail_row(snapshot: Landed, tail: Tail, source: str) -> Row:
    return {
        "position": snapshot.position,
        "method": tail.method,
        "level": format_level(tail.level),
        "day": snapshot.day,
        "var": tail.var,
        "es": tail.es,
        "rank": tail.rank,
        "var_next": tail.var_next,
        "source": source,
        "var_error": None,
        "es_error": None,
    }


# -- the rest of a snapshot's rows ----------------------------------------------------------------


def _rows(one: _Measured, weights: Mapping[str, float], sources: Sources) -> NumbersRows:
    snapshot, portfolio = one.snapshot, one.portfolio
    held, returns, covariance = portfolio.weights, portfolio.returns, portfolio.covariance
    contributions = _or_why(one, "contributions", lambda: contribution_rows(snapshot, portfolio))
    candidate: list[Row] | None = None
    if asked := asks_for_candidate(snapshot):
        candidate = _or_why(
            one, "candidate", lambda: candidate_rows(snapshot, weights, asked, sources)
        )
    metrics: Row = {
        "position": snapshot.position,
        "day": snapshot.day,
        "world_id": snapshot.world_id,
        "version": snapshot.version,
        "as_of": snapshot.as_of,
        "stage": snapshot.stage,
        "unavailable": None if one.tails else _why_nothing(one),
        "horizon_days": HORIZON_DAYS,
        "window": sources.window,
        "n": len(returns.values) if returns else 0,
        **_series_numbers(one),
        "gross": gross(held),
        "net": net(held),
        "largest": largest(held),
        "herfindahl": herfindahl(held),
        "effective_names": effective_names(held),
        "snapshot_digest": snapshot.digest,
        "returns_source": returns and returns.source,
        "returns_digest": returns and returns.digest,
        "covariance_source": covariance and covariance.source,
        "covariance_digest": covariance and covariance.digest,
        "diversification_ratio": None,
        "effective_bets": None,
        "contributions_level": format_level(LEVEL) if contributions else None,
        "passed_over": dict(portfolio.passed_over),
        "code_version": CODE_VERSION,
    }
    if covariance is not None:
        matrix = covariance.matrix
        metrics["diversification_ratio"] = _or_why(
            one, "diversification_ratio", lambda: diversification_ratio(held, matrix)
        )
        metrics["effective_bets"] = _or_why(
            one, "effective_bets", lambda: effective_bets(held, matrix)
        )
    # A snapshot without any tail says so once, in `unavailable`.
    metrics["absent"] = one.absent if one.tails else {}
    return NumbersRows(metrics, one.tails, contributions or [], candidate or [])


def _why_nothing(one: _Measured) -> str:
    reasons = (*one.portfolio.passed_over.values(), *one.absent.values())
    return "; ".join(dict.fromkeys(filter(None, reasons)))


def _series_numbers(one: _Measured) -> Row:
    """Of the returns; without any the volatility is the covariance's, and the rest is null."""
    returns, covariance = one.portfolio.returns, one.portfolio.covariance
    numbers: Row = dict.fromkeys(
        ("mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown")
    )
    if returns is not None:
        found = _or_why(one, "volatility", lambda: moments(returns.values))
        if found is not None:
            numbers |= {"mean": found[0], "volatility": found[1]}
            numbers["annualised_volatility"] = annualised(found[1])
        depth = _or_why(one, "drawdown", lambda: drawdowns(returns.values))
        if depth is not None:
            numbers |= {"max_drawdown": float(depth.max()), "current_drawdown": float(depth[-1])}
    elif covariance is not None:
        weights, matrix = one.portfolio.weights, covariance.matrix
        sigma = _or_why(one, "volatility", lambda: portfolio_volatility(weights, matrix))
        if sigma is not None:
            numbers |= {"volatility": sigma, "annualised_volatility": annualised(sigma)}
    return numbers


def _or_why(one: _Measured, name: str, number: Callable[[], Any]) -> Any:
    """A number, or None with the reason noted."""
    try:
        return number()
    except RiskInputError as error:
        one.absent[name] = str(error)
        return None
