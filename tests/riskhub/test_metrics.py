"""From accepted snapshots to their rows: numbers, their sources, and why one is absent."""

import json
from dataclasses import replace
from math import fsum
from typing import Any

import numpy as np
import pytest
from measurable import LAST_DAY, PANEL, WEIGHTS, accepted
from scipy import stats

from riskhub.metrics import CODE_VERSION, NumbersRows, numbers_of
from riskhub.portfolio import Sources
from riskhub.risk import (
    LEVELS,
    cornish_fisher,
    ewma,
    filtered_historical,
    format_level,
    measure,
    monte_carlo,
    student_t,
)
from riskhub.settings import RiskSettings
from riskhub.store.landing import Landed
from riskhub.store.tables import candidate_risk, risk_contributions, risk_metrics, risk_tails

NUMBERS = ("mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown")
METHODS = (
    "historical",
    "normal",
    "cornish_fisher",
    "student_t",
    "ewma",
    "filtered_historical",
    "monte_carlo",
)
SIMULATION = RiskSettings(draws=2_000)
COVARIANCE = {"AAA,AAA": 4e-4, "BBB,BBB": 1e-4, "AAA,BBB": 1e-4}


def sources(*, window: int = 250, min_returns: int = 100) -> Sources:
    return Sources(PANEL, window, min_returns, sigma=0.03, correlation=0.8)


def rows_of(
    weights: dict[str, float] = WEIGHTS, *, min_returns: int = 100, **fields: Any
) -> NumbersRows:
    snapshot = accepted(weights, **fields)
    (rows,) = numbers_of(
        [snapshot], {snapshot.position: weights}, sources(min_returns=min_returns), SIMULATION
    )
    return rows


def series() -> np.ndarray[Any, Any]:
    """The portfolio's returns on the panel, by hand."""
    steps = PANEL.prices[1:] / PANEL.prices[:-1] - 1
    result: np.ndarray[Any, Any] = (steps[-250:, 0] * 1.5) - (steps[-250:, 1] * 0.5)
    return result


def tails(rows: NumbersRows, method: str) -> dict[str, dict[str, Any]]:
    return {row["level"]: row for row in rows.tails if row["method"] == method}


# -- the numbers ----------------------------------------------------------------------------------


def test_the_row_holds_the_numbers_of_the_returns_and_where_they_came_from() -> None:
    snapshot, made = accepted(), rows_of().metrics
    numbers = measure(series())
    for name in NUMBERS:
        assert made.pop(name) == pytest.approx(getattr(numbers, name), rel=1e-12), name
    for name in ("diversification_ratio", "effective_bets"):
        assert made.pop(name) > 1, name
    assert made == {
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
        "gross": 2.0,
        "net": 1.0,
        "largest": 1.5,
        "herfindahl": 0.75**2 + 0.25**2,
        "effective_names": 1 / (0.75**2 + 0.25**2),
        "snapshot_digest": snapshot.digest,
        "returns_source": "prices",
        "returns_digest": "sha256:panel",
        "covariance_source": "prices",
        "covariance_digest": "sha256:panel",
        "contributions_level": "0.99",
        "passed_over": {},
        "absent": {},
        "code_version": CODE_VERSION,
    }


def test_there_is_a_tail_for_each_method_and_level() -> None:
    made = rows_of()
    assert {(row["method"], row["level"]) for row in made.tails} == {
        (method, format_level(level)) for method in METHODS for level in LEVELS
    }
    assert len(made.tails) == len(METHODS) * len(LEVELS)
    for row in made.tails:
        assert (row["position"], row["day"], row["source"]) == (7, LAST_DAY, "prices")
        assert row["es"] >= row["var"] > 0
        assert (row["var_error"] is not None) == (row["method"] == "monte_carlo")


def test_a_tail_is_that_of_its_method_on_the_same_returns() -> None:
    made, returns = rows_of(), series()
    by_measure = {(tail.method, tail.level): tail for tail in measure(returns).tails}
    for level in LEVELS:
        for method, expected in (
            ("historical", by_measure["historical", level]),
            ("normal", by_measure["normal", level]),
            ("cornish_fisher", cornish_fisher(returns, level)),
            ("student_t", student_t(returns, level)),
            ("ewma", ewma(returns, level)),
            ("filtered_historical", filtered_historical(returns, level)),
        ):
            found = tails(made, method)[format_level(level)]
            assert found["var"] == pytest.approx(expected.var, rel=1e-9), (method, level)
            assert found["es"] == pytest.approx(expected.es, rel=1e-9), (method, level)
            assert found["rank"] == expected.rank


