"""Alerts, silences, and who watches."""

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=400), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "cause", sa.JSON(), nullable=False, comment="keys of what may be the reason for it"
        ),
        sa.Column("severity", sa.String(length=16), nullable=False, comment="the worst so far"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("runbook", sa.Text(), nullable=False),
        sa.Column("first_seen", Instant(), nullable=False),
        sa.Column("last_seen", Instant(), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("gone_since", Instant()),
        sa.Column("resolved_at", Instant()),
        sa.Column(
            "count", sa.Integer(), nullable=False, comment="how often it began within this one"
        ),
        sa.Column("acknowledged_by", sa.String(length=128)),
        sa.Column("acknowledged_at", Instant()),
        sa.Column("notified", sa.JSON(), nullable=False, comment="receiver to what it took last"),
        sa.Column(
            "over", sa.Boolean(), nullable=False, comment="resolved, and every receiver knows"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index("ix_alerts_opened_at_id", "alerts", ["opened_at", "id"])
    op.create_index(
        "ix_alerts_open",
        "alerts",
        ["key"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "alert_silences",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column(
            "pattern",
            sa.String(length=400),
            nullable=False,
            comment="of keys, such as late:equities/*",
        ),
        sa.Column("since", Instant(), nullable=False),
        sa.Column("until", Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_silences")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_alert_silences_until"), "alert_silences", ["until"])
    op.create_table(
        "alert_watch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("writer", sa.String(length=255), nullable=False),
        sa.Column("at", Instant(), nullable=False, comment="of its last look"),
        sa.Column(
            "receivers", sa.JSON(), nullable=False, comment="each: since when it fails, and why"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_watch")),
    )


def downgrade() -> None:
    for table in ("alert_watch", "alert_silences", "alerts"):
        op.drop_table(table)
