"""What is measured: a snapshot's positions with their returns and covariance, each with its source.

The one place that decides which source a number is made from. A number that needs a series of
returns has the snapshot's realized returns, else the price panel. A number that needs a covariance
has the one of realized series per symbol, else the snapshot's covariance, else the panel's, and
last the fallback: a sigma and a correlation by setting, of symbols of which nothing is known.

What a snapshot names is used or refused. When it cannot be used, the number is not made from
another source under the same name; only what a snapshot does not name is looked for elsewhere.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub.blobs import BLOB_FIELDS, BlobStore, resolve
from riskhub.digests import canonical_json, digest
from riskhub.errors import BlobMissing, BlobUnusable
from riskhub.prices import PanelEnded, PricePanel, UnknownSymbol
from riskhub.risk import (
    RiskInputError,
    covariance_from_pairs,
    fallback_covariance,
    portfolio_returns,
    sample_covariance,
)
from riskhub.settings import Settings
from riskhub.store.landing import Landed
from riskhub.strict_json import Document

# New York's close is 20:00 or 21:00 UTC: at the later of the two the day's prices are known.
CLOSE_UTC = time(21, 0)
PORTFOLIO_SERIES = "portfolio"

REALIZED, COVARIANCE, PRICES, FALLBACK = "realized_returns", "covariance", "prices", "fallback"


@dataclass(frozen=True, slots=True)
class Returns:
    """Daily returns of a portfolio as it is weighted now, (n,), oldest first.

    `source`: ``realized_returns`` or ``prices``; `digest`: of the data behind them. `by_asset`:
    (n, N) where each position has its own.
    """

    source: str
    digest: str
    values: NDArray[np.float64] = field(repr=False, compare=False)
    by_asset: NDArray[np.float64] | None = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Covariance:
    """The daily covariance of the positions, (N, N), with where it came from.

    `means`: (N,) of the returns that it is the sample covariance of (ddof 1); zero where it is of
    none, as is usual over one day.
    """

    source: str
    digest: str
    matrix: NDArray[np.float64] = field(repr=False, compare=False)
    means: NDArray[np.float64] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Portfolio:
    """The N positions of a snapshot by symbol, sorted, and what they can be measured on.

    `weights`: (N,) signed fractions of equity. `passed_over`: why a source was not used, by source.
    """

    symbols: tuple[str, ...]
    weights: NDArray[np.float64] = field(repr=False, compare=False)
    returns: Returns | None
    covariance: Covariance | None
    passed_over: Mapping[str, str]

    @property
    def why_no_returns(self) -> str:
        """What stood in the way of a series of returns."""
        return self.passed_over.get(REALIZED) or self.passed_over.get(PRICES, "")

    @property
    def why_no_covariance(self) -> str:
        """What stood in the way of a covariance."""
        return self.passed_over.get(COVARIANCE) or "; ".join(self.passed_over.values())


@dataclass(frozen=True)
class Sources:
    """What a snapshot is measured on where it brings nothing itself.

    `window`: how many returns, at most. `min_returns`: with fewer a source is not used.
    """

    panel: PricePanel
    window: int
    min_returns: int
    sigma: float
    correlation: float
    blobs: BlobStore | None = None

    @classmethod
    def of(cls, settings: Settings, panel: PricePanel, blobs: BlobStore | None) -> "Sources":
        """As the settings say."""
        return cls(
            panel=panel,
            window=settings.risk_window,
            min_returns=settings.risk_min_returns,
            sigma=settings.risk.fallback_sigma,
            correlation=settings.risk.fallback_correlation,
            blobs=blobs,
        )

    @cached_property
    def fallback_digest(self) -> str:
        """Of what the fallback is made from."""
        return digest(canonical_json({"sigma": self.sigma, "correlation": self.correlation}))


class SourceUnusable(RiskInputError):
    """A source cannot be used for a snapshot; the text says why."""


def portfolio_of(snapshot: Landed, weights: Mapping[str, float], sources: Sources) -> Portfolio:
    """The positions of a snapshot and what they are measured on.

    Never raises for what a snapshot lacks or gets wrong: `returns` or `covariance` is then None,
    and `passed_over` says why.

    Raises:
        BlobsUnavailable: an outage says nothing about the snapshot; safe to try again.
    """
    symbols = tuple(sorted(weights))
    held = np.array([weights[symbol] for symbol in symbols])
    body = json.loads(snapshot.body)
    passed_over: dict[str, str] = {}
    names = {each for each in (REALIZED, COVARIANCE) if _names(body, each)}
    realized = given = prices = None
    try:
        realized = _realized(body, symbols, held, sources) if REALIZED in names else None
    except RiskInputError as reason:
        passed_over[REALIZED] = str(reason)
    try:
        given = _given(body, symbols, sources) if COVARIANCE in names else None
    except RiskInputError as reason:
        passed_over[COVARIANCE] = str(reason)
    wants_prices = names == {REALIZED} and realized is not None and realized.by_asset is None
    if REALIZED not in names or wants_prices:
        try:
            prices = on_prices(sources, symbols, held, snapshot.as_of)
        except RiskInputError as reason:
            passed_over[PRICES] = str(reason)

    returns = realized if REALIZED in names else prices
    covariance = given
    sampled = realized if realized and realized.by_asset is not None else prices
    if sampled and (sampled is realized or COVARIANCE not in names):
        try:
            covariance = _sample(sampled)
        except RiskInputError as reason:
            passed_over[sampled.source] = str(reason)
    if not names and not returns:
        matrix = fallback_covariance(held, sources.sigma, sources.correlation)
        covariance = Covariance(FALLBACK, sources.fallback_digest, matrix, np.zeros_like(held))
    return Portfolio(symbols, held, returns, covariance, passed_over)


def weight_rows(accepted: Sequence[Landed]) -> list[dict[str, Any]]:
    """The weights of snapshots as rows of `snapshot_weights`, one per symbol."""
    return [
        {
            "position": snapshot.position,
            "symbol": symbol,
            "day": snapshot.day,
            "world_id": snapshot.world_id,
            "weight": weight,
        }
        for snapshot in accepted
        for symbol, weight in json.loads(snapshot.body)["weights"].items()
    ]


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


def whole_series(series: Collection[str], symbols: Collection[str]) -> str | None:
    """The series, by name, that is of the whole portfolio; None where each symbol has its own.

    It is called ``portfolio``, or it is the only one and no symbol.
    """
    if PORTFOLIO_SERIES in series:
        return PORTFOLIO_SERIES
    only = next(iter(series)) if len(series) == 1 else None
    return None if only in symbols else only


def last_close(as_of: datetime) -> date:
    """The last day whose closing price is known at an instant: numbers never look ahead."""
    return as_of.date() if as_of.time() >= CLOSE_UTC else as_of.date() - timedelta(days=1)


def on_prices(
    sources: Sources, symbols: Sequence[str], weights: NDArray[np.float64], as_of: datetime
) -> Returns:
    """The returns of these positions (N,) on the price panel, up to the last close by `as_of`.

    Raises:
        SourceUnusable: a symbol without prices, a panel that ended long before, too few returns.
    """
    try:
        by_asset = sources.panel.window(symbols, last_close(as_of), sources.window)
    except (UnknownSymbol, PanelEnded) as error:
        raise SourceUnusable(str(error)) from error
    values = portfolio_returns(by_asset, weights)
    return _long_enough(Returns(PRICES, sources.panel.digest, values, by_asset), sources)


def _realized(
    body: Document, symbols: Sequence[str], weights: NDArray[np.float64], sources: Sources
) -> Returns:
    """Of the series ``portfolio``, or a single one that is no symbol; else of every symbol's."""
    series = _had(body, REALIZED, sources)
    # What a client offloaded may have an integer among its points; the hub has none inline.
    series = {name: list(map(float, points)) for name, points in series.items()}
    said = hashlib.sha256(json.dumps(series, sort_keys=True).encode()).hexdigest()
    name = whole_series(series, symbols)
    if name is not None:
        values, by_asset = np.array(series[name])[-sources.window :], None
    else:
        missing = [symbol for symbol in symbols if symbol not in series]
        if missing:
            raise SourceUnusable(f"realized_returns has no series for {', '.join(missing[:5])}")
        if len({len(series[symbol]) for symbol in symbols}) > 1:
            raise SourceUnusable("the series of realized_returns differ in length")
        columns = [series[symbol][-sources.window :] for symbol in symbols]
        by_asset = np.ascontiguousarray(np.array(columns).T)
        values = portfolio_returns(by_asset, weights)
    return _long_enough(Returns(REALIZED, f"sha256:{said}", values, by_asset), sources)


