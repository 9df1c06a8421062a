#!/bin/sh
# The bucket of blobs, and a user for riskhub who may do what policy.json says.
set -eu
secret() {
  cat "/run/secrets/$1"
}

mc alias set hub http://minio:9000 "$(secret minio_root_user)" "$(secret minio_root_password)"
mc mb --ignore-existing hub/riskhub-blobs
mc admin user add hub "$(secret s3_access_key_id)" "$(secret s3_secret_access_key)"
mc admin policy create hub riskhub /etc/riskhub/policy.json
# Attached a second time it would be an error.
mc admin policy attach hub riskhub --user "$(secret s3_access_key_id)" || true
