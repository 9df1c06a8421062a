"""Which code a schema works with. In Postgres vacuums by the day, and budgets bounded for 0012.

Locks nobody out: rows that are there are checked by 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# By default a table of ten million is vacuumed and analysed after one or two million changes: days
# late. These cost a pass over what changed.
_GROWING = (
    *("snapshots", "events", "handled_events", "validated_snapshots", "snapshot_weights"),
    *("risk_metrics", "risk_tails", "risk_contributions", "snapshot_stress", "stress_results"),
)
_VACUUM = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_insert_scale_factor": 0.02,
    "autovacuum_analyze_scale_factor": 0.02,
}
_MONDAY = (
    "SELECT date_trunc('week', greatest(now(), max(computed_at)), 'UTC') + interval '336 hours' "
    "FROM {table}"
)
_BUDGETS = ("budget_cycles", "symbol_budgets")


def upgrade() -> None:
    op.create_table(
        "schema_floor",
        sa.Column("code_revision", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("code_revision", name=op.f("pk_schema_floor")),
    )
    op.execute("INSERT INTO schema_floor VALUES ('0010')")
    if op.get_bind().dialect.name != "postgresql":
        return
    vacuum = ", ".join(f"{name} = {value}" for name, value in _VACUUM.items())
    for table in _GROWING:
        op.execute(f"ALTER TABLE {table} SET ({vacuum})")
    # All that is there and comes within the next week or two will be one partition.
    for table in _BUDGETS:
        monday = op.get_bind().execute(sa.text(_MONDAY.format(table=table))).scalar_one()
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_before "
            f"CHECK (computed_at < '{monday.isoformat()}') NOT VALID"
        )


def downgrade() -> None:
    op.drop_table("schema_floor")
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _BUDGETS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_before")
    for table in _GROWING:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(_VACUUM)})")