def _given(body: Document, symbols: Sequence[str], sources: Sources) -> Covariance:
    pairs = _had(body, COVARIANCE, sources)
    try:
        matrix = covariance_from_pairs(pairs, symbols)
    except RiskInputError as error:
        raise SourceUnusable(f"covariance: {error}") from error
    return Covariance(COVARIANCE, digest(canonical_json(pairs)), matrix, np.zeros(len(symbols)))


def _names(body: Document, field: str) -> bool:
    return bool(body.get(field)) or BLOB_FIELDS[field] in body


def _had(body: Document, field: str, sources: Sources) -> Any:
    try:
        return field_of(body, field, sources.blobs)
    except BlobUnusable as error:
        raise SourceUnusable(f"{BLOB_FIELDS[field]} {error}") from error


def _long_enough(returns: Returns, sources: Sources) -> Returns:
    n = len(returns.values)
    if n < sources.min_returns:
        raise SourceUnusable(f"{n} returns; {sources.min_returns} are needed")
    return returns


def _sample(returns: Returns) -> Covariance:
    if returns.by_asset is None:
        raise SourceUnusable(f"{returns.source} has no returns of each position")
    matrix, means = sample_covariance(returns.by_asset), returns.by_asset.mean(axis=0)
    return Covariance(returns.source, returns.digest, matrix, means)
