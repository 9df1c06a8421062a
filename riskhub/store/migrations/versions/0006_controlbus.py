"""The outbox with an event for each landing there is, its readers, and dead letters."""

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("sequence", _ID, autoincrement=True, nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column(
            "key", sa.String(length=128), nullable=False, comment="the world, or a budget's symbol"
        ),
        sa.Column("position", _ID, comment="the landing that it is about"),
        sa.Column("event_id", sa.String(length=36), comment="null: follows from the snapshot"),
        sa.Column("subject", sa.String(length=260)),
        sa.Column("occurred_at", Instant()),
        sa.Column("correlation_id", sa.String(length=36)),
        sa.Column("data", sa.Text()),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    # Nobody has been told yet of what landed before.
    op.execute(
        "INSERT INTO events (type, key, position)"
        " SELECT 'risk_snapshot_updated', world_id, position FROM snapshots ORDER BY position"
    )
    op.create_index(op.f("ix_events_position"), "events", ["position"])
    op.create_index(op.f("ix_events_event_id"), "events", ["event_id"])
    op.create_table(
        "event_cursors",
        sa.Column("reader", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("moved_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name=op.f("pk_event_cursors")),
    )
    op.create_table(
        "handled_events",
        sa.Column("handler", sa.String(length=128), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("handled_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_handled_events")),
    )
    op.create_index(op.f("ix_handled_events_handled_at"), "handled_events", ["handled_at"])
    op.create_table(
        "dead_letters",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column(
            "handler", sa.String(length=128), nullable=False, comment="empty: no event at all"
        ),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column(
            "origin", sa.String(length=300), nullable=False, comment="topic, partition and offset"
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("died_at", Instant(), nullable=False),
        sa.Column("redriven_at", Instant()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint(
            "handler", "event_id", "origin", name=op.f("uq_dead_letters_handler_event_id_origin")
        ),
    )
    op.create_index(op.f("ix_dead_letters_died_at"), "dead_letters", ["died_at"])


def downgrade() -> None:
    for table in ("dead_letters", "handled_events", "event_cursors", "events"):
        op.drop_table(table)
