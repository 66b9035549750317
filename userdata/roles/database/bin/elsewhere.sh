#!/bin/bash
# In the container: psql at another server, with TLS that verifies its name; the first line of standard input is
# the password, the rest is SQL.
#   usage: elsewhere.sh HOST PORT USER DATABASE CA [OPTION…]
set -Eeuo pipefail

IFS= read -r PGPASSWORD
export PGPASSWORD
exec psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --file=- "${@:6}" \
  "host=$1 port=$2 user=$3 dbname=$4 sslmode=verify-full sslrootcert=$5 require_auth=scram-sha-256 connect_timeout=10"
