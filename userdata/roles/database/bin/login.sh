#!/bin/bash
# In the container: logs in as a client does, with TLS that verifies the server's name and with the password,
# which it reads from standard input.
#   usage: login.sh HOST USER DATABASE <PASSWORD
set -Eeuo pipefail

IFS= read -r PGPASSWORD || [[ -n "$PGPASSWORD" ]]
export PGPASSWORD
exec psql --no-psqlrc --quiet --tuples-only --no-align --no-password --command="select 1" \
  "host=$1 hostaddr=127.0.0.1 user=$2 dbname=$3 sslmode=verify-full sslrootcert=/etc/certificates/ca.crt require_auth=scram-sha-256 connect_timeout=5"
