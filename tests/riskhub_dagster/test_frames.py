"""What speaks against a snapshot, what is flagged, what is measured, and how the UI shows it."""

import json
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import accept
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaError

from riskhub.prices import PriceFileError, PriceFileMissing
from riskhub.store.landing import Landed
from riskhub.strict_json import LARGEST
from riskhub_dagster.frames import (
    WEIGHTS,
    Judge,
    Verdict,
)
from riskhub_dagster.frames.facts import covariance_facts
from riskhub_dagster.frames.schemas import frame_of

PAIR = {"AAPL": 0.5, "BAC": 0.5}
NOT_SEMIDEFINITE = "the covariance is not positive semidefinite"
NOT_SYMMETRIC = "the covariance is not symmetric"
PAIR_MISSING = "the covariance lacks a pair of symbols that carry weight"
LOST_ALL = "a realized return is -100 % or worse"
TOO_SHORT = "realized_returns has fewer than 2 points"
UNEVEN = "the series of realized_returns differ in length"
LEVERAGE = "a weight is beyond 100 times equity"
SCENARIO_NAME = "a stress scenario's name is not 1 to 256 printable characters"
MEASURE_NAME = "a stress measure's name is not 1 to 128 printable characters"
MIN_RETURNS = 3
UP_AND_DOWN = [0.01, -0.02, 0.03]


def landed(position: int = 1, **overrides: Any) -> Landed:
    snapshot = accept(**({"weights": PAIR} | overrides))
    return Landed(
        position,
        snapshot.world_id,
        snapshot.version,
        snapshot.as_of,
        snapshot.stage,
        snapshot.digest,
        snapshot.body,
    )


def verdicts(
    *judged: Landed, known: Collection[str] | PriceFileError = ("AAPL", "BAC")
) -> dict[int, Verdict]:
    return Judge(MIN_RETURNS, lambda: known).verdicts(judged)


def verdict(known: Collection[str] | PriceFileError = ("AAPL", "BAC"), **overrides: Any) -> Verdict:
    (only,) = verdicts(landed(**overrides), known=known).values()
    return only


def covariance(first: float, second: float, between: float) -> dict[str, float]:
    return {"AAPL,AAPL": first, "BAC,BAC": second, "AAPL,BAC": between}


# --- reasons -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"covariance": covariance(1e-4, 1e-4, 2e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-4, 1e-4, 1.0000001e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(0.0, 0.0, 1e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-4, 0.0, 1e-6)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-300, 1e-300, 1e300)}, NOT_SEMIDEFINITE),
        ({"covariance": {"AAPL,AAPL": 1e-4, "BAC,BAC": 1e-4}}, PAIR_MISSING),
        ({"covariance": {"AAPL,AAPL": 1e-4}}, PAIR_MISSING),
        ({"realized_returns": {"portfolio": [0.1, -1.0, 0.2]}}, LOST_ALL),
        ({"realized_returns": {"AAPL": [0.1, 0.2], "BAC": [0.1, -1.5]}}, LOST_ALL),
        ({"realized_returns": {"portfolio": [0.1]}}, TOO_SHORT),
        ({"realized_returns": {"AAPL": [0.1, 0.2, 0.3], "BAC": [0.1, 0.2]}}, UNEVEN),
        ({"weights": {"AAPL": 1000.0, "BAC": -999.0}}, LEVERAGE),
        ({"stress": {"": {"pnl": -0.1}}}, SCENARIO_NAME),
        ({"stress": {"x" * 257: {"pnl": -0.1}}}, SCENARIO_NAME),
        ({"stress": {"one\ntwo": {}}}, SCENARIO_NAME),
        ({"stress": {"crash": {"": -0.1}}}, MEASURE_NAME),
        ({"stress": {"crash": {"m" * 129: -0.1}}}, MEASURE_NAME),
    ],
)
def test_a_bad_snapshot_has_one_reason_against_it(overrides: dict[str, Any], reason: str) -> None:
    judged = verdict(**overrides)

    assert judged.reasons == [reason]
    assert not judged.accepted


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"weights": {"AAPL": 1}},
        {"weights": {"AAPL": 101.0 - 1.0, "BAC": -99.0}},
        {"weights": {"AAPL": 0.5, "BAC": 0.4995}},
        {"covariance": {"BAC,AAPL": 1e-4, "AAPL,AAPL": 1e-4, "BAC,BAC": 1e-4}},
        {"covariance": covariance(0.0, 0.0, 0.0)},
        {"covariance": covariance(1e-4, 2e-4, -1e-4) | {"XOM,XOM": 1e-4}},
        {"covariance": covariance(1e300, 1e300, -1e300)},
        {"covariance": covariance(1e-4, 1e-4, 1.00000001e-4)},  # rounded to eight digits
        {"realized_returns": {"portfolio": [0.1, -0.999, 0.2]}},
        {"realized_returns": {"AAPL": UP_AND_DOWN, "BAC": [0.0, 0.1, 0.2]}},
        {"realized_returns": {"portfolio": UP_AND_DOWN, "AAPL": [0.1, 0.2]}},
        {"realized_returns": {"AAPL": UP_AND_DOWN, "BAC": [0.0] * 3}},  # cash
        {"realized_returns": {"fund": [0.1] + [0.0] * 4}},  # a quiet week
        {"stress": {"Crash '87": {"pnl": -0.2, "largest loss": LARGEST}}},
    ],
)
def test_nothing_is_said_against_a_sound_snapshot(overrides: dict[str, Any]) -> None:
    judged = verdict(**overrides)

    assert (judged.reasons, judged.flags) == ([], [])


