"""From an accepted snapshot to its risk numbers: which returns, and what is said of them.

Ties the pure kernels of `riskhub.risk` to a snapshot and the price panel, and gives rows for the
tables `risk_metrics` and `risk_tails`. Deterministic: the same snapshot, panel and code give the
same rows; a blob is what its reference names, or an error.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub import __version__
from riskhub.blobs import BLOB_FIELDS, BlobStore, resolve
from riskhub.errors import BlobMissing, BlobUnusable
from riskhub.prices import PanelEnded, PricePanel, UnknownSymbol
from riskhub.risk import (
    RiskInputError,
    effective_names,
    format_level,
    gross,
    herfindahl,
    largest,
    measure,
    net,
    portfolio_returns,
)
from riskhub.store.landing import Landed
from riskhub.strict_json import Document

HORIZON_DAYS = 1
# New York's close is 20:00 or 21:00 UTC: at the later of the two the day's prices are known.
CLOSE_UTC = time(21, 0)
CODE_VERSION = f"riskhub/{__version__}"
PORTFOLIO_SERIES = "portfolio"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Returns:
    """The daily returns of a portfolio, oldest first, with where they came from.

    `source` is ``realized_returns`` or ``prices``; `digest` that of the data behind them.
    """

    source: str
    digest: str
    values: NDArray[np.float64]


class ReturnsUnavailable(RiskInputError):
    """No source can give this portfolio's returns; the text says why."""


@dataclass(frozen=True, slots=True)
class MetricsRows:
    """One snapshot's row in `risk_metrics` and its rows in `risk_tails` (none when unavailable)."""

    metrics: Row
    tails: list[Row]


def field_of(body: Document, field: str, blobs: BlobStore | None) -> Any:
    """A large field of a stored snapshot, from the body or from behind its reference.

    None when the snapshot has neither.

    Raises:
        BlobUnusable: it has a reference, but what that stands for can't be had.
        BlobsUnavailable: safe to try again.
    """
    ref_field = BLOB_FIELDS[field]
    if ref_field not in body:
        return body.get(field)
    if blobs is None:
        raise BlobMissing(body[ref_field], "no blob store is configured any more")
    return resolve({ref_field: body[ref_field]}, blobs)[field]


def returns_of(
    snapshot: Landed,
    weights: Mapping[str, float],
    panel: PricePanel,
    window: int,
    blobs: BlobStore | None = None,
) -> Returns:
    """The last `window` daily returns of the portfolio as it is weighted now, known by its `as_of`.

    The snapshot's own realized returns come first: its series ``portfolio``, or a single series
    that is no symbol of it, or else series for every symbol, of one length, combined by weight.
    A snapshot without any is measured on the price panel.

    Raises:
        ReturnsUnavailable: realized returns that fit neither form or whose blob is missing or
            altered, a symbol without prices, or a panel that ended long before the snapshot's day.
        BlobsUnavailable: safe to try again.
    """
    try:
        realized = field_of(json.loads(snapshot.body), "realized_returns", blobs)
    except BlobUnusable as error:
        # Measured on prices instead, it would be another number under the same name.
        raise ReturnsUnavailable(f"realized_returns_ref {error}") from error
    if realized:
        # What a client offloaded may have an integer among its points; the hub has none inline.
        realized = {series: list(map(float, points)) for series, points in realized.items()}
        digest = (
            f"sha256:{hashlib.sha256(json.dumps(realized, sort_keys=True).encode()).hexdigest()}"
        )
        return Returns("realized_returns", digest, _realized(realized, weights)[-window:])
    symbols = sorted(weights)
    try:
        asset_returns = panel.window(symbols, _last_close(snapshot.as_of), window)
    except (UnknownSymbol, PanelEnded) as error:
        raise ReturnsUnavailable(str(error)) from error
    held = np.array([weights[symbol] for symbol in symbols])
    return Returns("prices", panel.digest, portfolio_returns(asset_returns, held))


def metrics_of(
    snapshot: Landed,
    weights: Mapping[str, float],
    panel: PricePanel,
    *,
    window: int,
    min_returns: int,
    blobs: BlobStore | None = None,
) -> MetricsRows:
    """One snapshot's risk numbers as rows.

    With fewer than `min_returns` returns, or none at all, the row says why in `unavailable` and
    the numbers are null: never zero, never guessed.

    Args:
        blobs: where references of the snapshot lead; None when large fields stay inline.

    Raises:
        BlobsUnavailable: an outage says nothing about the snapshot; safe to try again.
    """
    held = np.array([weights[symbol] for symbol in sorted(weights)])
    row: Row = {
        "position": snapshot.position,
        "day": snapshot.day,
        "world_id": snapshot.world_id,
        "version": snapshot.version,
        "as_of": snapshot.as_of,
        "stage": snapshot.stage,
        "unavailable": None,
        "horizon_days": HORIZON_DAYS,
        "window": window,
        "n": 0,
        "mean": None,
        "volatility": None,
        "annualised_volatility": None,
        "max_drawdown": None,
        "current_drawdown": None,
        "gross": gross(held),
        "net": net(held),
        "largest": largest(held),
        "herfindahl": herfindahl(held),
        "effective_names": effective_names(held),
        "snapshot_digest": snapshot.digest,
        "returns_source": None,
        "returns_digest": None,
        "code_version": CODE_VERSION,
    }
    try:
        returns = returns_of(snapshot, weights, panel, window, blobs)
        row |= {
            "n": len(returns.values),
            "returns_source": returns.source,
            "returns_digest": returns.digest,
        }
        if len(returns.values) < min_returns:
            raise ReturnsUnavailable(f"{len(returns.values)} returns; {min_returns} are needed")
        numbers = measure(returns.values)
    except RiskInputError as error:
        return MetricsRows(row | {"unavailable": str(error)}, [])
    row |= {
        "mean": numbers.mean,
        "volatility": numbers.volatility,
        "annualised_volatility": numbers.annualised_volatility,
        "max_drawdown": numbers.max_drawdown,
        "current_drawdown": numbers.current_drawdown,
    }
    tails = [
        {
            "position": snapshot.position,
            "method": str(tail.method),
            "level": format_level(tail.level),
            "day": snapshot.day,
            "var": tail.var,
            "es": tail.es,
            "rank": tail.rank,
            "var_next": tail.var_next,
        }
        for tail in numbers.tails
    ]
    return MetricsRows(row, tails)


def _last_close(as_of: datetime) -> date:
    """The last day whose closing price is known at an instant: numbers never look ahead."""
    return as_of.date() if as_of.time() >= CLOSE_UTC else as_of.date() - timedelta(days=1)


def _realized(
    realized: Mapping[str, list[float]], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    if PORTFOLIO_SERIES in realized:
        return np.array(realized[PORTFOLIO_SERIES])
    if len(realized) == 1:
        ((series, points),) = realized.items()
        if series not in weights:
            return np.array(points)
    missing = sorted(weights.keys() - realized.keys())
    if missing:
        raise ReturnsUnavailable(f"realized_returns has no series for {', '.join(missing[:5])}")
    symbols = sorted(weights)
    if len({len(realized[symbol]) for symbol in symbols}) > 1:
        raise ReturnsUnavailable("the series of realized_returns differ in length")
    matrix = np.array([realized[symbol] for symbol in symbols]).T
    return portfolio_returns(matrix, np.array([weights[symbol] for symbol in symbols]))
