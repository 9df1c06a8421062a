"""Values as Dagster metadata, at the one edge where they enter it.

Dagster refuses numpy scalars and timestamps, and turns NaN and infinity into null without a word.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
    OutputMetadataHandle,
)

MAX_TABLE_ROWS = 50


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """Rows as a table of some columns; at most 50 are kept, for they stay in the event log."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({column: _short(plain(row[column])) for column in columns})
            for row in rows[:MAX_TABLE_ROWS]
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(column) for column in columns]),
    )


def _short(value: str | float | bool | None) -> str | float | bool | None:
    """A number as a table shows it: six digits. The tables in the store have them all."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def plain(value: Any) -> str | int | float | bool | None:
    """A value as Dagster can keep it. Raises ValueError for a number that is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{value} can't be metadata")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def attach(
    context: dg.AssetExecutionContext,
    by_day: Mapping[date, Mapping[str, Any]],
    asset: str | None = None,
) -> None:
    """Give each partition of a run its own numbers, which the UI then charts over days.

    Dagster's `add_asset_metadata` copies what there is for each partition that it is called with:
    over thirty years that takes longer than the computing. This adds all of them at once.

    Args:
        asset: which of the step's assets, when it has several.
    """
    step = context.get_step_execution_context()
    key = dg.AssetKey(asset) if asset else context.asset_key
    added: dict[OutputMetadataHandle | AssetMetadataHandle, Mapping[str, Any]] = {
        AssetMetadataHandle(asset_key=key, partition_key=day.isoformat()): dict(metadata)
        for day, metadata in by_day.items()
    }
    held = step._metadata_accumulator.per_output_metadata
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata={**held, **added})