def test_mirrored_pairs_that_differ_are_refused_also_where_the_door_let_them_in() -> None:
    body = json.loads(landed().body) | {"covariance": covariance(1.0, 1.0, 0.5)}
    body["covariance"]["BAC,AAPL"] = 0.6
    (judged,) = verdicts(replace(landed(), body=json.dumps(body))).values()

    assert judged.reasons == [NOT_SYMMETRIC]
    assert "AAPL" in judged.evidence["covariance"]["asymmetry"]


def test_every_reason_is_told_once() -> None:
    judged = verdict(
        weights={"AAPL": 1000.0, "BAC": -999.0},
        covariance={"AAPL,AAPL": 1e-4},
        realized_returns={"portfolio": [-1.0]},
        stress={"": {"": 1.0}},
    )

    assert judged.reasons == [
        LEVERAGE, TOO_SHORT, LOST_ALL, PAIR_MISSING, SCENARIO_NAME, MEASURE_NAME,
    ]  # fmt: skip


def test_what_is_said_of_one_snapshot_is_said_of_no_other_in_the_batch() -> None:
    judged = verdicts(
        landed(7),
        landed(9, weights={"AAPL": 1000.0, "BAC": -999.0}),
        landed(12, realized_returns={"portfolio": [-1.0, 0.1, 0.2]}),
        landed(13, weights={"XOM": 1.0}),
        landed(14, covariance=covariance(1e-4, 1e-4, 2e-4)),
    )

    assert {position: each.reasons for position, each in judged.items()} == {
        7: [], 9: [LEVERAGE], 12: [LOST_ALL], 13: [], 14: [NOT_SEMIDEFINITE],
    }  # fmt: skip
    assert [position for position, each in judged.items() if each.flags] == [13]
    assert judged[7].evidence == {}


def test_no_snapshots_have_no_verdicts() -> None:
    assert verdicts() == {}


