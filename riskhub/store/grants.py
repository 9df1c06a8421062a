"""Who may do what with which table: the roles of ``deploy/postgres/roles.sql``, and their rights.

Granted by whoever owns the tables, after each migration and for the tables that it leaves. A
database without these roles is used by its owner, and nothing is granted.
"""

import sqlalchemy as sa

from riskhub.store.alert_tables import alert_watch
from riskhub.store.engine import writing
from riskhub.store.exit_tables import exit_engine, exit_episodes, exit_signals, exit_states
from riskhub.store.tables import (
    budget_violations,
    event_cursors,
    events,
    metadata,
    schema_floor,
    snapshot_blobs,
    snapshots,
    world_stages,
)

APP = "riskhub_app"
RETENTION = "riskhub_retention"
READER = "riskhub_reader"

# The truth: written once, never changed, and removed by retention alone.
_TRUTH = (snapshots, snapshot_blobs, events)
_WRITTEN_ONCE = (*_TRUTH, budget_violations)
# A row for each reader, world, rule or episode: changed, and never removed.
_KEPT_UP = (
    *(world_stages, event_cursors, alert_watch),
    *(exit_engine, exit_states, exit_episodes, exit_signals),
)
_REVISIONS = "alembic_version"
_SCHEMA = "IN SCHEMA public"


def rights(role: str, table: sa.Table) -> tuple[str, ...]:
    """What a role may do with a table; `RETENTION` besides what it may as a member of `APP`."""
    if role == READER:
        return ("SELECT",)
    if role == RETENTION:
        return ("DELETE",) if table in _TRUTH else ()
    if table is schema_floor:  # a migration's
        return ("SELECT",)
    if table in _WRITTEN_ONCE:
        return ("SELECT", "INSERT")
    if table in _KEPT_UP:
        return ("SELECT", "INSERT", "UPDATE")
    return ("SELECT", "INSERT", "UPDATE", "DELETE")


def grant(engine: sa.Engine) -> list[str]:
    """Give the roles that there are exactly their rights, as the owner; the roles, by name."""
    if engine.dialect.name != "postgresql":
        return []
    with writing(engine) as connection:
        there = connection.execute(
            sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles)"),
            {"roles": [APP, RETENTION, READER]},
        )
        roles = sorted(there.scalars())
        if roles:  # a function is everybody's, unless somebody says otherwise
            connection.execute(sa.text(f"REVOKE ALL ON ALL FUNCTIONS {_SCHEMA} FROM PUBLIC"))
        for role in roles:
            for statement in _statements(role):
                connection.execute(sa.text(statement))
    return roles


def _statements(role: str) -> list[str]:
    # All names are ours: nothing here is quoted because nothing needs to be.
    said = [
        f"REVOKE ALL ON ALL TABLES {_SCHEMA} FROM {role}",
        f"REVOKE ALL ON ALL SEQUENCES {_SCHEMA} FROM {role}",
        f"REVOKE ALL ON ALL FUNCTIONS {_SCHEMA} FROM {role}",
    ]
    said += [
        f"GRANT {', '.join(allowed)} ON {table.name} TO {role}"
        for table in metadata.sorted_tables
        if (allowed := rights(role, table))
    ]
    if role != RETENTION:
        said.append(f"GRANT SELECT ON {_REVISIONS} TO {role}")
    if role == READER:
        # `pg_dump` reads sequences, and of a table in parts each part, also one of next week.
        said += [
            f"GRANT SELECT ON ALL SEQUENCES {_SCHEMA} TO {role}",
            f"GRANT SELECT ON ALL TABLES {_SCHEMA} TO {role}",
            f"ALTER DEFAULT PRIVILEGES {_SCHEMA} GRANT SELECT ON TABLES TO {role}",
            f"ALTER DEFAULT PRIVILEGES {_SCHEMA} GRANT SELECT ON SEQUENCES TO {role}",
        ]
    if role == APP:
        # Positions and sequences; and functions of the owner's that do what only he may.
        said += [
            f"GRANT USAGE ON ALL SEQUENCES {_SCHEMA} TO {role}",
            f"GRANT EXECUTE ON ALL FUNCTIONS {_SCHEMA} TO {role}",
        ]
    return said
