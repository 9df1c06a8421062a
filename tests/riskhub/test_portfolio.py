"""From a snapshot to what it is measured on: which source, and what is said when there is none."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measurable import LAST_DAY, PANEL, SYMBOLS, WEIGHTS, accepted

from riskhub.portfolio import Portfolio, Sources, portfolio_of
from riskhub.prices import PricePanel
from riskhub.risk import fallback_covariance
from riskhub.store.landing import Landed

COVARIANCE = {"AAA,AAA": 4e-4, "BBB,BBB": 1e-4, "AAA,BBB": 1e-4}


def measured(
    snapshot: Landed,
    weights: dict[str, float] = WEIGHTS,
    *,
    panel: PricePanel = PANEL,
    window: int = 250,
    min_returns: int = 1,
) -> Portfolio:
    sources = Sources(panel, window, min_returns, sigma=0.03, correlation=0.8)
    return portfolio_of(snapshot, weights, sources)


def values(weights: dict[str, float] = WEIGHTS, *, window: int = 250, **fields: Any) -> list[float]:
    returns = measured(accepted(weights, **fields), weights, window=window).returns
    assert returns is not None
    return list(returns.values)


# -- which returns --------------------------------------------------------------------------------


def test_without_returns_of_its_own_a_snapshot_is_measured_on_prices() -> None:
    returns = measured(accepted()).returns
    assert returns is not None
    by_hand = [
        1.5 * (today[0] / before[0] - 1) - 0.5 * (today[1] / before[1] - 1)
        for before, today in zip(PANEL.prices[-251:-1], PANEL.prices[-250:], strict=True)
    ]
    np.testing.assert_allclose(returns.values, by_hand, rtol=1e-9, atol=1e-15)
    assert (returns.source, returns.digest) == ("prices", "sha256:panel")


def test_prices_after_the_snapshots_day_are_not_looked_at() -> None:
    day = LAST_DAY - timedelta(days=100)
    until_then = PricePanel(SYMBOLS, PANEL.days[:-100], PANEL.prices[:-100], "sha256:shorter")
    expected = measured(accepted(day=day), panel=until_then).returns
    assert expected is not None
    np.testing.assert_array_equal(values(day=day), expected.values)


def test_the_portfolios_own_series_comes_first() -> None:
    realized = {"portfolio": [0.03, 0.01], "AAA": [0.5, 0.5], "BBB": [0.5, 0.5]}
    assert values(realized_returns=realized) == [0.03, 0.01]


def test_a_single_series_that_is_no_symbol_is_the_portfolio() -> None:
    assert values(realized_returns={"strategy 7": [0.03, 0.01]}) == [0.03, 0.01]


def test_series_of_every_symbol_are_combined_by_weight() -> None:
    realized = {"AAA": [0.01, 0.02], "BBB": [0.03, -0.01], "unheld": [9.0]}
    expected = [1.5 * 0.01 - 0.5 * 0.03, 1.5 * 0.02 + 0.5 * 0.01]
    assert values(realized_returns=realized) == pytest.approx(expected)


def test_the_single_series_of_a_single_symbol_is_scaled_by_its_weight() -> None:
    realized = {"AAA": [0.1, -0.1]}
    assert values({"AAA": 0.9995}, realized_returns=realized) == pytest.approx([0.09995, -0.09995])


@pytest.mark.parametrize(
    ("realized", "said"),
    [
        ({"AAA": [0.1]}, "no series for BBB"),
        ({"x": [0.1], "y": [0.1]}, "no series for AAA, BBB"),
        ({"AAA": [0.1, 0.2], "BBB": [0.1]}, "differ in length"),
    ],
)
def test_realized_returns_that_fit_no_form_are_not_replaced_by_prices(
    realized: dict[str, list[float]], said: str
) -> None:
    portfolio = measured(accepted(realized_returns=realized))
    assert (portfolio.returns, portfolio.covariance) == (None, None)
    assert said in portfolio.passed_over["realized_returns"]


def test_the_window_keeps_the_newest_whatever_the_source() -> None:
    assert values(window=2, realized_returns={"p": [0.1, 0.2, 0.3]}) == [0.2, 0.3]
    np.testing.assert_array_equal(values(window=3), values(window=250)[-3:])


def test_before_the_close_the_day_of_the_snapshot_is_not_known_yet() -> None:
    at_the_close = accepted()
    before_it = replace(at_the_close, as_of=at_the_close.as_of - timedelta(seconds=1))
    seen, known_later = measured(before_it).returns, measured(at_the_close, window=251).returns
    assert seen is not None
    assert known_later is not None
    np.testing.assert_array_equal(seen.values, known_later.values[:-1])


@pytest.mark.parametrize(
    ("snapshot", "weights", "said"),
    [
        (accepted({"AAA": 0.5, "ZZZ": 0.5}), {"AAA": 0.5, "ZZZ": 0.5}, "no prices for ZZZ"),
        (
            replace(accepted(), as_of=datetime(2026, 2, 7, 21, tzinfo=UTC)),
            WEIGHTS,
            "prices end on 2026-01-30",
        ),
        (accepted(day=PANEL.days[20]), WEIGHTS, "20 returns; 100 are needed"),
        (accepted(day=date(1990, 1, 2)), WEIGHTS, "0 returns; 100 are needed"),
    ],
)
def test_of_what_nothing_is_known_the_fallback_is_taken_and_why_is_said(
    snapshot: Landed, weights: dict[str, float], said: str
) -> None:
    portfolio = measured(snapshot, weights, min_returns=100)
    assert portfolio.returns is None
    assert said in portfolio.passed_over["prices"]
    assert portfolio.covariance is not None
    assert portfolio.covariance.source == "fallback"
    expected = fallback_covariance([weights[symbol] for symbol in sorted(weights)], 0.03, 0.8)
    np.testing.assert_array_equal(portfolio.covariance.matrix, expected)


def test_the_digest_of_the_fallback_is_that_of_its_settings() -> None:
    snapshot = accepted({"ZZZ": 1.0})
    found = measured(snapshot, {"ZZZ": 1.0}).covariance
    expected = hashlib.sha256(b'{"correlation":0.8,"sigma":0.03}').hexdigest()
    assert found is not None
    assert found.digest == f"sha256:{expected}"


# -- which covariance -----------------------------------------------------------------------------


def test_prices_give_the_sample_covariance_of_the_same_returns() -> None:
    portfolio = measured(accepted())
    columns = PANEL.returns[-250:, :2]  # AAA, BBB
    assert portfolio.covariance is not None
    assert portfolio.covariance.source == "prices"
    np.testing.assert_allclose(portfolio.covariance.matrix, np.cov(columns.T), rtol=1e-10)
    np.testing.assert_allclose(portfolio.covariance.means, columns.mean(axis=0), rtol=1e-10)


def test_a_covariance_of_its_own_comes_before_that_of_prices() -> None:
    portfolio = measured(accepted(covariance=COVARIANCE))
    assert portfolio.covariance is not None
    assert portfolio.returns is not None
    assert portfolio.covariance.source == "covariance"
    assert portfolio.returns.source == "prices"  # a series can't be had from a covariance
    np.testing.assert_array_equal(portfolio.covariance.matrix, [[4e-4, 1e-4], [1e-4, 1e-4]])
    np.testing.assert_array_equal(portfolio.covariance.means, [0, 0])


def test_realized_series_of_every_symbol_come_before_a_covariance() -> None:
    realized = {"AAA": [0.01, 0.02, -0.01], "BBB": [0.03, -0.01, 0.0]}
    portfolio = measured(accepted(covariance=COVARIANCE, realized_returns=realized))
    assert portfolio.covariance is not None
    assert portfolio.covariance.source == "realized_returns"
    expected = np.cov([realized["AAA"], realized["BBB"]])
    np.testing.assert_allclose(portfolio.covariance.matrix, expected, rtol=1e-12)


def test_a_series_of_the_portfolio_alone_leaves_the_covariance_to_the_next_source() -> None:
    own = {"realized_returns": {"portfolio": [0.01, -0.01, 0.02]}}
    by_prices = measured(accepted(**own))
    by_covariance = measured(accepted(covariance=COVARIANCE, **own))
    for portfolio, source in ((by_prices, "prices"), (by_covariance, "covariance")):
        assert portfolio.returns is not None
        assert portfolio.covariance is not None
        assert portfolio.returns.source == "realized_returns"
        assert portfolio.covariance.source == source


def test_a_covariance_that_lacks_a_pair_is_not_replaced_by_another() -> None:
    snapshot = accepted(covariance=COVARIANCE)
    body = json.loads(snapshot.body)
    del body["covariance"]["AAA,BBB"]
    portfolio = measured(replace(snapshot, body=json.dumps(body)))
    assert portfolio.covariance is None
    assert "AAA,BBB" in portfolio.passed_over["covariance"]


def test_returns_that_are_too_short_are_refused_and_not_stretched() -> None:
    snapshot = accepted(realized_returns={"p": [0.01] * 99})
    portfolio = measured(snapshot, min_returns=100)
    assert portfolio.returns is None
    assert portfolio.passed_over == {"realized_returns": "99 returns; 100 are needed"}
    assert measured(snapshot, min_returns=99).returns is not None


def test_the_digest_of_realized_returns_is_that_of_the_series() -> None:
    realized = {"p": [0.25, 1]}
    found = measured(accepted(realized_returns=realized)).returns
    expected = hashlib.sha256(json.dumps({"p": [0.25, 1.0]}, sort_keys=True).encode()).hexdigest()
    assert found is not None
    assert found.digest == f"sha256:{expected}"


@given(st.permutations(sorted(WEIGHTS)))
def test_the_order_of_the_weights_makes_no_difference(order: list[str]) -> None:
    shuffled = {symbol: WEIGHTS[symbol] for symbol in order}
    found = measured(accepted(), shuffled).returns
    assert found is not None
    np.testing.assert_array_equal(found.values, values())