# --- flags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "flag"),
    [
        (
            {"realized_returns": {"portfolio": [0.1, 0.2]}},
            "realized_returns has 2 points; 3 make numbers",
        ),
        (
            {"realized_returns": {"AAPL": UP_AND_DOWN}},
            "realized_returns has no series for BAC",
        ),
        (
            {"realized_returns": {"AAPL": UP_AND_DOWN, "BAC": UP_AND_DOWN}},
            "realized_returns has the same series twice: AAPL = BAC",
        ),
        (
            {"realized_returns": {"AAPL": [0.1] * 6, "BAC": [0.1] + [0.0] * 5}},
            "realized_returns end in zeros, as if the rest were missing: BAC (5)",
        ),
        (
            {"realized_returns": {"portfolio": [0.1] + [0.0] * 7}},
            "realized_returns end in zeros, as if the rest were missing: portfolio (7)",
        ),
        ({"weights": {"XOM": 0.5, "GE": 0.5}}, "no returns, covariance or prices of GE, XOM"),
        ({"stress": {"crash": {}}}, "stress scenario crash has no measures"),
    ],
)  # fmt: skip
def test_what_is_worth_knowing_is_flagged_and_rejects_nothing(
    overrides: dict[str, Any], flag: str
) -> None:
    judged = verdict(**overrides)

    assert judged.flags == [flag]
    assert judged.accepted


@pytest.mark.parametrize(
    "own",
    [
        {"covariance": {"XOM,XOM": 1e-4}},
        {"realized_returns": {"XOM": UP_AND_DOWN}},
        {"realized_returns": {"portfolio": UP_AND_DOWN}},
    ],
)
def test_symbols_without_prices_are_fine_when_the_snapshot_needs_none(own: dict[str, Any]) -> None:
    assert verdict(weights={"XOM": 1.0}, **own).flags == []


def test_a_long_list_is_named_in_part_and_counted() -> None:
    weights = {f"S{number}": 0.125 for number in range(8)}

    judged = verdict(weights=weights)

    assert judged.flags == ["no returns, covariance or prices of S0, S1, S2, S3, S4 and 3 more"]
    assert judged.evidence["symbols"]["unknown"] == sorted(weights)


def test_prices_that_cannot_be_read_are_no_reason_to_judge_nothing() -> None:
    missing = PriceFileMissing(Path("prices.csv"))

    sound, bad = verdicts(
        landed(1), landed(2, weights={"AAPL": 200.0, "BAC": -199.0}), known=missing
    ).values()

    told = "whether there are prices of its symbols is not known: price file prices.csv is missing"
    assert (sound.reasons, sound.flags) == ([], [told])
    assert bad.reasons == [LEVERAGE]


def test_prices_are_not_asked_for_when_no_snapshot_needs_them() -> None:
    def known() -> Collection[str]:
        raise AssertionError("nobody needs prices")

    own = landed(covariance=covariance(1e-4, 1e-4, 0.0))

    assert Judge(MIN_RETURNS, known).verdicts([own])[1].accepted


def test_what_a_reference_stands_for_is_flagged_when_it_cannot_be_had() -> None:
    body = json.loads(landed().body) | {"covariance_ref": "file:sha256:0"}

    (judged,) = verdicts(replace(landed(), body=json.dumps(body)), known=()).values()

    assert judged.accepted
    (flag,) = judged.flags
    assert flag.startswith("covariance_ref ")
    assert "covariance" not in judged.evidence


# --- evidence ------------------------------------------------------------------------------------


def test_a_covariance_that_is_none_shows_how_far_the_nearest_one_is() -> None:
    """Higham (2002), section 4: the nearest correlation has 0.7607 and 0.1573, 0.5278 away."""
    ones = {"A,A": 1.0, "B,B": 1.0, "C,C": 1.0}
    judged = verdict(
        weights={"A": 0.5, "B": 0.25, "C": 0.25},
        covariance=ones | {"A,B": 1.0, "B,C": 1.0, "A,C": 0.0},
    )

    measured = judged.evidence["covariance"]
    assert judged.reasons == [NOT_SEMIDEFINITE]
    assert measured["smallest_eigenvalue"] == pytest.approx(1 - math.sqrt(2))
    assert measured["largest_eigenvalue"] == pytest.approx(1 + math.sqrt(2))
    assert measured["nearest_distance"] == pytest.approx(0.5278, abs=5e-5)
    assert measured["nearest_smallest_eigenvalue"] == pytest.approx(0.0, abs=1e-12)
    changed = measured["most_changed"]
    assert changed["pair"] in (["A", "B"], ["B", "C"])
    assert changed["correlation"] == 1.0
    assert changed["nearest"] == pytest.approx(0.7607, abs=5e-5)


