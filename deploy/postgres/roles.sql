-- The roles of the hub's database. Run by a superuser in that database, once; again does no harm:
--   psql --dbname=riskhub --file=deploy/postgres/roles.sql
-- None has a password yet: ALTER ROLE ... PASSWORD, or a pg_hba.conf without them.
--
--   riskhub_owner      owns the tables: `riskhub migrate`, `riskhub restore`, and nothing else
--   riskhub_app        API, relay, worker, governor, exit engine, alerts, portfolio state
--   riskhub_retention  run workers: what riskhub_app may, and removing what retention removes
--   riskhub_reader     people and Grafana: reads
--
-- What each may do with a table is granted by `riskhub migrate`, for the tables that its version has:
-- riskhub/store/grants.py. Dagster has a database and a role of its own, which know nothing of these.

DO $roles$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['riskhub_owner', 'riskhub_app', 'riskhub_retention', 'riskhub_reader']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format(
                'CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role
            );
        END IF;
    END LOOP;

    -- By default everybody may connect, make temporary tables, and use the schema.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO riskhub_owner, riskhub_app, riskhub_reader',
        current_database()
    );
    EXECUTE format('ALTER DATABASE %I OWNER TO riskhub_owner', current_database());
END
$roles$;

GRANT riskhub_app TO riskhub_retention;
ALTER SCHEMA public OWNER TO riskhub_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO riskhub_app, riskhub_reader;

-- A person's query must not hold up a vacuum or a migration for hours.
ALTER ROLE riskhub_reader SET default_transaction_read_only = on;
ALTER ROLE riskhub_reader SET statement_timeout = '60s';