def test_a_simulated_tail_is_that_of_the_settings_and_within_its_error_of_the_law() -> None:
    made = tails(rows_of(), "monte_carlo")["0.99"]
    columns = PANEL.returns[-250:, :2]
    mean, covariance, weights = columns.mean(axis=0), np.cov(columns.T), np.array([1.5, -0.5])
    expected = monte_carlo(mean, covariance, weights, LEVELS[-1], 2_000, 0, 5.0)
    assert made["var"] == pytest.approx(expected.tail.var, rel=1e-9)
    assert made["var_error"] == pytest.approx(expected.var_error, rel=1e-9)
    sigma = np.sqrt(weights @ covariance @ weights)
    law = -weights @ mean - sigma * np.sqrt(3 / 5) * stats.t(5).ppf(0.01)
    assert abs(made["var"] - law) < 4 * made["var_error"]


def test_the_rows_fit_their_tables() -> None:
    made = rows_of(constraints={"candidate_id": "CCC", "candidate_weight": 0.1})
    assert made.metrics.keys() == set(risk_metrics.columns.keys())
    for rows, table in (
        (made.tails, risk_tails),
        (made.contributions, risk_contributions),
        (made.candidate, candidate_risk),
    ):
        assert rows
        for row in rows:
            assert row.keys() == set(table.columns.keys())


def test_the_same_snapshot_panel_and_code_give_the_same_rows() -> None:
    assert rows_of() == rows_of()
    assert rows_of(dict(reversed(WEIGHTS.items()))).tails == rows_of().tails


def test_a_snapshots_rows_do_not_depend_on_what_is_measured_along_with_it() -> None:
    books = [
        WEIGHTS,
        {"AAA": 1.0},
        {"AAA": 0.2, "BBB": 0.3, "CCC": 0.5},
        {"ZZZ": 1.0},
    ]
    snapshots = [replace(accepted(book), position=n) for n, book in enumerate(books)]
    wild = replace(accepted(realized_returns={"p": [1e200, -1e200] * 125}), position=4)
    snapshots.append(wild)  # no method that squares returns can take it
    weights = dict(enumerate([*books, WEIGHTS]))
    together = numbers_of(snapshots, weights, sources(), SIMULATION)
    for snapshot, rows in zip(snapshots, together, strict=True):
        alone = numbers_of([snapshot], weights, sources(), SIMULATION)
        assert [rows] == alone


# -- sources --------------------------------------------------------------------------------------


def test_the_normal_tail_of_a_covariance_of_its_own_is_its_own() -> None:
    made = rows_of(covariance=COVARIANCE)
    sigma = np.sqrt(1.5**2 * 4e-4 + 0.5**2 * 1e-4 - 2 * 1.5 * 0.5 * 1e-4)
    normal = tails(made, "normal")["0.99"]
    assert normal["var"] == pytest.approx(2.3263478740408408 * sigma, rel=1e-12)
    assert normal["source"] == "covariance"
    assert tails(made, "historical")["0.99"]["source"] == "prices"
    assert len(made.tails) == len(METHODS) * len(LEVELS)


def test_realized_returns_come_before_a_covariance() -> None:
    own = {"portfolio": list(np.random.default_rng(5).normal(0, 0.01, 250))}
    made = rows_of(covariance=COVARIANCE, realized_returns=own)
    assert tails(made, "normal")["0.99"]["source"] == "realized_returns"
    assert tails(made, "monte_carlo")["0.99"]["source"] == "covariance"
    assert made.metrics["covariance_source"] == "covariance"


def test_on_the_fallback_what_needs_returns_is_absent_and_says_why() -> None:
    made = rows_of({"ZZZ": 1.0})
    assert {row["method"] for row in made.tails} == {"normal", "monte_carlo"}
    assert {row["source"] for row in made.tails} == {"fallback"}
    assert tails(made, "normal")["0.99"]["var"] == pytest.approx(0.03 * 2.3263478740408408)
    assert made.metrics["volatility"] == pytest.approx(0.03)
    assert made.metrics["mean"] is None
    for method in set(METHODS) - {"normal", "monte_carlo"}:
        assert made.metrics["absent"][method] == "no prices for ZZZ"
    assert made.metrics["passed_over"] == {"prices": "no prices for ZZZ"}


@pytest.mark.parametrize(
    ("realized", "said"),
    [
        ({"AAA": [0.1]}, "no series for BBB"),
        ({"p": [0.01] * 99}, "99 returns; 100 are needed"),
    ],
)
def test_what_can_not_be_measured_says_why_and_is_null_never_zero(
    realized: dict[str, list[float]], said: str
) -> None:
    made = rows_of(realized_returns=realized)
    assert said in made.metrics["unavailable"]
    assert [made.metrics[name] for name in NUMBERS] == [None] * len(NUMBERS)
    assert (made.tails, made.contributions, made.metrics["n"]) == ([], [], 0)
    assert made.metrics["returns_source"] is made.metrics["covariance_source"] is None
    assert made.metrics["net"] == 1.0  # exposure is known without returns


