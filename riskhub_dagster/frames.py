"""The pandera schemas of the snapshot tables, and what they say as Dagster metadata.

A schema judges rows; whether a judgement quarantines a snapshot or fails a check is decided by the
asset or check that asks. No I/O here.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from riskhub.snapshot import WEIGHT_SUM_TOLERANCE
from riskhub.store.landing import Landed

SCHEMA_VERSION = "snapshot/1"

WEIGHTS = pa.DataFrameSchema(
    {
        "position": pa.Column("int64", description="Landing position of the snapshot"),
        "symbol": pa.Column(
            str,
            pa.Check.str_length(1, 128, error="symbol is not 1 to 128 characters"),
            description="Symbol as the producer names it",
        ),
        "weight": pa.Column(
            "float64",
            [
                pa.Check(np.isfinite, error="a weight is not finite"),
                pa.Check.in_range(-100, 100, error="a weight is beyond 100 times equity"),
            ],
            description="Signed fraction of equity",
        ),
    },
    checks=pa.Check(
        lambda frame: (
            (frame.groupby("position")["weight"].transform("sum") - 1.0).abs()
            <= WEIGHT_SUM_TOLERANCE
        ),
        error=f"weights do not sum to 1.0 ± {WEIGHT_SUM_TOLERANCE}",
    ),
    unique=["position", "symbol"],
    strict=True,
    name="weights",
    description="The weights of each snapshot, a row per symbol.",
)

RETURNS = pa.DataFrameSchema(
    {
        "position": pa.Column("int64", description="Landing position of the snapshot"),
        "points": pa.Column(
            "int64",
            pa.Check.ge(2, error="realized_returns has fewer than 2 points"),
            description="Length of the shortest realized series",
        ),
        "worst": pa.Column(
            "float64",
            pa.Check.gt(-1.0, error="a realized return is -100 % or worse"),
            description="The smallest realized return",
        ),
    },
    strict=True,
    name="realized returns",
    description="The realized returns of each snapshot that carries some, a row per snapshot.",
)

COVARIANCE = pa.DataFrameSchema(
    {
        "position": pa.Column("int64", description="Landing position of the snapshot"),
        "missing": pa.Column(
            "int64",
            pa.Check.eq(0, error="the covariance lacks a pair of symbols that carry weight"),
            description="Pairs of weighted symbols without a covariance",
        ),
        "smallest_eigenvalue": pa.Column(
            "float64",
            pa.Check.ge(-1e-8, error="the covariance is not positive semidefinite"),
            nullable=True,
            description="Of the matrix scaled to its largest entry; null when incomplete",
        ),
    },
    strict=True,
    name="covariance",
    description="The covariance of each snapshot that carries one, a row per snapshot.",
)


def weights_frame(weights: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
    """Weights by position as the frame that `WEIGHTS` judges."""
    rows = [
        (position, symbol, float(weight))
        for position, by_symbol in weights.items()
        for symbol, weight in by_symbol.items()
    ]
    frame = pd.DataFrame(rows, columns=["position", "symbol", "weight"])
    return frame.astype({"position": "int64", "weight": "float64"})


def reasons_against(landed: Sequence[Landed]) -> dict[int, list[str]]:
    """What speaks against each snapshot, by landing position; an empty list accepts it."""
    bodies = {snapshot.position: json.loads(snapshot.body) for snapshot in landed}
    reasons: dict[int, list[str]] = {snapshot.position: [] for snapshot in landed}
    frames = (
        (WEIGHTS, weights_frame({position: body["weights"] for position, body in bodies.items()})),
        (RETURNS, _returns_frame(bodies)),
        (COVARIANCE, _covariance_frame(bodies)),
    )
    for schema, frame in frames:
        for position, found in _violations(schema, frame).items():
            reasons[position].extend(found)
    return reasons


def _violations(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> dict[int, list[str]]:
    """The errors that a schema finds, once each, by the position of the rows they are about."""
    if frame.empty:
        return {}
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        found: dict[int, list[str]] = defaultdict(list)
        for case in errors.failure_cases.itertuples():
            # A case without an index is about the whole frame: a bug of ours, not bad data.
            if pd.isna(case.index):
                raise
            position = int(frame["position"].iloc[int(case.index)])
            if case.check not in found[position]:
                found[position].append(str(case.check))
        return found
    return {}


def _returns_frame(bodies: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        (position, min(map(len, series.values())), min(map(min, series.values())))
        for position, body in bodies.items()
        if (series := body.get("realized_returns"))
    ]
    frame = pd.DataFrame(rows, columns=["position", "points", "worst"])
    return frame.astype({"position": "int64", "points": "int64", "worst": "float64"})


def _covariance_frame(bodies: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        (position, *_covariance_facts(body["covariance"], sorted(body["weights"])))
        for position, body in bodies.items()
        if body.get("covariance")
    ]
    frame = pd.DataFrame(rows, columns=["position", "missing", "smallest_eigenvalue"])
    return frame.astype({"position": "int64", "missing": "int64", "smallest_eigenvalue": "float64"})


def _covariance_facts(
    covariance: Mapping[str, float], symbols: Sequence[str]
) -> tuple[int, float | None]:
    """How many pairs of the symbols are missing, and the scaled matrix's smallest eigenvalue."""
    matrix = np.full((len(symbols), len(symbols)), np.nan)
    for row, first in enumerate(symbols):
        for column in range(row, len(symbols)):
            second = symbols[column]
            value = covariance.get(f"{first},{second}", covariance.get(f"{second},{first}"))
            if value is not None:
                matrix[row, column] = matrix[column, row] = value
    missing = int(np.isnan(np.triu(matrix)).sum())
    if missing:
        return missing, None
    # Of a semidefinite matrix that is a variance; of any other it keeps the division finite.
    largest = float(np.abs(matrix).max())
    return 0, float(np.linalg.eigvalsh(matrix / largest)[0]) if largest else 0.0


def table_schema(schema: pa.DataFrameSchema) -> dg.TableSchema:
    """A pandera schema as the column table that the Dagster UI shows."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=str(column.dtype),
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, other=[str(check.error) for check in column.checks]
                ),
            )
            for name, column in schema.columns.items()
        ],
        constraints=dg.TableConstraints(other=[str(check.error) for check in schema.checks]),
    )
