"""The tables of the exit engine: what it remembers, its episodes, and what it told of them."""

import sqlalchemy as sa

from riskhub.store.tables import Instant, metadata

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# One row: who writes. Each step of the engine takes the next turn, so that one which was overtaken
# (it slept, or the database lost its session) can't write over its successor.
exit_engine = sa.Table(
    "exit_engine",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("turn", sa.BigInteger, nullable=False),
    sa.Column("writer", sa.String(255), nullable=False),
    sa.Column("at", Instant, nullable=False, comment="of its last turn"),
    sa.Column("rules_digest", sa.String(80), nullable=False),
)

# What is remembered of a rule in a world and a stage; without a row there is nothing to.
exit_states = sa.Table(
    "exit_states",
    metadata,
    sa.Column("rule", sa.String(64), primary_key=True),
    sa.Column("world_id", sa.String(128), primary_key=True),
    sa.Column("stage", sa.String(128), primary_key=True),
    sa.Column("episode_id", sa.String(32), comment="the open one"),
    sa.Column("streak", sa.Integer, nullable=False, comment="breaches without a break, if not yet"),
    sa.Column("counted", Instant, comment="what the last number of the streak is of"),
    sa.Column("last_closed_at", Instant),
    sa.Column("last_opening", sa.String(32), comment="what opened the last episode"),
    sa.Column("reopened", sa.Integer, nullable=False, comment="how often that opened one again"),
)

# Numbers as the rule measures them: losses are positive. `kind` to `mode`: of the rule.
exit_episodes = sa.Table(
    "exit_episodes",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("opened_of", Instant, nullable=False, comment="what the opening number is of"),
    sa.Column("newest_of", Instant, nullable=False, comment="as opened_of"),
    sa.Column("value", sa.Double, nullable=False, comment="the newest that is known"),
    sa.Column("worst", sa.Double, nullable=False),
    sa.Column("told", sa.Double, nullable=False, comment="the value of the last signal"),
    sa.Column("target_fraction", sa.Double, comment="of each position, that may stay"),
    sa.Column("held", sa.JSON, nullable=False, comment="parts that must be known to be safe"),
    sa.Column("signals", sa.Integer, nullable=False, comment="how many there were"),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("closed_at", Instant),
    sa.Column("closed_because", sa.Text),
    sa.Column("acknowledged_at", Instant),
    sa.Column("acknowledged_by", sa.String(128)),
    sa.Index("ix_exit_episodes_opened_at_id", "opened_at", "id"),
    sa.Index("ix_exit_episodes_world_id_opened_at", "world_id", "opened_at"),
)

# Of one rule, world and stage there is one open episode at most.
sa.Index(
    "ix_exit_episodes_open",
    *(exit_episodes.c[name] for name in ("rule", "world_id", "stage")),
    unique=True,
    sqlite_where=exit_episodes.c.closed_at.is_(None),
    postgresql_where=exit_episodes.c.closed_at.is_(None),
)

# What consumers are told, in the order in which it was decided; on the stream once `streamed_at`.
exit_signals = sa.Table(
    "exit_signals",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("signal_id", sa.String(64), nullable=False, unique=True),
    sa.Column("episode_id", sa.String(32), nullable=False, index=True),
    sa.Column("signal", sa.String(16), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("streamed_at", Instant),
    sqlite_autoincrement=True,
)
# What waits for the stream: few, of however many there were.
sa.Index(
    "ix_exit_signals_waiting",
    exit_signals.c.id,
    sqlite_where=exit_signals.c.streamed_at.is_(None),
    postgresql_where=exit_signals.c.streamed_at.is_(None),
)
