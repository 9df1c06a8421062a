"""The frames that snapshots are judged by: their columns, and which rows are rejected and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from riskhub.snapshot import WEIGHT_SUM_TOLERANCE

# Another one when the same snapshot could be judged otherwise.
SCHEMA_VERSION = "snapshot/2"
# A covariance is rejected when its smallest eigenvalue is below this, as a fraction of its largest
# in absolute value: rounding to 8 digits, as of single precision, passes.
PSD_TOLERANCE = 1e-8

Rule = Callable[[pd.Series], Any]
Reasons = Mapping[str, Rule]


def _schema(
    name: str,
    description: str,
    *columns: tuple[str, str, str, Reasons],
    of_the_whole: Mapping[str, Callable[[pd.DataFrame], Any]] | None = None,
    unique: Sequence[str] | None = None,
    nullable: Sequence[str] = (),
) -> pa.DataFrameSchema:
    """The frame of this name: every row names its snapshot by landing position.

    Args:
        columns: name, dtype, description, and the reasons to reject a row, each with the rule that
            the values of the column have to keep.
        of_the_whole: the same for rules that need several columns or rows.
        unique: columns that no two rows may have in common.
        nullable: columns that may be null.
    """
    position = pa.Column("int64", description="Landing position of the snapshot")
    return pa.DataFrameSchema(
        {
            "position": position,
            **{
                column: pa.Column(
                    dtype,
                    [pa.Check(rule, error=reason) for reason, rule in reasons.items()],
                    description=text,
                    nullable=column in nullable,
                )
                for column, dtype, text, reasons in columns
            },
        },
        checks=[pa.Check(rule, error=reason) for reason, rule in (of_the_whole or {}).items()],
        unique=list(unique) if unique else None,
        strict=True,
        name=name,
        description=description,
    )


def _named(longest: int) -> Rule:
    return lambda names: names.map(lambda name: 1 <= len(name) <= longest and name.isprintable())


def _sum_to_one(frame: pd.DataFrame) -> Any:
    totals = frame.groupby("position")["weight"].transform("sum")
    return (totals - 1.0).abs() <= WEIGHT_SUM_TOLERANCE


WEIGHTS = _schema(
    "weights",
    "The weights of each snapshot, a row per symbol.",
    (
        "symbol",
        "str",
        "Symbol as the producer names it",
        {"symbol is not 1 to 128 printable characters": _named(128)},
    ),
    (
        "weight",
        "float64",
        "Signed fraction of equity",
        {
            "a weight is not finite": np.isfinite,
            "a weight is beyond 100 times equity": lambda weights: weights.abs() <= 100,
        },
    ),
    of_the_whole={f"weights do not sum to 1.0 ± {WEIGHT_SUM_TOLERANCE}": _sum_to_one},
    unique=["position", "symbol"],
)

RETURNS = _schema(
    "realized returns",
    "The realized returns of each snapshot that carries some, a row per snapshot.",
    (
        "points",
        "int64",
        "Length of the shortest realized series",
        {"realized_returns has fewer than 2 points": lambda points: points >= 2},
    ),
    (
        "lengths",
        "int64",
        "How many different lengths the series have that a portfolio is made from",
        {"the series of realized_returns differ in length": lambda lengths: lengths <= 1},
    ),
    (
        "worst",
        "float64",
        "The smallest realized return",
        {"a realized return is -100 % or worse": lambda worst: worst > -1.0},
    ),
)

COVARIANCE = _schema(
    "covariance",
    "The covariance of each snapshot that carries one, a row per snapshot.",
    (
        "missing",
        "int64",
        "Pairs of weighted symbols without a covariance",
        {"the covariance lacks a pair of symbols that carry weight": lambda count: count == 0},
    ),
    (
        "symmetric",
        "bool",
        "Whether mirrored pairs agree",
        {"the covariance is not symmetric": lambda symmetric: symmetric},
    ),
    (
        "smallest",
        "float64",
        "Smallest eigenvalue as a fraction of the largest in absolute value; null without a matrix",
        {"the covariance is not positive semidefinite": lambda least: least >= -PSD_TOLERANCE},
    ),
    nullable=["smallest"],
)

STRESS = _schema(
    "stress",
    "The stress results that producers sent, a row per scenario and measure.",
    (
        "scenario",
        "str",
        "Name of the scenario",
        {"a stress scenario's name is not 1 to 256 printable characters": _named(256)},
    ),
    (
        "measure",
        "str",
        "Name of the measure; null for a scenario without any",
        {"a stress measure's name is not 1 to 128 printable characters": _named(128)},
    ),
    (
        "value",
        "float64",
        "As the producer sent it",
        {"a stress measure is not finite": np.isfinite},
    ),
    nullable=["measure", "value"],
)


def frame_of(schema: pa.DataFrameSchema, rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as the frame that the schema judges."""
    types = {name: str(column.dtype) for name, column in schema.columns.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)
