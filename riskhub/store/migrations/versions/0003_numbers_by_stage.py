"""An index for a world's numbers of one stage."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAME = "ix_risk_metrics_world_id_stage_as_of"


def upgrade() -> None:
    op.create_index(_NAME, "risk_metrics", ["world_id", "stage", "as_of"])


def downgrade() -> None:
    op.drop_index(_NAME, "risk_metrics")
