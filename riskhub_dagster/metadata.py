"""Values as Dagster metadata, at the one edge where they enter it.

Dagster refuses numpy scalars and timestamps, and turns NaN and infinity into null without a word.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np

MAX_TABLE_ROWS = 50
# Dagster copies all metadata of a run for each partition it is added to: beyond this many the
# copying would take longer than the computing, and a range that long is read as tables anyway.
MAX_PARTITIONS_WITH_METADATA = 1_500


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


def attach(context: dg.AssetExecutionContext, by_day: Mapping[date, Mapping[str, Any]]) -> None:
    """Give each partition of a run its own numbers, which the UI then charts over days."""
    if len(context.partition_keys) > MAX_PARTITIONS_WITH_METADATA:
        return
    for day, metadata in by_day.items():
        context.add_asset_metadata(dict(metadata), partition_key=day.isoformat())
