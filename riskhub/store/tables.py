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

# One row: the oldest code, by its newest revision, that works with the schema as it is. A migration
# that takes away what older code needs raises it.
schema_floor = sa.Table(
    "schema_floor", metadata, sa.Column("code_revision", sa.String(32), primary_key=True)
)

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

# Kept by the transactions of landings and verdicts, so that "how fresh is each world" reads a row
# per world and stage, not every snapshot there ever was. What is in the quarantine doesn't count:
# neither is it news of its world, nor is it served. `stamp` is another random number after each
# change: whoever remembers an answer with the stamps of its world can tell whether it is still the
# answer.
world_stages = sa.Table(
    "world_stages",
    metadata,
    sa.Column("world_id", sa.String(128), primary_key=True),
    sa.Column("stage", sa.String(128), primary_key=True),
    sa.Column("newest_as_of", Instant),  # null: all that landed is in the quarantine
    sa.Column("stamp", sa.BigInteger, nullable=False),
    sa.Column("alive_until", Instant),  # the last expiry; null: nothing was alive
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

# The outbox: what happened, in the order in which it was committed. The event of a landing has no
# data of its own: it follows from the snapshot. `riskhub.controlbus.events` has the form.
events = sa.Table(
    "events",
    metadata,
    sa.Column("sequence", _Position, primary_key=True, autoincrement=True),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("key", sa.String(128), nullable=False, comment="the world, or a budget's symbol"),
    sa.Column("position", _Position, index=True, comment="the landing that it is about"),
    sa.Column("event_id", sa.String(36), index=True, comment="null: follows from the snapshot"),
    sa.Column("subject", sa.String(260)),
    sa.Column("occurred_at", Instant),
    sa.Column("correlation_id", sa.String(36)),
    sa.Column("data", sa.Text),
    # A sequence is never given out twice, also after the newest row is gone.
    sqlite_autoincrement=True,
)

# Up to which event a reader of the outbox (the relay to a topic, say) is done.
event_cursors = sa.Table(
    "event_cursors",
    metadata,
    sa.Column("reader", sa.String(255), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("moved_at", Instant, nullable=False),
)

# Which events a handler is done with: what comes again is passed over.
handled_events = sa.Table(
    "handled_events",
    metadata,
    sa.Column("handler", sa.String(128), primary_key=True),
    sa.Column("event_id", sa.String(255), primary_key=True),
    sa.Column("handled_at", Instant, nullable=False, index=True),
)

# Events that could not be handled, with why; kept until somebody has seen to them.
dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", _Position, primary_key=True, autoincrement=True),
    sa.Column("handler", sa.String(128), nullable=False, comment="empty: no event at all"),
    sa.Column("event_id", sa.String(255), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("origin", sa.String(300), nullable=False, comment="topic, partition and offset"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("died_at", Instant, nullable=False, index=True),
    sa.Column("redriven_at", Instant),
    # The same event dies once for a handler, however often it is delivered.
    sa.UniqueConstraint("handler", "event_id", "origin"),
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
    sa.Column(
        "flags", sa.JSON, nullable=False, comment="what is worth knowing and rejects nothing"
    ),
    sa.Column("evidence", sa.JSON, comment="what was measured; null when there was nothing to"),
    sa.Column("schema_version", sa.String(32), nullable=False),
)

# What is rejected, from when to when: so that what is served need not read verdicts, and what was
# served at an earlier moment can be told again. Kept by the transaction that writes verdicts.
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("since", Instant, primary_key=True),
    sa.Column("until", Instant, comment="null while it is there"),
    sa.Index("ix_quarantine_since_position", "since", "position"),
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
    sa.Column("covariance_source", sa.String(32)),
    sa.Column("covariance_digest", sa.String(80)),
    sa.Column("diversification_ratio", sa.Double),
    sa.Column("effective_bets", sa.Double),
    sa.Column(
        "contributions_level", sa.String(16), comment="of its risk_contributions; null: none"
    ),
    sa.Column("passed_over", sa.JSON, nullable=False, comment="source to why it was not used"),
    sa.Column("absent", sa.JSON, nullable=False, comment="number to why there is none"),
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
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("var_error", sa.Double, comment="standard error, of a simulated tail"),
    sa.Column("es_error", sa.Double, comment="standard error, of a simulated tail"),
)

# A clustered key: a row of these costs little beside its key, and a panel has a million of them.
_CLUSTERED: dict[str, Any] = {"sqlite_with_rowid": False}

# Losses are positive, fractions of equity; marginal ones per unit of weight.
risk_contributions = sa.Table(
    "risk_contributions",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(128), primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("weight", sa.Double, nullable=False),
    sa.Column("marginal_var", sa.Double, nullable=False),
    sa.Column("marginal_es", sa.Double, nullable=False),
    sa.Column("var", sa.Double, nullable=False),
    sa.Column("es", sa.Double, nullable=False),
    sa.Column("historical_var", sa.Double),
    sa.Column("historical_es", sa.Double),
    **_CLUSTERED,
)

# A candidate of a snapshot's `constraints`: its tails without and with it.
candidate_risk = sa.Table(
    "candidate_risk",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("method", sa.String(32), primary_key=True),
    sa.Column("level", sa.String(16), primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("candidate_id", sa.String(128), nullable=False),
    sa.Column("candidate_weight", sa.Double, nullable=False),
    sa.Column("funding", sa.String(16), nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("var_without", sa.Double, nullable=False),
    sa.Column("var_with", sa.Double, nullable=False),
    sa.Column("es_without", sa.Double, nullable=False),
    sa.Column("es_with", sa.Double, nullable=False),
)

# What the scenarios of a book say, once per digest of the book: results name it by that.
scenario_books = sa.Table(
    "scenario_books",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("scenario", sa.String(64), primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("label", sa.String(256), nullable=False),
    sa.Column("definition", sa.JSON, nullable=False),
)

# One row a snapshot: what its stress results were made from, and the reverse stress.
snapshot_stress = sa.Table(
    "snapshot_stress",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("book_digest", sa.String(80), nullable=False),
    sa.Column("snapshot_digest", sa.String(80), nullable=False),
    sa.Column("prices_digest", sa.String(80), nullable=False),
    sa.Column("covariance_source", sa.String(32)),
    sa.Column("loss_limit", sa.Double, nullable=False, comment="that the shocks below lose"),
    sa.Column("against", sa.Double, comment="every position moves so far against its holder"),
    sa.Column("market", sa.Double, comment="every price moves so far"),
    sa.Column("code_version", sa.String(32), nullable=False),
    sa.Index("ix_snapshot_stress_world_id_as_of", "world_id", "as_of"),
)

# P&L: signed fractions of equity. `origin`: ``riskhub``, or ``producer`` for those of a snapshot's
# own stress block, which are kept as `measures`.
stress_results = sa.Table(
    "stress_results",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("origin", sa.String(16), primary_key=True),
    sa.Column("scenario", sa.String(256), primary_key=True),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("pnl", sa.Double),
    sa.Column("worst", sa.Double),
    sa.Column("max_drawdown", sa.Double),
    sa.Column("ruined", sa.Boolean),
    sa.Column("var", sa.Double, comment="at 99 %, under a covariance that was shifted"),
    sa.Column("es", sa.Double, comment="as var"),
    sa.Column("unavailable", sa.Text, comment="why there is no result; null when there is"),
    # Null is no JSON here: of a million rows nearly all are none.
    sa.Column(
        "measures", sa.JSON(none_as_null=True), comment="a producer's own numbers, as it sent them"
    ),
    **_CLUSTERED,
)

# What a forecast met: the loss of the next trading day, of the portfolio as it was weighted then.
# `day` is the day of the outcome; `position` is the forecast's.
var_outcomes = sa.Table(
    "var_outcomes",
    metadata,
    sa.Column("position", _Position, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, nullable=False, index=True),
    sa.Column("world_id", sa.String(128), nullable=False),
    sa.Column("stage", sa.String(128), nullable=False),
    sa.Column("forecast_day", sa.Date, nullable=False),
    sa.Column("loss", sa.Double, nullable=False),
    sa.Column("hindsight", sa.Boolean, nullable=False, comment="it landed after its outcome"),
    sa.Column("prices_digest", sa.String(80), nullable=False),
    sa.Column("code_version", sa.String(32), nullable=False),
    sa.Index("ix_var_outcomes_world_id_stage_day", "world_id", "stage", "day"),
)

# The last `observations` outcomes of a world up to a day, held against one model's forecasts.
var_backtests = sa.Table(
    "var_backtests",
    metadata,
    sa.Column("world_id", sa.String(128), primary_key=True),
    sa.Column("stage", sa.String(128), primary_key=True),
    sa.Column("method", sa.String(32), primary_key=True),
    sa.Column("level", sa.String(16), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True, index=True),
    sa.Column("window", sa.Integer, nullable=False),
    sa.Column("observations", sa.Integer, nullable=False),
    sa.Column("exceedances", sa.Integer, nullable=False),
    sa.Column("exceeded", sa.Boolean, nullable=False, comment="on this very day"),
    sa.Column("zone", sa.String(8), nullable=False),
    sa.Column("multiplier", sa.Double),
    sa.Column("kupiec_p", sa.Double, nullable=False, comment="exact"),
    sa.Column("christoffersen_p", sa.Double, nullable=False, comment="of independence, exact"),
    sa.Column("z2", sa.Double, comment="Acerbi and Szekely's second statistic"),
    sa.Column("code_version", sa.String(32), nullable=False),
    **_CLUSTERED,
)

# The price source's returns, as they were when a day was materialized.
asset_returns = sa.Table(
    "asset_returns",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("symbol", sa.String(128), primary_key=True),
    sa.Column("simple_return", sa.Double, nullable=False),
    sa.Column("prices_digest", sa.String(80), nullable=False),
    **_CLUSTERED,
)

# The days of a table that a run over a range has written and is not done with: should it be tried
# again, it goes on behind them.
run_progress = sa.Table(
    "run_progress",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("table_name", sa.String(32), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
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
    sa.Column("haircut", sa.Double, comment="share of the budget that was taken off; null: as 0"),
    sa.Column("portfolio_age_sec", sa.Double, comment="of the portfolio state, when it was used"),
    sa.Column("share", sa.Double, comment="of the world's ES; null: not by contribution"),
    sa.Column("ages", sa.JSON, comment="seconds, or null, by input as in policies"),
    # The newest of one symbol.
    sa.Index("ix_symbol_budgets_symbol_computed_at", "symbol", "computed_at"),
)

# The governor's cycles, as far as they are kept: those that are due, and those between them that
# differ from the one before. Of the latter `symbol_budgets` has only the symbols that differ.
budget_cycles = sa.Table(
    "budget_cycles",
    metadata,
    sa.Column("computed_at", Instant, primary_key=True, autoincrement=False),
    sa.Column("writer", sa.String(255), nullable=False),
    sa.Column("no_budget_reason", sa.String(64), comment="null when there are budgets"),
    sa.Column("symbols", sa.Integer, nullable=False, comment="how many have a budget"),
    sa.Column(
        "complete", sa.Boolean, nullable=False, comment="symbol_budgets has each of its budgets"
    ),
    sa.Column("equity_usd", sa.Double),
    sa.Column("portfolio_policy", sa.String(32), nullable=False),
    sa.Column("portfolio_age_sec", sa.Double),
    sa.Column("heat", sa.Double),
    sa.Column("heat_policy", sa.String(32)),
    sa.Column("heat_age_sec", sa.Double, comment="of the heat, when it was used; null: unknown"),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("formula_version", sa.String(32), nullable=False),
)

budget_violations = sa.Table(
    "budget_violations",
    metadata,
    sa.Column("id", _Position, primary_key=True, autoincrement=True),
    sa.Column("at", Instant, nullable=False, index=True),
    sa.Column("symbol", sa.String(128), nullable=False),
    sa.Column("position_notional", sa.Double, nullable=False),
    sa.Column("budget_usd", sa.Double, nullable=False),
    sa.Column("over_budget", sa.Double, nullable=False, comment="USD that it was over by"),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Index("ix_budget_violations_symbol_at", "symbol", "at"),
)

# What is made from a snapshot, each row naming it by `position` and the partition by `day`.
MADE_FROM_SNAPSHOTS = (
    validated_snapshots,
    snapshot_weights,
    risk_metrics,
    risk_tails,
    risk_contributions,
    candidate_risk,
    snapshot_stress,
    stress_results,
    var_outcomes,
)
