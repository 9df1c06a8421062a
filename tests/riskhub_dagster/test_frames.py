"""What speaks against a snapshot, and what a schema looks like in the Dagster UI."""

from typing import Any

import pandas as pd
import pytest
from builders import accept
from pandera.errors import SchemaError

from riskhub.store.landing import Landed
from riskhub_dagster.frames import (
    COVARIANCE,
    RETURNS,
    WEIGHTS,
    reasons_against,
    table_schema,
    weights_frame,
)

PAIR = {"AAPL": 0.5, "BAC": 0.5}
NOT_SEMIDEFINITE = "the covariance is not positive semidefinite"
PAIR_MISSING = "the covariance lacks a pair of symbols that carry weight"
LOST_ALL = "a realized return is -100 % or worse"
TOO_SHORT = "realized_returns has fewer than 2 points"
LEVERAGE = "a weight is beyond 100 times equity"


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


def covariance(first: float, second: float, between: float) -> dict[str, float]:
    return {"AAPL,AAPL": first, "BAC,BAC": second, "AAPL,BAC": between}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"covariance": covariance(1e-4, 1e-4, 2e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-4, 1e-4, 1.001e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(0.0, 0.0, 1e-4)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-4, 0.0, 1e-6)}, NOT_SEMIDEFINITE),
        ({"covariance": covariance(1e-300, 1e-300, 1e300)}, NOT_SEMIDEFINITE),
        ({"covariance": {"AAPL,AAPL": 1e-4, "BAC,BAC": 1e-4}}, PAIR_MISSING),
        ({"covariance": {"AAPL,AAPL": 1e-4}}, PAIR_MISSING),
        ({"realized_returns": {"portfolio": [0.1, -1.0, 0.2]}}, LOST_ALL),
        ({"realized_returns": {"AAPL": [0.1, 0.1], "BAC": [0.1, -1.5]}}, LOST_ALL),
        ({"realized_returns": {"portfolio": [0.1]}}, TOO_SHORT),
        ({"realized_returns": {"AAPL": [0.1, 0.1], "BAC": [0.1]}}, TOO_SHORT),
        ({"weights": {"AAPL": 1000.0, "BAC": -999.0}}, LEVERAGE),
    ],
)
def test_a_bad_snapshot_has_one_reason_against_it(overrides: dict[str, Any], reason: str) -> None:
    assert reasons_against([landed(**overrides)]) == {1: [reason]}


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
        {"realized_returns": {"portfolio": [0.1, -0.999]}},
    ],
)
def test_nothing_speaks_against_a_sound_snapshot(overrides: dict[str, Any]) -> None:
    assert reasons_against([landed(**overrides)]) == {1: []}


def test_every_reason_is_told_once() -> None:
    snapshot = landed(
        weights={"AAPL": 1000.0, "BAC": -999.0},
        covariance={"AAPL,AAPL": 1e-4},
        realized_returns={"portfolio": [-1.0]},
    )

    (reasons,) = reasons_against([snapshot]).values()

    assert sorted(reasons) == sorted([LEVERAGE, PAIR_MISSING, LOST_ALL, TOO_SHORT])


def test_a_reason_is_held_against_its_own_snapshot_only() -> None:
    judged = [
        landed(7),
        landed(9, weights={"AAPL": 1000.0, "BAC": -999.0}),
        landed(12, realized_returns={"portfolio": [-1.0, 0.1]}),
    ]

    assert reasons_against(judged) == {7: [], 9: [LEVERAGE], 12: [LOST_ALL]}


def test_no_snapshots_have_no_reasons() -> None:
    assert reasons_against([]) == {}


def test_the_weights_schema_refuses_a_sum_other_than_one_and_a_symbol_twice() -> None:
    good = weights_frame({1: {"AAPL": 0.5, "BAC": 0.5}})
    WEIGHTS.validate(good)

    with pytest.raises(SchemaError, match="do not sum to 1"):
        WEIGHTS.validate(weights_frame({1: {"AAPL": 0.5, "BAC": 0.4}}))
    with pytest.raises(SchemaError, match="not unique"):
        WEIGHTS.validate(pd.concat([good, good], ignore_index=True).assign(weight=0.25))


@pytest.mark.parametrize("schema", [WEIGHTS, RETURNS, COVARIANCE], ids=lambda schema: schema.name)
def test_a_schema_shows_its_columns_and_rules_in_the_ui(schema: Any) -> None:
    shown = table_schema(schema)

    assert [column.name for column in shown.columns] == list(schema.columns)
    assert all(column.description for column in shown.columns)
    rules = [rule for column in shown.columns for rule in column.constraints.other]
    rules += shown.constraints.other if shown.constraints else []
    assert len(rules) == sum(len(c.checks) for c in schema.columns.values()) + len(schema.checks)
    assert "None" not in rules