def test_the_distance_does_not_depend_on_the_units() -> None:
    in_per_cent = verdict(covariance=covariance(4.0, 1.0, 3.0)).evidence["covariance"]
    in_fractions = verdict(covariance=covariance(4e-4, 1e-4, 3e-4)).evidence["covariance"]

    assert in_per_cent["nearest_distance"] == pytest.approx(math.sqrt(2) * 0.5)
    assert in_fractions["nearest_distance"] == pytest.approx(in_per_cent["nearest_distance"])


def test_a_covariance_of_a_constant_names_it() -> None:
    measured = verdict(covariance=covariance(1e-4, 0.0, 1e-6)).evidence["covariance"]

    assert measured["without_variance"] == ["BAC"]


def test_a_covariance_that_lacks_pairs_names_them_and_is_measured_no_further() -> None:
    judged = verdict(
        weights={"A": 0.5, "B": 0.25, "C": 0.25},
        covariance={"A,A": 1.0, "B,B": 1.0},
    )

    assert judged.reasons == [PAIR_MISSING]
    assert judged.evidence["covariance"] == {
        "symbols": 3,
        "missing": 4,
        "missing_symbols": ["C"],
        "missing_pairs": [["A", "B"]],
    }


def test_realized_returns_are_measured_series_by_series() -> None:
    series = {
        "A": UP_AND_DOWN,
        "B": UP_AND_DOWN,
        "C": [0.5, -0.25, 0.0, 0.0, 0.0, 0.0, 0.0],
        "D": [0.0] * 7,
        "SPY": [0.0, -0.5],
    }
    judged = verdict(weights=dict.fromkeys(("A", "B", "C", "D", "E"), 0.2), realized_returns=series)

    assert judged.reasons == [UNEVEN]
    assert judged.evidence["realized_returns"] == {
        "series": 5,
        "points": 2,
        "points_used": 3,
        "worst": -0.5,
        "lengths": {"A": 3, "B": 3, "C": 7, "D": 7},
        "missing": ["E"],
        "zeros_at_the_end": {"C": 5},
        "only_zeros": ["D"],
        "identical": [["A", "B"]],
    }


def test_stress_is_counted() -> None:
    stress = {"crash": {"pnl": -0.2, "var": 0.1}, "calm": {"pnl": 0.0}}

    assert verdict(stress=stress).evidence == {"stress": {"scenarios": 2, "measures": 3}}


entries = st.sampled_from([0.0, 1e-300, 5e-324, 1e300, -LARGEST, LARGEST, 1.0, -1.0, 1e-4])


@given(st.integers(1, 4).flatmap(lambda n: st.lists(entries, min_size=n * n, max_size=n * n)))
def test_whatever_numbers_a_covariance_has_it_is_measured_in_numbers(values: list[float]) -> None:
    n = math.isqrt(len(values))
    symbols = [f"S{index}" for index in range(n)]
    pairs = {
        f"{first},{second}": abs(values[row * n + column])
        if row == column
        else values[row + column]
        for row, first in enumerate(symbols)
        for column, second in enumerate(symbols)
        if row <= column
    }

    facts = covariance_facts(pairs, symbols)

    json.dumps(facts.evidence, allow_nan=False)
    ((missing, symmetric, smallest),) = facts.rows
    assert (missing, symmetric) == (0, True)
    assert -1.0 <= smallest <= 1.0


# --- schemas -------------------------------------------------------------------------------------


def test_the_weights_schema_refuses_a_sum_other_than_one_and_a_symbol_twice() -> None:
    good = frame_of(WEIGHTS, [(1, "AAPL", 0.5), (1, "BAC", 0.5)])
    WEIGHTS.validate(good)

    with pytest.raises(SchemaError, match="do not sum to 1"):
        WEIGHTS.validate(frame_of(WEIGHTS, [(1, "AAPL", 0.5), (1, "BAC", 0.4)]))
    with pytest.raises(SchemaError, match="not unique"):
        WEIGHTS.validate(pd.concat([good, good], ignore_index=True).assign(weight=0.25))
