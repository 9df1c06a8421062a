"""The first tables."""

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "risk_metrics",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("as_of", Instant(), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column(
            "unavailable",
            sa.Text(),
            nullable=True,
            comment="why there are no tail numbers; null when there are",
        ),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=True),
        sa.Column("volatility", sa.Double(), nullable=True),
        sa.Column("annualised_volatility", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("current_drawdown", sa.Double(), nullable=True),
        sa.Column("gross", sa.Double(), nullable=False),
        sa.Column("net", sa.Double(), nullable=False),
        sa.Column("largest", sa.Double(), nullable=False),
        sa.Column("herfindahl", sa.Double(), nullable=False),
        sa.Column("effective_names", sa.Double(), nullable=False),
        sa.Column("snapshot_digest", sa.String(length=80), nullable=False),
        sa.Column("returns_source", sa.String(length=32), nullable=True),
        sa.Column("returns_digest", sa.String(length=80), nullable=True),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_risk_metrics")),
    )
    with op.batch_alter_table("risk_metrics", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_risk_metrics_day"), ["day"], unique=False)
        batch_op.create_index("ix_risk_metrics_world_id_as_of", ["world_id", "as_of"], unique=False)

    op.create_table(
        "risk_tails",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("var", sa.Double(), nullable=False),
        sa.Column("es", sa.Double(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("var_next", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("position", "method", "level", name=op.f("pk_risk_tails")),
    )
    with op.batch_alter_table("risk_tails", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_risk_tails_day"), ["day"], unique=False)

    op.create_table(
        "snapshot_weights",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("position", "symbol", name=op.f("pk_snapshot_weights")),
    )
    with op.batch_alter_table("snapshot_weights", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshot_weights_day"), ["day"], unique=False)

    op.create_table(
        "snapshots",
        sa.Column("position", _POSITION, autoincrement=True, nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("as_of", Instant(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("world_id", "version", name=op.f("uq_snapshots_world_id_version")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index("ix_snapshots_as_of", ["as_of"], unique=False)
        batch_op.create_index(
            "ix_snapshots_world_id_as_of", ["world_id", "as_of", "position"], unique=False
        )

    op.create_table(
        "symbol_budgets",
        sa.Column("computed_at", Instant(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("budget_usd", sa.Double(), nullable=False),
        sa.Column("stress_factor", sa.Double(), nullable=False),
        sa.Column("equity_usd", sa.Double(), nullable=False),
        sa.Column("portfolio_heat", sa.Double(), nullable=False),
        sa.Column("cluster_stress", sa.Double(), nullable=False),
        sa.Column("vol_regime", sa.Double(), nullable=False),
        sa.Column("base_risk_pct", sa.Double(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("policies", sa.JSON(), nullable=False),
        sa.Column("formula_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("computed_at", "symbol", name=op.f("pk_symbol_budgets")),
    )
    op.create_table(
        "validated_snapshots",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("as_of", Instant(), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("schema_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_validated_snapshots")),
    )
    with op.batch_alter_table("validated_snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_validated_snapshots_day"), ["day"], unique=False)

    op.create_table(
        "world_stages",
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("newest_as_of", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", "stage", name=op.f("pk_world_stages")),
    )


def downgrade() -> None:
    op.drop_table("world_stages")
    with op.batch_alter_table("validated_snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_validated_snapshots_day"))

    op.drop_table("validated_snapshots")
    op.drop_table("symbol_budgets")
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.drop_index("ix_snapshots_world_id_as_of")
        batch_op.drop_index("ix_snapshots_as_of")

    op.drop_table("snapshots")
    with op.batch_alter_table("snapshot_weights", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshot_weights_day"))

    op.drop_table("snapshot_weights")
    with op.batch_alter_table("risk_tails", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_risk_tails_day"))

    op.drop_table("risk_tails")
    with op.batch_alter_table("risk_metrics", schema=None) as batch_op:
        batch_op.drop_index("ix_risk_metrics_world_id_as_of")
        batch_op.drop_index(batch_op.f("ix_risk_metrics_day"))

    op.drop_table("risk_metrics")
