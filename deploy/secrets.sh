#!/bin/sh
# Makes what deploy/compose.yaml has as secrets: a file each, with random content, and the URLs of
# them. Keeps what is there. For Kubernetes:
#   deploy/secrets.sh DIRECTORY && kubectl create secret generic riskhub --from-file=DIRECTORY
# after the hosts in the *_url files were set to yours.
set -eu
directory=${1:-"$(dirname "$0")/secrets"}
# Nobody else comes into the directory; in it, a container's user must be able to read its file.
mkdir -p "$directory"
chmod 0700 "$directory"

# put NAME CONTENT, unless it is there
put() {
  [ -s "$directory/$1" ] || printf '%s\n' "$2" >"$directory/$1"
  chmod 0444 "$directory/$1"
}

random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

content() {
  cat "$directory/$1"
}

for role in riskhub_owner riskhub_app riskhub_retention riskhub_reader dagster postgres redis; do
  put "${role}_password" "$(random)"
done
for name in token grafana_password minio_root_password s3_secret_access_key; do
  put "$name" "$(random)"
done
put minio_root_user minio
put s3_access_key_id riskhub

put database_owner_url "postgresql://riskhub_owner:$(content riskhub_owner_password)@postgres/riskhub"
put database_url "postgresql://riskhub_app:$(content riskhub_app_password)@postgres/riskhub"
put database_retention_url \
  "postgresql://riskhub_retention:$(content riskhub_retention_password)@postgres/riskhub"
put database_reader_url "postgresql://riskhub_reader:$(content riskhub_reader_password)@postgres/riskhub"
put dagster_database_url "postgresql+psycopg2://dagster:$(content dagster_password)@postgres/dagster"
put redis_url "redis://:$(content redis_password)@redis:6379/0"
put run_broker_url "redis://:$(content redis_password)@redis:6379/1"
echo "secrets in $directory"
