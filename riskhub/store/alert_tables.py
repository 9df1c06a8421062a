"""The tables of alerts: what is open or was, what is silenced, and who watches."""

import sqlalchemy as sa

from riskhub.store.tables import Instant, metadata

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("key", sa.String(400), nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("cause", sa.JSON, nullable=False, comment="keys of what may be the reason for it"),
    sa.Column("severity", sa.String(16), nullable=False, comment="the worst so far"),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("first_seen", Instant, nullable=False),
    sa.Column("last_seen", Instant, nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("gone_since", Instant),
    sa.Column("resolved_at", Instant),
    sa.Column("count", sa.Integer, nullable=False, comment="how often it began within this one"),
    sa.Column("acknowledged_by", sa.String(128)),
    sa.Column("acknowledged_at", Instant),
    sa.Column("notified", sa.JSON, nullable=False, comment="receiver to what it took last"),
    sa.Column("over", sa.Boolean, nullable=False, comment="resolved, and every receiver knows"),
    sa.Index("ix_alerts_opened_at_id", "opened_at", "id"),
)

# Of one key at most one is open.
sa.Index(
    "ix_alerts_open",
    alerts.c.key,
    unique=True,
    sqlite_where=alerts.c.resolved_at.is_(None),
    postgresql_where=alerts.c.resolved_at.is_(None),
)

alert_silences = sa.Table(
    "alert_silences",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column(
        "pattern", sa.String(400), nullable=False, comment="of keys, such as late:equities/*"
    ),
    sa.Column("since", Instant, nullable=False),
    sa.Column("until", Instant, nullable=False, index=True),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

# One row: who watches. Each look takes the next turn, so that a process which was overtaken (it
# slept, or the database lost its session) can't write over its successor.
alert_watch = sa.Table(
    "alert_watch",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("turn", sa.BigInteger, nullable=False),
    sa.Column("writer", sa.String(255), nullable=False),
    sa.Column("at", Instant, nullable=False, comment="of its last look"),
    sa.Column("receivers", sa.JSON, nullable=False, comment="each: since when it fails, and why"),
)
