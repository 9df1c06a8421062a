"""A table of the store as the columns that the UI shows."""

from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from riskhub.store.tables import Instant, metadata
from riskhub_dagster.columns import of_table, schema_of
from riskhub_dagster.frames import WEIGHTS
from riskhub_dagster.returns_frame import returns_schema

TABLE = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("name", sa.String(8), comment="what it is called"),
    sa.Column("level", sa.Double, comment="of the thing"),
)


def test_a_column_has_the_type_the_nulls_and_the_comment_of_the_table() -> None:
    shown = {column.name: column for column in schema_of(TABLE).columns}

    assert [(name, column.type) for name, column in shown.items()] == [
        ("id", "bigint"), ("at", "timestamptz"), ("name", "varchar(8)"), ("level", "double"),
    ]  # fmt: skip
    assert [column.constraints.nullable for column in shown.values()] == [False, False, True, True]
    assert [column.constraints.unique for column in shown.values()] == [True, False, False, False]
    assert shown["name"].description == "what it is called"
    assert shown["level"].description == "of the thing"  # not what a level is elsewhere
    assert shown["at"].description is None


def test_a_key_of_several_columns_makes_none_of_them_unique() -> None:
    shown = schema_of(metadata.tables["snapshot_weights"])

    assert not any(column.constraints.unique for column in shown.columns)
    assert shown.constraints is not None
    assert shown.constraints.other == ["primary key: position, symbol"]


@pytest.mark.parametrize(
    ("table", "frame"), [("snapshot_weights", WEIGHTS), ("asset_returns", returns_schema())]
)
def test_what_a_frame_demands_stands_beside_the_columns(table: str, frame: Any) -> None:
    shown = schema_of(metadata.tables[table], frame)
    rules = [rule for column in shown.columns for rule in column.constraints.other]

    assert set(frame.columns) <= {column.name for column in shown.columns}
    assert len(rules) == sum(len(column.checks) for column in frame.columns.values())
    assert shown.constraints is not None
    assert len(shown.constraints.other) == 1 + len(frame.checks)
    assert all(column.description for column in shown.columns)
    assert "None" not in rules


def test_lineage_stands_with_the_definition() -> None:
    told = of_table("var_outcomes", made_from={"loss": [("snapshot_weights", "weight")]})

    lineage = told["dagster/column_lineage"]
    assert lineage.deps_by_column == {
        "loss": [dg.TableColumnDep(dg.AssetKey("snapshot_weights"), "weight")]
    }
    assert "dagster/column_lineage" not in of_table("var_outcomes")
