"""What counts as news of a world: not what is in the quarantine. And until when it is alive."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_STAGES = sa.table(
    "world_stages",
    sa.column("world_id", sa.Text),
    sa.column("stage", sa.Text),
    sa.column("newest_as_of", Instant),
    sa.column("alive_until", Instant),
)
_SNAPSHOTS = sa.table(
    "snapshots",
    sa.column("position", sa.BigInteger),
    sa.column("world_id", sa.Text),
    sa.column("stage", sa.Text),
    sa.column("as_of", Instant),
    sa.column("expires_at", Instant),
)
_QUARANTINE = sa.table(
    "quarantine", sa.column("position", sa.BigInteger), sa.column("until", Instant)
)
_OF_THE_STAGE = sa.and_(
    _SNAPSHOTS.c.world_id == _STAGES.c.world_id, _SNAPSHOTS.c.stage == _STAGES.c.stage
)


def upgrade() -> None:
    with op.batch_alter_table("world_stages") as batch_op:
        batch_op.alter_column("newest_as_of", existing_type=Instant(), nullable=True)
        batch_op.add_column(sa.Column("alive_until", Instant()))
    held = (
        sa.select(_QUARANTINE.c.position)
        .where(_QUARANTINE.c.position == _SNAPSHOTS.c.position, _QUARANTINE.c.until.is_(None))
        .limit(1)
        .scalar_subquery()
    )
    counts = sa.and_(_OF_THE_STAGE, held.is_(None))
    # Whose newest was never rejected keep it, also when retention has removed it.
    rejected = sa.exists().where(_OF_THE_STAGE, held.is_not(None))
    newest = sa.select(sa.func.max(_SNAPSHOTS.c.as_of)).where(counts).scalar_subquery()
    op.execute(sa.update(_STAGES).where(rejected).values(newest_as_of=newest))
    alive = sa.select(sa.func.max(_SNAPSHOTS.c.expires_at)).where(
        counts, _SNAPSHOTS.c.expires_at > datetime.now(UTC)
    )
    op.execute(sa.update(_STAGES).values(alive_until=alive.scalar_subquery()))


def downgrade() -> None:
    newest = sa.select(sa.func.max(_SNAPSHOTS.c.as_of)).where(_OF_THE_STAGE).scalar_subquery()
    op.execute(
        sa.update(_STAGES).where(_STAGES.c.newest_as_of.is_(None)).values(newest_as_of=newest)
    )
    # Nothing is left of these: what was rejected, retention has removed.
    op.execute(sa.delete(_STAGES).where(_STAGES.c.newest_as_of.is_(None)))
    with op.batch_alter_table("world_stages") as batch_op:
        batch_op.drop_column("alive_until")
        batch_op.alter_column("newest_as_of", existing_type=Instant(), nullable=False)
