"""The governor's cycles with their receipts, and what the gate found over its budget."""

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_RECEIPT = {
    "haircut": "share of the budget that was taken off; null: as 0",
    "portfolio_age_sec": "of the portfolio state, when it was used",
    "share": "of the world's ES; null: not by contribution",
}


def upgrade() -> None:
    for name, comment in _RECEIPT.items():
        op.add_column("symbol_budgets", sa.Column(name, sa.Double(), comment=comment))
    op.create_index(
        "ix_symbol_budgets_symbol_computed_at", "symbol_budgets", ["symbol", "computed_at"]
    )
    op.create_table(
        "budget_cycles",
        sa.Column("computed_at", Instant(), autoincrement=False, nullable=False),
        sa.Column("writer", sa.String(length=255), nullable=False),
        sa.Column(
            "no_budget_reason",
            sa.String(length=64),
            nullable=True,
            comment="null when there are budgets",
        ),
        sa.Column("symbols", sa.Integer(), nullable=False, comment="how many have a budget"),
        sa.Column(
            "complete",
            sa.Boolean(),
            nullable=False,
            comment="symbol_budgets has each of its budgets",
        ),
        sa.Column("equity_usd", sa.Double(), nullable=True),
        sa.Column("portfolio_policy", sa.String(length=32), nullable=False),
        sa.Column("portfolio_age_sec", sa.Double(), nullable=True),
        sa.Column("heat", sa.Double(), nullable=True),
        sa.Column("heat_policy", sa.String(length=32), nullable=True),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("formula_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("computed_at", name=op.f("pk_budget_cycles")),
    )
    op.create_table(
        "budget_violations",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("position_notional", sa.Double(), nullable=False),
        sa.Column("budget_usd", sa.Double(), nullable=False),
        sa.Column("over_budget", sa.Double(), nullable=False, comment="USD that it was over by"),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_violations")),
    )
    op.create_index(op.f("ix_budget_violations_at"), "budget_violations", ["at"])
    op.create_index("ix_budget_violations_symbol_at", "budget_violations", ["symbol", "at"])
    # Until now each cycle that had budgets was kept whole, and only a fresh portfolio gave any.
    op.execute(
        "INSERT INTO budget_cycles (computed_at, writer, symbols, complete, equity_usd,"
        " portfolio_policy, heat, mode, formula_version)"
        " SELECT computed_at, 'symbol_budgets', count(*), true, max(equity_usd), 'fresh',"
        " max(portfolio_heat), max(mode), max(formula_version)"
        " FROM symbol_budgets GROUP BY computed_at"
    )


def downgrade() -> None:
    op.drop_table("budget_violations")
    op.drop_table("budget_cycles")
    op.drop_index("ix_symbol_budgets_symbol_computed_at", "symbol_budgets")
    for name in _RECEIPT:
        with op.batch_alter_table("symbol_budgets") as batch_op:
            batch_op.drop_column(name)
