"""Risk numbers of every kind: contributions, stress, outcomes, backtests; and the quarantine."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from riskhub.store.tables import Instant

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _added() -> dict[str, list[sa.Column[Any]]]:
    return {
        "risk_metrics": [
            sa.Column("covariance_source", sa.String(length=32)),
            sa.Column("covariance_digest", sa.String(length=80)),
            sa.Column("diversification_ratio", sa.Double()),
            sa.Column("effective_bets", sa.Double()),
            sa.Column(
                "contributions_level",
                sa.String(length=16),
                comment="of its risk_contributions; null: none",
            ),
            sa.Column(
                "passed_over",
                sa.JSON(),
                nullable=False,
                server_default="{}",
                comment="source to why it was not used",
            ),
            sa.Column(
                "absent",
                sa.JSON(),
                nullable=False,
                server_default="{}",
                comment="number to why there is none",
            ),
        ],
        "risk_tails": [
            sa.Column("source", sa.String(length=32), nullable=False, server_default=""),
            sa.Column("var_error", sa.Double(), comment="standard error, of a simulated tail"),
            sa.Column("es_error", sa.Double(), comment="standard error, of a simulated tail"),
        ],
        "validated_snapshots": [
            sa.Column(
                "flags",
                sa.JSON(),
                nullable=False,
                server_default="[]",
                comment="what is worth knowing and rejects nothing",
            ),
            sa.Column(
                "evidence", sa.JSON(), comment="what was measured; null when there was nothing to"
            ),
        ],
    }


def upgrade() -> None:
    op.create_table(
        "asset_returns",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("simple_return", sa.Double(), nullable=False),
        sa.Column("prices_digest", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("day", "symbol", name=op.f("pk_asset_returns")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "candidate_risk",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("candidate_id", sa.String(length=128), nullable=False),
        sa.Column("candidate_weight", sa.Double(), nullable=False),
        sa.Column("funding", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("var_without", sa.Double(), nullable=False),
        sa.Column("var_with", sa.Double(), nullable=False),
        sa.Column("es_without", sa.Double(), nullable=False),
        sa.Column("es_with", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("position", "method", "level", name=op.f("pk_candidate_risk")),
    )
    op.create_index(op.f("ix_candidate_risk_day"), "candidate_risk", ["day"])
    op.create_table(
        "quarantine",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("since", Instant(), nullable=False),
        sa.Column("until", Instant(), comment="null while it is there"),
        sa.PrimaryKeyConstraint("position", "since", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_since_position"), "quarantine", ["since", "position"])
    op.create_table(
        "risk_contributions",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("marginal_var", sa.Double(), nullable=False),
        sa.Column("marginal_es", sa.Double(), nullable=False),
        sa.Column("var", sa.Double(), nullable=False),
        sa.Column("es", sa.Double(), nullable=False),
        sa.Column("historical_var", sa.Double(), nullable=True),
        sa.Column("historical_es", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("position", "symbol", name=op.f("pk_risk_contributions")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_risk_contributions_day"), "risk_contributions", ["day"])
    op.create_table(
        "scenario_books",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("scenario", sa.String(length=64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=256), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "scenario", name=op.f("pk_scenario_books")),
    )
    op.create_table(
        "snapshot_stress",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("as_of", Instant(), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("book_digest", sa.String(length=80), nullable=False),
        sa.Column("snapshot_digest", sa.String(length=80), nullable=False),
        sa.Column("prices_digest", sa.String(length=80), nullable=False),
        sa.Column("covariance_source", sa.String(length=32), nullable=True),
        sa.Column("loss_limit", sa.Double(), nullable=False, comment="that the shocks below lose"),
        sa.Column(
            "against",
            sa.Double(),
            nullable=True,
            comment="every position moves so far against its holder",
        ),
        sa.Column("market", sa.Double(), nullable=True, comment="every price moves so far"),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_snapshot_stress")),
    )
    op.create_index(op.f("ix_snapshot_stress_day"), "snapshot_stress", ["day"])
    op.create_index("ix_snapshot_stress_world_id_as_of", "snapshot_stress", ["world_id", "as_of"])
    op.create_table(
        "stress_results",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("scenario", sa.String(length=256), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("pnl", sa.Double(), nullable=True),
        sa.Column("worst", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("ruined", sa.Boolean(), nullable=True),
        sa.Column(
            "var",
            sa.Double(),
            nullable=True,
            comment="at 99 %, under a covariance that was shifted",
        ),
        sa.Column("es", sa.Double(), nullable=True, comment="as var"),
        sa.Column(
            "unavailable",
            sa.Text(),
            nullable=True,
            comment="why there is no result; null when there is",
        ),
        sa.Column(
            "measures",
            sa.JSON(),
            nullable=True,
            comment="a producer's own numbers, as it sent them",
        ),
        sa.PrimaryKeyConstraint("position", "origin", "scenario", name=op.f("pk_stress_results")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_stress_results_day"), "stress_results", ["day"])
    op.create_table(
        "var_backtests",
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("observations", sa.Integer(), nullable=False),
        sa.Column("exceedances", sa.Integer(), nullable=False),
        sa.Column("exceeded", sa.Boolean(), nullable=False, comment="on this very day"),
        sa.Column("zone", sa.String(length=8), nullable=False),
        sa.Column("multiplier", sa.Double(), nullable=True),
        sa.Column("kupiec_p", sa.Double(), nullable=False, comment="exact"),
        sa.Column(
            "christoffersen_p", sa.Double(), nullable=False, comment="of independence, exact"
        ),
        sa.Column(
            "z2", sa.Double(), nullable=True, comment="Acerbi and Szekely's second statistic"
        ),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint(
            "world_id", "stage", "method", "level", "day", name=op.f("pk_var_backtests")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_var_backtests_day"), "var_backtests", ["day"])
    op.create_table(
        "var_outcomes",
        sa.Column("position", _POSITION, autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("world_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=128), nullable=False),
        sa.Column("forecast_day", sa.Date(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("hindsight", sa.Boolean(), nullable=False, comment="it landed after its outcome"),
        sa.Column("prices_digest", sa.String(length=80), nullable=False),
        sa.Column("code_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_var_outcomes")),
    )
    op.create_index(op.f("ix_var_outcomes_day"), "var_outcomes", ["day"])
    op.create_index(
        "ix_var_outcomes_world_id_stage_day", "var_outcomes", ["world_id", "stage", "day"]
    )
    op.create_table(
        "run_progress",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("table_name", sa.String(length=32), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "table_name", "day", name=op.f("pk_run_progress")),
    )
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    # A default only for the rows that are there: whoever writes a row says it.
    for table, name in (
        ("risk_metrics", "passed_over"),
        ("risk_metrics", "absent"),
        ("risk_tails", "source"),
        ("validated_snapshots", "flags"),
    ):
        with op.batch_alter_table(table) as batch_op:
            batch_op.alter_column(name, server_default=None)
    op.execute(
        "UPDATE risk_tails SET source = coalesce((SELECT returns_source FROM risk_metrics"
        " WHERE risk_metrics.position = risk_tails.position), 'prices')"
    )
    # Until now what was rejected was served.
    now = sa.bindparam("now", datetime.now(UTC), type_=Instant())
    op.execute(
        sa.text(
            "INSERT INTO quarantine (position, since)"
            " SELECT position, :now FROM validated_snapshots WHERE NOT accepted"
        ).bindparams(now)
    )


def downgrade() -> None:
    for table, columns in _added().items():
        for column in columns:
            with op.batch_alter_table(table) as batch_op:
                batch_op.drop_column(column.name)
    for table in (
        "run_progress",
        "var_outcomes",
        "var_backtests",
        "stress_results",
        "snapshot_stress",
        "scenario_books",
        "risk_contributions",
        "quarantine",
        "candidate_risk",
        "asset_returns",
    ):
        op.drop_table(table)
