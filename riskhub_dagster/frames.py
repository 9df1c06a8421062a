"""The pandera schemas of the snapshot tables, and what they say as Dagster metadata.

A schema judges rows; whether a judgement quarantines a snapshot or fails a check is decided by the
asset or check that asks. No I/O here but for the blobs that snapshots refer to.
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

from riskhub.blobs import BlobStore
from riskhub.errors import BlobUnusable
from riskhub.metrics import field_of
from riskhub.snapshot import WEIGHT_SUM_TOLERANCE
from riskhub.store.landing import Landed
from riskhub.strict_json import Document

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


def reasons_against(
    landed: Sequence[Landed], blobs: BlobStore | None = None
) -> dict[int, list[str]]:
    """What speaks against each snapshot, by landing position; an empty list accepts it.

    What lies behind a reference is judged as if it were inline. When it is missing or altered,
    that does not speak against the snapshot: the number made from it will be unavailable.

    Raises:
        BlobsUnavailable: safe to try again.
    """
    reasons: dict[int, list[str]] = {snapshot.position: [] for snapshot in landed}
    weights, returns, covariances = {}, [], []
    for snapshot in landed:  # one at a time: what is behind references may be large
        position, body = snapshot.position, json.loads(snapshot.body)
        weights[position] = body["weights"]
        if series := _had(body, "realized_returns", blobs):
            returns.append((position, *_returns_facts(series)))
        if pairs := _had(body, "covariance", blobs):
            covariances.append((position, *_covariance_facts(pairs, sorted(body["weights"]))))
    frames = (
        (WEIGHTS, weights_frame(weights)),
        (RETURNS, _frame(RETURNS, returns)),
        (COVARIANCE, _frame(COVARIANCE, covariances)),
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


def _frame(schema: pa.DataFrameSchema, rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as the frame that the schema judges."""
    types = {name: str(column.dtype) for name, column in schema.columns.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _had(body: Document, field: str, blobs: BlobStore | None) -> Any:
    try:
        return field_of(body, field, blobs)
    except BlobUnusable:
        return None


def _returns_facts(series: Mapping[str, Sequence[float]]) -> tuple[int, float]:
    """The length of the shortest series, and the smallest return of all."""
    return min(map(len, series.values())), min(map(min, series.values()))


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
