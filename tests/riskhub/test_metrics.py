"""From an accepted snapshot to its rows: which returns were taken, and what is said without any."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from builders import accept
from hypothesis import given
from hypothesis import strategies as st

from riskhub.metrics import CODE_VERSION, MetricsRows, ReturnsUnavailable, metrics_of, returns_of
from riskhub.prices import PricePanel
from riskhub.risk import LEVELS, format_level, measure
from riskhub.store.landing import Landed
from riskhub.store.tables import risk_metrics, risk_tails

SYMBOLS = ("AAA", "BBB", "CCC")
LAST_DAY = date(2026, 1, 30)
NUMBERS = ("mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown")


def panel_of(length: int = 400) -> PricePanel:
    """Three symbols that wander, on every day up to `LAST_DAY`."""
    steps = np.random.default_rng(11).normal(0, 0.01, (length, len(SYMBOLS)))
    prices = 100 * np.cumprod(1 + steps, axis=0)
    days = tuple(LAST_DAY - timedelta(days=length - 1 - n) for n in range(length))
    return PricePanel(SYMBOLS, days, prices, "sha256:panel")


PANEL = panel_of()
WEIGHTS = {"BBB": -0.5, "AAA": 1.5}


def accepted(weights: dict[str, float] = WEIGHTS, *, day: date = LAST_DAY, **fields: Any) -> Landed:
    as_of = f"{day}T21:00:00Z"
    snapshot = accept(as_of=as_of, weights=weights, **fields)
    return Landed(
        position=7,
        world_id=snapshot.world_id,
        version=snapshot.version,
        as_of=snapshot.as_of,
        stage=snapshot.stage,
        digest=snapshot.digest,
        body=snapshot.body,
    )


def values(weights: dict[str, float] = WEIGHTS, *, window: int = 250, **fields: Any) -> list[float]:
    return list(returns_of(accepted(weights, **fields), weights, PANEL, window).values)


def rows_of(
    weights: dict[str, float] = WEIGHTS,
    *,
    window: int = 250,
    min_returns: int = 100,
    **fields: Any,
) -> MetricsRows:
    return metrics_of(
        accepted(weights, **fields), weights, PANEL, window=window, min_returns=min_returns
    )


# -- which returns --------------------------------------------------------------------------------


def test_without_returns_of_its_own_a_snapshot_is_measured_on_prices() -> None:
    returns = returns_of(accepted(), WEIGHTS, PANEL, 250)
    by_hand = [
        1.5 * (today[0] / before[0] - 1) - 0.5 * (today[1] / before[1] - 1)
        for before, today in zip(PANEL.prices[-251:-1], PANEL.prices[-250:], strict=True)
    ]
    np.testing.assert_allclose(returns.values, by_hand, rtol=1e-9, atol=1e-15)
    assert (returns.source, returns.digest) == ("prices", "sha256:panel")


def test_prices_after_the_snapshots_day_are_not_looked_at() -> None:
    day = LAST_DAY - timedelta(days=100)
    until_then = PricePanel(SYMBOLS, PANEL.days[:-100], PANEL.prices[:-100], "sha256:shorter")
    expected = returns_of(accepted(day=day), WEIGHTS, until_then, 250).values
    np.testing.assert_array_equal(values(day=day), expected)


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
    with pytest.raises(ReturnsUnavailable, match=said):
        values(realized_returns=realized)


def test_the_window_keeps_the_newest_whatever_the_source() -> None:
    assert values(window=2, realized_returns={"p": [0.1, 0.2, 0.3]}) == [0.2, 0.3]
    np.testing.assert_array_equal(values(window=3), values(window=250)[-3:])


def test_before_the_close_the_day_of_the_snapshot_is_not_known_yet() -> None:
    at_the_close = accepted()
    before_it = replace(at_the_close, as_of=at_the_close.as_of - timedelta(seconds=1))
    seen = returns_of(before_it, WEIGHTS, PANEL, 250).values
    known_later = returns_of(at_the_close, WEIGHTS, PANEL, 251).values
    np.testing.assert_array_equal(seen, known_later[:-1])


def test_a_symbol_without_prices_or_a_panel_that_ended_is_said() -> None:
    with pytest.raises(ReturnsUnavailable, match="no prices for ZZZ"):
        values({"AAA": 0.5, "ZZZ": 0.5})
    late = replace(accepted(), as_of=datetime(2026, 2, 7, 21, tzinfo=UTC))
    with pytest.raises(ReturnsUnavailable, match="prices end on 2026-01-30"):
        returns_of(late, WEIGHTS, PANEL, 250)


def test_the_digest_of_realized_returns_is_that_of_the_series() -> None:
    realized = {"p": [0.25, 1]}
    found = returns_of(accepted(realized_returns=realized), WEIGHTS, PANEL, 1).digest
    expected = hashlib.sha256(json.dumps({"p": [0.25, 1.0]}, sort_keys=True).encode()).hexdigest()
    assert found == f"sha256:{expected}"


@given(st.permutations(sorted(WEIGHTS)))
def test_the_order_of_the_weights_makes_no_difference(order: list[str]) -> None:
    shuffled = {symbol: WEIGHTS[symbol] for symbol in order}
    found = returns_of(accepted(), shuffled, PANEL, 250).values
    np.testing.assert_array_equal(found, values())


# -- the rows -------------------------------------------------------------------------------------


def test_the_row_holds_the_numbers_of_the_returns_and_where_they_came_from() -> None:
    snapshot = accepted()
    made = rows_of()
    numbers = measure(values())
    assert made.metrics == {
        "position": 7,
        "day": LAST_DAY,
        "world_id": snapshot.world_id,
        "version": snapshot.version,
        "as_of": snapshot.as_of,
        "stage": snapshot.stage,
        "unavailable": None,
        "horizon_days": 1,
        "window": 250,
        "n": 250,
        **{name: getattr(numbers, name) for name in NUMBERS},
        "gross": 2.0,
        "net": 1.0,
        "largest": 1.5,
        "herfindahl": 0.75**2 + 0.25**2,
        "effective_names": 1 / (0.75**2 + 0.25**2),
        "snapshot_digest": snapshot.digest,
        "returns_source": "prices",
        "returns_digest": "sha256:panel",
        "code_version": CODE_VERSION,
    }


def test_there_is_a_tail_for_each_method_and_level() -> None:
    made = rows_of()
    assert [(row["method"], row["level"]) for row in made.tails] == [
        (method, format_level(level)) for method in ("historical", "normal") for level in LEVELS
    ]
    for row in made.tails:
        assert (row["position"], row["day"]) == (7, LAST_DAY)
        assert row["es"] >= row["var"] > 0
    for row, tail in zip(made.tails, measure(values()).tails, strict=True):
        assert (row["var"], row["es"]) == (tail.var, tail.es)
        assert (row["rank"], row["var_next"]) == (tail.rank, tail.var_next)


def test_the_rows_fit_their_tables() -> None:
    made = rows_of()
    assert made.metrics.keys() == set(risk_metrics.columns.keys())
    for row in made.tails:
        assert row.keys() == set(risk_tails.columns.keys())


def test_the_same_snapshot_panel_and_code_give_the_same_rows() -> None:
    assert rows_of() == rows_of()
    assert rows_of(dict(reversed(WEIGHTS.items()))).tails == rows_of().tails


@pytest.mark.parametrize(
    ("weights", "fields", "n", "source", "said"),
    [
        ({"ZZZ": 1.0}, {}, 0, None, "no prices for ZZZ"),
        (WEIGHTS, {"realized_returns": {"AAA": [0.1]}}, 0, None, "no series for BBB"),
        (
            WEIGHTS,
            {"realized_returns": {"p": [0.01] * 99}},
            99,
            "realized_returns",
            "99 returns; 100 are needed",
        ),
        (
            WEIGHTS,
            {"realized_returns": {"p": [1e200, -1e200] * 50}},
            100,
            "realized_returns",
            "too large",
        ),
        (WEIGHTS, {"day": PANEL.days[20]}, 20, "prices", "20 returns; 100 are needed"),
        (WEIGHTS, {"day": date(1990, 1, 2)}, 0, "prices", "0 returns; 100 are needed"),
    ],
)
def test_what_can_not_be_measured_says_why_and_is_null_never_zero(
    weights: dict[str, float], fields: dict[str, Any], n: int, source: str | None, said: str
) -> None:
    made = rows_of(weights, **fields)
    assert said in made.metrics["unavailable"]
    assert [made.metrics[name] for name in NUMBERS] == [None] * len(NUMBERS)
    assert (made.tails, made.metrics["n"], made.metrics["returns_source"]) == ([], n, source)
    assert (made.metrics["returns_digest"] is None) == (source is None)
    assert made.metrics["net"] == sum(weights.values())  # exposure is known without returns


def test_just_enough_returns_are_enough() -> None:
    realized = {"p": [0.01, -0.01] * 50}
    assert rows_of(realized_returns=realized, min_returns=100).metrics["unavailable"] is None
    assert rows_of(realized_returns=realized, min_returns=101).metrics["unavailable"] is not None


def test_any_weights_that_the_contract_takes_can_be_told_of() -> None:
    extreme = {"AAA": 4e307, "BBB": -4e307, "CCC": 1.0}
    made = rows_of(extreme)
    assert made.metrics["unavailable"]
    assert made.metrics["gross"] == 8e307
    assert made.metrics["effective_names"] == pytest.approx(2.0)


def test_a_flat_series_has_no_risk_and_is_no_failure() -> None:
    made = rows_of(realized_returns={"p": [0] * 100})
    assert made.metrics["unavailable"] is None
    assert (made.metrics["volatility"], made.metrics["max_drawdown"]) == (0.0, 0.0)
    assert {row["var"] for row in made.tails} == {0.0}
