"""The tables, defined once for SQLite and Postgres.

`snapshots` is the truth: rows are added and never changed. The other tables are made from it, can
be made again, and are replaced a day at a time; each of their rows names the snapshot it came from
by its landing `position`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` in Postgres, microseconds since 1970 in SQLite."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            instant: datetime = value.astimezone(UTC)
            return instant
        since_epoch: int = value
        return _EPOCH + since_epoch * _MICROSECOND


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows only in a column that is literally INTEGER PRIMARY KEY.
_Position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("world_id", "version"),
    # Newest first, for whatever is asked about; each ends in what breaks a tie.
    sa.Index("ix_snapshots_world", "world_id", "as_of", "received_at", "position"),
    sa.Index("ix_snapshots_stage", "world_id", "stage", "as_of", "received_at", "position"),
    sa.Index("ix_snapshots_actor", "world_id", "actor", "as_of", "received_at", "position"),
    sa.Index(
        "ix_snapshots_actor_stage",
        *("world_id", "actor", "stage", "as_of", "received_at", "position"),
    ),
    # What is alive: at most a day of landings, however long the history behind it.
    sa.Index("ix_snapshots_expiry", "world_id", "expires_at"),
    # A position is never given out twice, also after the newest row is gone.
    sqlite_autoincrement=True,
)

# For days of all worlds. In Postgres its nulls (there are none) stand where no question wants them:
# with few worlds it would be walked to the newest of one, through months of all the others.
sa.Index("ix_snapshots_as_of", snapshots.c.as_of, postgresql_ops={"as_of": "NULLS FIRST"})

# Kept by the landing transaction, so that "how fresh is each world" reads a row per world and
# stage, not every snapshot there ever was. `stamp` is another random number after each landing:
# whoever remembers an answer with the stamps of its world can tell whether it is still the answer.
world_stages = sa.Table(
    "world_stages",
    metadata,
    sa.Column("world_id", sa.String(128), primary_key=True),
    sa.Column("stage", sa.String(128), primary_key=True),
    sa.Column("newest_as_of", Instant, nullable=False),
    sa.Column("stamp", sa.BigInteger, nullable=False),
)

# Which snapshots refer to which blobs: what a blob is kept for.
snapshot_blobs = sa.Table(
    "snapshot_blobs",
    metadata,
    sa.Column("ref", sa.String(1024), primary_key=True),
    sa.Column("position", _Position, primary_key=True, autoincrement=False, index=True),
)

# Blobs that nothing referred to when retention last looked; see `riskhub.retention`.
condemned_blobs = sa.Table(
    "condemned_blobs",
    metadata,
    sa.Column("ref", sa.String(1024), primary_key=True),
    sa.Column("since", Instant, nullable=False),
)

validated_snapshots = sa.Table(
    "validated_snapshots",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("accepted", sa.Boolean, nullable=False),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("schema_version", sa.String(32), nullable=False),
)

snapshot_weights = sa.Table(
    "snapshot_weights",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(128), primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
)

risk_metrics = sa.Table(
    "risk_metrics",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("unavailable", sa.Text, comment="why there are no tail numbers; null when there are"),
    sa.Column("horizon_days", sa.Integer, nullable=False),
    sa.Column("window", sa.Integer, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("mean", sa.Double),
    sa.Column("volatility", sa.Double),
    sa.Column("annualised_volatility", sa.Double),
    sa.Column("max_drawdown", sa.Double),
    sa.Column("current_drawdown", sa.Double),
    sa.Column("gross", sa.Double, nullable=False),
    sa.Column("net", sa.Double, nullable=False),
    sa.Column("largest", sa.Double, nullable=False),
    sa.Column("herfindahl", sa.Double, nullable=False),
    sa.Column("effective_names", sa.Double, nullable=False),
    sa.Column("snapshot_digest", sa.String(80), nullable=False),
    sa.Column("returns_source", sa.String(32)),
    sa.Column("returns_digest", sa.String(80)),
    sa.Column("code_version", sa.String(32), nullable=False),
    sa.Index("ix_risk_metrics_world_id_as_of", "world_id", "as_of"),
    sa.Index("ix_risk_metrics_world_id_stage_as_of", "world_id", "stage", "as_of"),
)

risk_tails = sa.Table(
    "risk_tails",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("method", sa.String(32), primary_key=True),
    sa.Column("level", sa.String(16), primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("var", sa.Double, nullable=False),
    sa.Column("es", sa.Double, nullable=False),
    sa.Column("rank", sa.Integer),
    sa.Column("var_next", sa.Double),
)

symbol_budgets = sa.Table(
    "symbol_budgets",
    metadata,
    sa.Column("computed_at", Instant, primary_key=True),
    sa.Column("symbol", sa.String(128), primary_key=True),
    sa.Column("budget_usd", sa.Double, nullable=False),
    sa.Column("stress_factor", sa.Double, nullable=False),
    sa.Column("equity_usd", sa.Double, nullable=False),
    sa.Column("portfolio_heat", sa.Double, nullable=False),
    sa.Column("cluster_stress", sa.Double, nullable=False),
    sa.Column("vol_regime", sa.Double, nullable=False),
    sa.Column("base_risk_pct", sa.Double, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("policies", sa.JSON, nullable=False),
    sa.Column("formula_version", sa.String(32), nullable=False),
)