def test_returns_too_large_for_a_method_leave_the_others() -> None:
    made = rows_of(realized_returns={"p": [1e200, -1e200] * 50})
    assert "too large" in made.metrics["absent"]["normal"]
    assert made.metrics["volatility"] is None
    assert tails(made, "historical")["0.99"]["var"] == 1e200


def test_just_enough_returns_are_enough() -> None:
    realized = {"p": [0.01, -0.01] * 50}
    assert rows_of(realized_returns=realized, min_returns=100).metrics["unavailable"] is None
    assert rows_of(realized_returns=realized, min_returns=101).metrics["unavailable"] is not None


def test_any_weights_that_the_contract_takes_can_be_told_of() -> None:
    extreme = {"AAA": 4e307, "BBB": -4e307, "CCC": 1.0}
    made = rows_of(extreme)
    assert tails(made, "historical")
    assert all(np.isfinite([row["var"], row["es"]]).all() for row in made.tails)
    assert "too large" in made.metrics["absent"]["normal"]
    assert made.metrics["gross"] == 8e307
    assert made.metrics["effective_names"] == pytest.approx(2.0)


def test_a_flat_series_has_no_risk_and_is_no_failure() -> None:
    made = rows_of(realized_returns={"p": [0] * 100})
    assert made.metrics["unavailable"] is None
    assert (made.metrics["volatility"], made.metrics["max_drawdown"]) == (0.0, 0.0)
    assert {(row["var"], row["es"]) for row in tails(made, "historical").values()} == {(0.0, 0.0)}
    assert {(row["var"], row["es"]) for row in tails(made, "normal").values()} == {(0.0, 0.0)}


# -- contributions and candidates -----------------------------------------------------------------


def test_components_add_up_to_the_tails_of_the_same_source() -> None:
    made = rows_of()
    for method, var, es in (
        ("normal", "var", "es"),
        ("historical", "historical_var", "historical_es"),
    ):
        tail = tails(made, method)["0.99"]
        for column, total in ((var, tail["var"]), (es, tail["es"])):
            parts = [row[column] for row in made.contributions]
            assert fsum(parts) == pytest.approx(total, rel=1e-9)
    assert [row["symbol"] for row in made.contributions] == ["AAA", "BBB"]
    assert [row["weight"] for row in made.contributions] == [1.5, -0.5]


def test_a_covariance_without_returns_has_normal_components_only() -> None:
    weights = {"XXX": 0.5, "YYY": 0.5}
    own = {"XXX,XXX": 4e-4, "YYY,YYY": 1e-4, "XXX,YYY": 0.0}
    made = rows_of(weights, covariance=own)
    # sigma^2 = 1e-4 + 0.25e-4: X has four fifths of the variance, and so of the VaR
    shares = [row["var"] for row in made.contributions]
    assert shares[0] / sum(shares) == pytest.approx(0.8)
    assert [row["historical_var"] for row in made.contributions] == [None, None]


def test_a_book_without_risk_has_no_contributions_and_says_so() -> None:
    made = rows_of({"XXX": 1.0}, covariance={"XXX,XXX": 0.0})
    assert made.contributions == []
    assert made.metrics["contributions_level"] is None
    assert made.metrics["absent"]["contributions"]


def test_a_candidate_is_measured_without_and_with_it() -> None:
    made = rows_of(constraints={"candidate_id": "CCC", "candidate_weight": 0.2})
    (row,) = (
        each for each in made.candidate if (each["method"], each["level"]) == ("normal", "0.99")
    )
    for name, weights in (("without", [1.5, -0.5, 0.0]), ("with", [1.2, -0.4, 0.2])):
        returns = PANEL.returns[-250:] @ np.array(weights)
        expected = 2.3263478740408408 * returns.std(ddof=1) - returns.mean()
        assert row[f"var_{name}"] == pytest.approx(expected, rel=1e-9)
    assert row["var_without"] == pytest.approx(tails(made, "normal")["0.99"]["var"], rel=1e-9)
    assert (row["funding"], row["source"]) == ("pro rata", "prices")
    assert {(each["method"], each["level"]) for each in made.candidate} == {
        (method, format_level(level)) for method in ("historical", "normal") for level in LEVELS
    }


def test_a_candidate_that_no_source_knows_is_absent_and_the_rest_is_there() -> None:
    made = rows_of(
        covariance=COVARIANCE, constraints={"candidate_id": "ZZZ", "candidate_weight": 0.2}
    )
    assert made.candidate == []
    assert "ZZZ" in made.metrics["absent"]["candidate"]
    assert made.tails


def test_the_candidate_of_a_stored_snapshot_is_read_from_its_constraints() -> None:
    snapshot: Landed = accepted(constraints={"max_weight": 0.5})
    assert json.loads(snapshot.body)["constraints"] == {"max_weight": 0.5}
    assert rows_of(constraints={"max_weight": 0.5}).candidate == []
