"""The columns of an asset's table, as the UI shows them: from the tables that the store defines.

Types, keys and nulls are the table's, and so is what a column's comment says. Where a pandera frame
judges the same rows, its descriptions and constraints stand beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandera.pandas as pa
import sqlalchemy as sa

from riskhub.store.tables import Instant, metadata

Sources = Mapping[str, Sequence[tuple[str, str]]]
"""Column to the assets and columns that it is made from."""

# What the columns mean that most tables have; a table's own comment comes first.
_EVERYWHERE = {
    "position": "Landing position of the snapshot",
    "day": "UTC day that as_of lies on: the partition",
    "world_id": "World, as its producer names it",
    "version": "Version of the snapshot, unique in its world",
    "as_of": "What moment the snapshot speaks of",
    "stage": "backtest, paper, live, or what the producer calls it",
    "symbol": "Symbol, as the producer names it",
    "weight": "Signed fraction of equity",
    "digest": "Digest of the content",
    "snapshot_digest": "Digest of the snapshot that was measured",
    "prices_digest": "Digest of all prices of the source",
    "code_version": "Version of the code that made the row",
    "method": "Which VaR",
    "level": "Confidence",
    "var": "Value at risk: a loss is positive, a fraction of equity",
    "es": "Expected shortfall: a loss is positive, a fraction of equity",
    "pnl": "Signed fraction of equity",
    "loss": "A loss is positive, a fraction of equity",
    "zone": "Basel's traffic light: green, yellow or red",
    "budget_usd": "How much the symbol may risk",
    "computed_at": "When the governor's cycle ran",
}


def of_table(
    name: str, *, frame: pa.DataFrameSchema | None = None, made_from: Sources | None = None
) -> dict[str, Any]:
    """The definition metadata of an asset that is one table of the hub's database.

    Args:
        name: of the table.
        frame: that judges its rows, if one does.
        made_from: the lineage of columns, as far as it is certain. It stands with the definition:
            on each materialization it would be stored again for every partition.
    """
    told: dict[str, Any] = {
        "dagster/table_name": name,
        "dagster/column_schema": schema_of(metadata.tables[name], frame),
    }
    if made_from:
        told["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(dg.AssetKey(asset), source) for asset, source in sources]
                for column, sources in made_from.items()
            }
        )
    return told


def schema_of(table: sa.Table, frame: pa.DataFrameSchema | None = None) -> dg.TableSchema:
    """A table as the column table that the UI shows."""
    judged: dict[str, Any] = dict(frame.columns) if frame is not None else {}
    key = ", ".join(column.name for column in table.primary_key.columns)
    rules = [f"primary key: {key}"]
    if frame is not None:
        rules += [str(check.error) for check in frame.checks]
    return dg.TableSchema(
        columns=[_column(column, judged.get(column.name)) for column in table.columns],
        constraints=dg.TableConstraints(other=rules),
    )


def _column(column: sa.Column[Any], judged: Any) -> dg.TableColumn:
    described = judged.description if judged is not None else None
    return dg.TableColumn(
        name=column.name,
        type=_type_of(column),
        description=column.comment or described or _EVERYWHERE.get(column.name),
        constraints=dg.TableColumnConstraints(
            nullable=bool(column.nullable),
            unique=column.primary_key and len(column.table.primary_key.columns) == 1,
            other=[str(check.error) for check in judged.checks] if judged is not None else [],
        ),
    )


def _type_of(column: sa.Column[Any]) -> str:
    # In SQLite it is a number; what both databases mean by it is an instant.
    return "timestamptz" if isinstance(column.type, Instant) else str(column.type).lower()
