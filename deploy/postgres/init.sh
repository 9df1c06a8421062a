#!/bin/sh
# What the image of Postgres does with an empty data directory: a database for the hub and one for
# Dagster, and the roles with their passwords.
set -eu
secrets=${RISKHUB_SECRETS:-/run/secrets}
roles=${RISKHUB_ROLES:-/etc/riskhub/roles.sql}
run="psql --quiet --set=ON_ERROR_STOP=1 --username=postgres"

$run --command='CREATE DATABASE riskhub' --dbname=postgres
$run --dbname=riskhub --file="$roles"
$run --dbname=postgres <<SQL
CREATE ROLE dagster LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
SQL
for role in riskhub_owner riskhub_app riskhub_retention riskhub_reader dagster; do
  # psql reads the file itself: the password stands in no list of processes.
  $run --dbname=postgres <<SQL
\set password \`cat $secrets/${role}_password\`
ALTER ROLE $role PASSWORD :'password';
SQL
done
