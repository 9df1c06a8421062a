"""Indices for every filter and for what is alive, stamps of worlds, references to blobs."""

import secrets

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ORDER = ["as_of", "received_at", "position"]
_INDICES = {
    "ix_snapshots_world": ["world_id", *_ORDER],
    "ix_snapshots_stage": ["world_id", "stage", *_ORDER],
    "ix_snapshots_actor": ["world_id", "actor", *_ORDER],
    "ix_snapshots_actor_stage": ["world_id", "actor", "stage", *_ORDER],
    "ix_snapshots_expiry": ["world_id", "expires_at"],
}


def upgrade() -> None:
    for name, columns in _INDICES.items():
        op.create_index(name, "snapshots", columns)
    op.drop_index("ix_snapshots_world_id_as_of", "snapshots")
    op.drop_index("ix_snapshots_as_of", "snapshots")
    op.create_index(
        "ix_snapshots_as_of", "snapshots", ["as_of"], postgresql_ops={"as_of": "NULLS FIRST"}
    )
    if op.get_bind().dialect.name == "postgresql":
        # A body of thousands of numbers is compressed in a tenth of the default's time. Servers
        # built without lz4 keep the default.
        op.execute(
            """
            DO $$ BEGIN
              ALTER TABLE snapshots ALTER COLUMN body SET COMPRESSION lz4;
            EXCEPTION WHEN feature_not_supported OR invalid_parameter_value OR syntax_error THEN
              NULL;
            END $$
            """
        )
    stamp = secrets.randbits(62)  # each world's next landing gives it one of its own
    with op.batch_alter_table("world_stages") as batch_op:
        batch_op.add_column(
            sa.Column("stamp", sa.BigInteger(), nullable=False, server_default=str(stamp))
        )
    with op.batch_alter_table("world_stages") as batch_op:
        batch_op.alter_column("stamp", server_default=None)
    op.create_table(
        "snapshot_blobs",
        sa.Column("ref", sa.String(length=1024), nullable=False),
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("ref", "position", name=op.f("pk_snapshot_blobs")),
    )
    op.create_index(op.f("ix_snapshot_blobs_position"), "snapshot_blobs", ["position"])
    op.create_table(
        "condemned_blobs",
        sa.Column("ref", sa.String(length=1024), nullable=False),
        sa.Column("since", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_condemned_blobs")),
    )


def downgrade() -> None:
    op.drop_table("condemned_blobs")
    op.drop_table("snapshot_blobs")
    with op.batch_alter_table("world_stages") as batch_op:
        batch_op.drop_column("stamp")
    op.drop_index("ix_snapshots_as_of", "snapshots")
    op.create_index("ix_snapshots_as_of", "snapshots", ["as_of"])
    op.create_index("ix_snapshots_world_id_as_of", "snapshots", ["world_id", "as_of", "position"])
    for name in _INDICES:
        op.drop_index(name, "snapshots")
