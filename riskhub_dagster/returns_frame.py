"""The pandera schema of the table of returns, and which days it speaks against."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors


def returns_schema(symbols: Sequence[str] = ()) -> pa.DataFrameSchema:
    """What the rows of some days have to be like.

    Args:
        symbols: those of the panel, each of which every day has.
    """
    return pa.DataFrameSchema(
        {
            "day": pa.Column("datetime64[s]", description="The day that the return ends on"),
            "symbol": pa.Column(
                str,
                pa.Check.str_length(1, 128, error="symbol is not 1 to 128 characters"),
                description="Symbol as the price source names it",
            ),
            "simple_return": pa.Column(
                "float64",
                [
                    pa.Check(np.isfinite, error="a return is not finite"),
                    pa.Check.gt(-1.0, error="a return is -100 % or worse"),
                ],
                description="Price over the price of the trading day before, less one",
            ),
            "prices_digest": pa.Column(str, description="Digest of all prices of the source"),
        },
        checks=[
            pa.Check(
                lambda frame: frame.groupby("day")["symbol"].transform("nunique") == len(symbols),
                error="a symbol of the panel has no return",
            ),
            pa.Check(
                lambda frame: ~frame.duplicated(["day", "symbol"], keep=False),
                error="a symbol has several returns",
            ),
        ],
        strict=True,
        name="asset returns",
        description="The simple returns of each trading day, a row per symbol.",
    )


def reasons_against_days(
    rows: Sequence[Mapping[str, Any]], symbols: Sequence[str]
) -> dict[date, list[str]]:
    """What speaks against rows of returns, once each, by day; only of days it speaks against."""
    if not rows:
        return {}
    frame = pd.DataFrame(list(rows)).astype({"day": "datetime64[s]"})
    try:
        returns_schema(symbols).validate(frame, lazy=True)
    except SchemaErrors as errors:
        found: dict[date, list[str]] = defaultdict(list)
        for case in errors.failure_cases.itertuples():
            # A case without an index is about the whole frame: a bug of ours, not bad data.
            if pd.isna(case.index):
                raise
            reasons = found[rows[int(case.index)]["day"]]
            if case.check not in reasons:
                reasons.append(str(case.check))
        return dict(found)
    return {}
