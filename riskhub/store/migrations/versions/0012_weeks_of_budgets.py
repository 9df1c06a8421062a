"""Budgets and cycles by weeks: what is old is dropped, not deleted row by row.

In Postgres only. What is there becomes the first partition where it lies: no row is copied, and
the one pass that looks at each row (it must be older than the first week) lets everybody read and
write. Only the swap at the end locks others out, for as long as it takes to rename.

Making and dropping weeks takes the owner of the tables, so it is done by functions of the owner's,
which whoever runs riskhub may be granted and which do nothing else.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_BUDGETS = {
    "budget_cycles": ("computed_at",),
    "symbol_budgets": ("computed_at", "symbol"),
}
_BY_SYMBOL = "ix_symbol_budgets_symbol_computed_at"

_ADD_WEEK = """
CREATE FUNCTION riskhub_add_week(parent text, monday timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
    IF parent NOT IN ('budget_cycles', 'symbol_budgets')
       OR monday <> date_trunc('week', monday, 'UTC') THEN
        RAISE EXCEPTION 'not a week of budgets: % %', parent, monday;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
        parent || to_char(monday AT TIME ZONE 'UTC', '"_"IYYY"w"IW'), parent,
        monday, monday + interval '168 hours'
    );
    RETURN true;
EXCEPTION WHEN duplicate_table OR invalid_object_definition THEN
    RETURN false;  -- it is there, or lies in what was before there were weeks
END $$
"""
_DROP_WEEKS = """
CREATE FUNCTION riskhub_drop_weeks(parent text, before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    part regclass;
    rows bigint;
    dropped bigint := 0;
BEGIN
    IF parent NOT IN ('budget_cycles', 'symbol_budgets') THEN
        RAISE EXCEPTION 'not kept by weeks: %', parent;
    END IF;
    FOR part IN
        SELECT child.oid FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = parent::regclass
          AND substring(pg_get_expr(relpartbound, child.oid) FROM $f$TO \\('([^']+)'\\)$f$)
              ::timestamptz <= before
    LOOP
        EXECUTE format('SELECT count(*) FROM %s', part) INTO rows;
        EXECUTE format('DROP TABLE %s', part);
        dropped := dropped + rows;
    END LOOP;
    RETURN dropped;
END $$
"""
_MONDAY = (
    "SELECT date_trunc('week', greatest(now(), max(computed_at)), 'UTC') + interval '336 hours' "
    "FROM {table}"
)
# Whoever may write budgets may make room for them, and drop them.
_GRANT_AS = """
DO $do$
DECLARE allowed record;
BEGIN
    FOR allowed IN
        SELECT privilege_type AS may,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS who
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = '{given}'::regclass AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT %s ON {to} TO %s', allowed.may, allowed.who);
        IF allowed.may = 'DELETE' THEN
            EXECUTE format(
                'GRANT EXECUTE ON FUNCTION riskhub_add_week, riskhub_drop_weeks TO %s', allowed.who
            );
        END IF;
    END LOOP;
END $do$
"""
_BOUND = sa.text(
    "SELECT substring(pg_get_constraintdef(oid) FROM $f$'([^']+)'$f$)::timestamptz "
    "FROM pg_constraint WHERE conname = :name"
)


def upgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    schema = bind.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for function in (_ADD_WEEK, _DROP_WEEKS):
        op.execute(function.format(schema=schema))
    op.execute("REVOKE ALL ON FUNCTION riskhub_add_week, riskhub_drop_weeks FROM PUBLIC")
    for table in _BUDGETS:
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_before")
    for table, key in _BUDGETS.items():
        bound = bind.execute(_BOUND, {"name": f"ck_{table}_before"}).scalar_one()
        op.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
        op.execute(f"ALTER INDEX pk_{table} RENAME TO pk_{table}_before")
        if table == "symbol_budgets":
            op.execute(f"ALTER INDEX {_BY_SYMBOL} RENAME TO {_BY_SYMBOL}_before")
        op.execute(
            f"CREATE TABLE {table} (LIKE {table}_before INCLUDING COMMENTS, "
            f"CONSTRAINT pk_{table} PRIMARY KEY ({', '.join(key)})) "
            "PARTITION BY RANGE (computed_at)"
        )
        if table == "symbol_budgets":
            op.create_index(_BY_SYMBOL, table, ["symbol", "computed_at"])
        op.execute(_GRANT_AS.format(given=f"{table}_before", to=table))
        op.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {table}_before "
            f"FOR VALUES FROM (MINVALUE) TO ('{bound.isoformat()}')"
        )
        op.execute(f"ALTER TABLE {table}_before DROP CONSTRAINT ck_{table}_before")


def downgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    for table, key in _BUDGETS.items():
        op.execute(
            f"CREATE TABLE {table}_plain (LIKE {table} INCLUDING COMMENTS, "
            f"CONSTRAINT pk_{table}_plain PRIMARY KEY ({', '.join(key)}))"
        )
        if table == "symbol_budgets":
            op.create_index(f"{_BY_SYMBOL}_plain", f"{table}_plain", ["symbol", "computed_at"])
        op.execute(f"INSERT INTO {table}_plain SELECT * FROM {table}")  # noqa: S608
    for table in _BUDGETS:
        # From here on nobody writes: what came meanwhile is brought over, too.
        op.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        op.execute(
            f"INSERT INTO {table}_plain SELECT * FROM {table} WHERE computed_at > "  # noqa: S608
            f"(SELECT coalesce(max(computed_at), '-infinity') FROM {table}_plain)"
        )
        op.execute(_GRANT_AS.format(given=table, to=f"{table}_plain"))
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE {table}_plain RENAME TO {table}")
        op.execute(f"ALTER INDEX pk_{table}_plain RENAME TO pk_{table}")
        if table == "symbol_budgets":
            op.execute(f"ALTER INDEX {_BY_SYMBOL}_plain RENAME TO {_BY_SYMBOL}")
        monday = bind.execute(sa.text(_MONDAY.format(table=table))).scalar_one()
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_before "
            f"CHECK (computed_at < '{monday.isoformat()}') NOT VALID"
        )
    for function in ("riskhub_add_week", "riskhub_drop_weeks"):
        op.execute(f"DROP FUNCTION {function}")
