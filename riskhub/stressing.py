"""From a portfolio and a book of scenarios to its stress results, as rows.

Ties the pure kernels of `riskhub.risk.stress` to scenarios, the price panel and portfolios, and
gives rows for the tables `snapshot_stress` and `stress_results`. What can't be had is a row that
says why, never a zero. Deterministic: the same portfolio, book, panel and code give the same rows,
whatever else is computed along with it; and nothing after a portfolio's last close enters.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub.blobs import BLOB_FIELDS, BlobStore
from riskhub.errors import BlobUnusable
from riskhub.metrics import CODE_VERSION
from riskhub.portfolio import Portfolio, field_of, last_close
from riskhub.prices import PricePanel
from riskhub.risk import RiskInputError, Tail, beta_shock, gap, parse_level, reverse_stress
from riskhub.risk.stress import buy_and_hold, cumulative_returns, stressed_tails
from riskhub.scenarios import (
    CovarianceShift,
    Gap,
    Historical,
    MarketMove,
    Scenario,
    ScenarioAhead,
    ScenarioBook,
    ScenarioUnavailable,
    columns_of,
    panel_betas,
    refuse_ahead,
    window_returns,
)
from riskhub.settings import RiskSettings
from riskhub.store.landing import Landed
from riskhub.strict_json import Document

LEVEL = parse_level("0.99")
STRESS = "stress"

# What windows of returns may take in memory, made once for all portfolios of the same symbols.
_WINDOW_BYTES = 64 * 2**20
# A bulk load may come a world at a time: as many last closes as a run reads at once.
_LAST_CLOSES = 64

Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StressRows:
    """One portfolio's row in `snapshot_stress`, and its rows in `stress_results`.

    `lacking`: scenario and reason of every result that can't be had, but for those of scenarios
    that still lay ahead.
    """

    snapshot: Row
    results: list[Row]
    lacking: list[tuple[str, str]]


def stress_tables(made: Sequence[StressRows]) -> dict[str, list[Row]]:
    """What is written of the stress of snapshots, by table; `snapshot_stress` is the first."""
    return {
        "snapshot_stress": [rows.snapshot for rows in made],
        "stress_results": [row for rows in made for row in rows.results],
    }


class StressRunner:
    """A book of scenarios ready to be run over many portfolios, on one price panel.

    Keeps what portfolios share, in bounded memory: the windows of a set of symbols, the betas of
    a last close.
    """

    def __init__(self, book: ScenarioBook, panel: PricePanel, settings: RiskSettings) -> None:
        self._book = book
        self._panel = panel
        self._loss_limit = settings.loss_limit
        self._shifts = [each for each in book.scenarios if isinstance(each, CovarianceShift)]
        self._windows = _Windows(_WINDOW_BYTES)
        self._betas = lru_cache(_LAST_CLOSES)(
            lambda scenario, close: panel_betas(scenario, panel, close)
        )

    def rows_of(
        self, snapshot: Landed, portfolio: Portfolio, blobs: BlobStore | None = None
    ) -> StressRows:
        """The rows of an accepted snapshot, with the results that its producer sent.

        Args:
            blobs: where references of the snapshot lead; None when large fields stay inline.

        Raises:
            BlobsUnavailable: an outage says nothing about the snapshot; safe to try again.
        """
        stressed = self.of(portfolio, snapshot.as_of)
        own = producer_rows(json.loads(snapshot.body), blobs)
        lost = [(row["scenario"], row["unavailable"]) for row in own if row["unavailable"]]
        place = {"position": snapshot.position, "day": snapshot.day}
        named = place | {
            "world_id": snapshot.world_id,
            "version": snapshot.version,
            "as_of": snapshot.as_of,
            "stage": snapshot.stage,
            "snapshot_digest": snapshot.digest,
        }
        return StressRows(
            named | stressed.snapshot,
            [place | row for row in (*stressed.results, *own)],
            stressed.lacking + lost,
        )

    def of(self, portfolio: Portfolio, as_of: datetime) -> StressRows:
        """The rows of a portfolio as of an instant, without what names a snapshot.

        One result for each scenario, in the order of the book. Touches no file and no store.
        """
        close = last_close(as_of)
        tails = self._tails(portfolio)
        results: list[Row] = []
        lacking: list[tuple[str, str]] = []
        for scenario in self._book.scenarios:
            try:
                numbers = self._numbers(scenario, portfolio, close, tails)
            except ScenarioAhead as error:
                numbers = {"unavailable": error.reason}
            except ScenarioUnavailable as error:
                numbers = {"unavailable": error.reason}
                lacking.append((scenario.id, error.reason))
            except RiskInputError as error:
                numbers = {"unavailable": str(error)}
                lacking.append((scenario.id, str(error)))
            results.append({"origin": "riskhub", "scenario": scenario.id} | _NO_NUMBERS | numbers)
        covariance = portfolio.covariance
        snapshot = {
            "book_digest": self._book.digest,
            "prices_digest": self._panel.digest,
            "covariance_source": covariance.source if covariance else None,
            "loss_limit": self._loss_limit,
            **_smallest_shocks(portfolio.weights, self._loss_limit),
            "code_version": CODE_VERSION,
        }
        return StressRows(snapshot, results, lacking)

    def _numbers(
        self, scenario: Scenario, portfolio: Portfolio, close: date, tails: dict[str, Tail] | str
    ) -> Row:
        match scenario:
            case Historical():
                cumulative = self._cumulative(scenario, portfolio.symbols, close)
                held = buy_and_hold(portfolio.weights, cumulative)
                return {
                    "pnl": held.pnl,
                    "worst": held.worst,
                    "max_drawdown": held.max_drawdown,
                    "ruined": held.ruined,
                }
            case CovarianceShift():
                if isinstance(tails, str):
                    raise ScenarioUnavailable(scenario.id, tails)
                return {"var": tails[scenario.id].var, "es": tails[scenario.id].es}
            case Gap():
                return {"pnl": gap(portfolio.weights, scenario.size, scenario.count).pnl}
            case MarketMove():
                refuse_ahead(scenario, close)
                columns = columns_of(scenario, self._panel, portfolio.symbols)
                betas = self._betas(scenario, close)[columns]
                return {"pnl": beta_shock(portfolio.weights, betas, scenario.move).pnl}

    def _tails(self, portfolio: Portfolio) -> dict[str, Tail] | str:
        """By scenario, under the covariance that it shifts; or why there are none."""
        if portfolio.covariance is None:
            return f"no covariance: {portfolio.why_no_covariance}"
        shifts = [(each.volatility, each.toward_one) for each in self._shifts]
        try:
            tails = stressed_tails(portfolio.weights, portfolio.covariance.matrix, LEVEL, shifts)
        except RiskInputError as error:
            return str(error)
        return {each.id: tail for each, tail in zip(self._shifts, tails, strict=True)}

    def _cumulative(self, scenario: Historical, symbols: tuple[str, ...], close: date) -> Floats:
        refuse_ahead(scenario, close)
        return self._windows.get(
            (scenario.id, symbols),
            lambda: cumulative_returns(window_returns(scenario, self._panel, symbols, close)),
        )


def producer_rows(body: Document, blobs: BlobStore | None) -> list[Row]:
    """A snapshot's own stress block as rows, without what names the snapshot.

    What stands behind a reference that can't be had is one row that says so.

    Raises:
        BlobsUnavailable: safe to try again.
    """
    try:
        block = field_of(body, STRESS, blobs) or {}
    except BlobUnusable as error:
        return [_producer_row(BLOB_FIELDS[STRESS], {"unavailable": str(error)})]
    return [_producer_row(scenario, {"measures": block[scenario]}) for scenario in sorted(block)]


def book_rows(book: ScenarioBook) -> list[Row]:
    """What the scenarios of a book say, as rows of `scenario_books` without its digest."""
    return [
        {
            "scenario": scenario.id,
            "place": place,
            "kind": scenario.kind,
            "label": scenario.label,
            "definition": scenario.model_dump(mode="json"),
        }
        for place, scenario in enumerate(book.scenarios)
    ]


_NO_NUMBERS: Row = dict.fromkeys(
    ("pnl", "worst", "max_drawdown", "ruined", "var", "es", "unavailable", "measures")
)


def _producer_row(scenario: str, said: Row) -> Row:
    return {"origin": "producer", "scenario": scenario} | _NO_NUMBERS | said


def _smallest_shocks(weights: Floats, limit: float) -> Row:
    try:
        shocks = reverse_stress(weights, limit)
    except RiskInputError:  # nothing is held: no shock loses anything
        return {"against": None, "market": None}
    return {"against": shocks.against, "market": shocks.market}


class _Windows:
    """Arrays by key, within so many bytes: the least recently used are given up."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[Hashable, Floats] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Floats]) -> Floats:
        """What is held under a key, or is made now."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        array = make()
        self._held[key] = array
        self._bytes += array.nbytes
        while self._bytes > self._max_bytes:
            _, given_up = self._held.popitem(last=False)
            self._bytes -= given_up.nbytes
        return array
