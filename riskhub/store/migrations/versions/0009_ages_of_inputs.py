"""How old the inputs of a budget were when it was made of them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "symbol_budgets",
        sa.Column("ages", sa.JSON(), comment="seconds, or null, by input as in policies"),
    )
    op.add_column(
        "budget_cycles",
        sa.Column(
            "heat_age_sec", sa.Double(), comment="of the heat, when it was used; null: unknown"
        ),
    )


def downgrade() -> None:
    for table, column in (("budget_cycles", "heat_age_sec"), ("symbol_budgets", "ages")):
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_column(column)
