"""The exit engine: what it remembers, its episodes, and what it told of them."""

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "exit_engine",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("writer", sa.String(length=255), nullable=False),
        sa.Column("at", Instant(), nullable=False, comment="of its last turn"),
        sa.Column("rules_digest", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exit_engine")),
    )
    op.create_table(
        "exit_states",
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("episode_id", sa.String(length=32), nullable=True, comment="the open one"),
        sa.Column(
            "streak",
            sa.Integer(),
            nullable=False,
            comment="breaches without a break, if not yet",
        ),
        sa.Column(
            "counted", Instant(), nullable=True, comment="what the last number of the streak is of"
        ),
        sa.Column("last_closed_at", Instant(), nullable=True),
        sa.Column(
            "last_opening",
            sa.String(length=32),
            nullable=True,
            comment="what opened the last episode",
        ),
        sa.Column(
            "reopened", sa.Integer(), nullable=False, comment="how often that opened one again"
        ),
        sa.PrimaryKeyConstraint("rule", "world_id", "stage", name=op.f("pk_exit_states")),
    )
    op.create_table(
        "exit_episodes",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("opened_of", Instant(), nullable=False, comment="what the opening number is of"),
        sa.Column("newest_of", Instant(), nullable=False, comment="as opened_of"),
        sa.Column("value", sa.Double(), nullable=False, comment="the newest that is known"),
        sa.Column("worst", sa.Double(), nullable=False),
        sa.Column("told", sa.Double(), nullable=False, comment="the value of the last signal"),
        sa.Column(
            "target_fraction", sa.Double(), nullable=True, comment="of each position, that may stay"
        ),
        sa.Column("held", sa.JSON(), nullable=False, comment="parts that must be known to be safe"),
        sa.Column("signals", sa.Integer(), nullable=False, comment="how many there were"),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("closed_at", Instant(), nullable=True),
        sa.Column("closed_because", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", Instant(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exit_episodes")),
    )
    op.create_index("ix_exit_episodes_opened_at_id", "exit_episodes", ["opened_at", "id"])
    op.create_index(
        "ix_exit_episodes_world_id_opened_at", "exit_episodes", ["world_id", "opened_at"]
    )
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        "ix_exit_episodes_open",
        "exit_episodes",
        ["rule", "world_id", "stage"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "exit_signals",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("signal_id", sa.String(length=64), nullable=False),
        sa.Column("episode_id", sa.String(length=32), nullable=False),
        sa.Column("signal", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("streamed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exit_signals")),
        sa.UniqueConstraint("signal_id", name=op.f("uq_exit_signals_signal_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_exit_signals_episode_id"), "exit_signals", ["episode_id"])
    waits = sa.text("streamed_at IS NULL")
    op.create_index(
        "ix_exit_signals_waiting",
        "exit_signals",
        ["id"],
        sqlite_where=waits,
        postgresql_where=waits,
    )


def downgrade() -> None:
    for table in ("exit_signals", "exit_episodes", "exit_states", "exit_engine"):
        op.drop_table(table)
