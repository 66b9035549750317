#!/bin/bash
# In the container, before any service starts: the schema is deployed or upgraded, and the administrator has
# today's API key. Nothing secret is an argument.
set -Eeuo pipefail

export PGSERVICEFILE=/etc/openqa/pg_service.conf PGSERVICE=openqa
export OPENQA_CONFIG=/etc/openqa

for ((attempt = 0; ; attempt++)); do
  if reason=$(psql --no-psqlrc --quiet --no-password --command="select 1" 2>&1 >/dev/null); then
    break
  fi
  if ((attempt == 150)); then
    echo "the database takes no login: $reason" >&2
    exit 1
  fi
  sleep 2
done

# An empty database at RDS, although this deployment had one in a container: it would begin anew on it.
if [[ ${DATABASE_MOVED:-} ]]; then
  there=$(psql --no-psqlrc --no-password --tuples-only --no-align --command="select to_regclass('jobs') is not null")
  if [[ $there != t ]]; then
    echo "the database at RDS is empty: it was not moved there from the container (docs/backups.md)" >&2
    exit 1
  fi
fi

# Who keeps a table from an upgrade, such as a forgotten session of a person, might do so for ever: after five attempts
# the host fails and tells the reason (userdata/host/ready.py), while a stack's update still waits for it.
export PGOPTIONS="-c lock_timeout=90s"
code=0
said=$(/usr/share/openqa/script/initdb --init_database 2>&1) || code=$?
echo "$said"
# 4: the schema is up to date.
if ((code != 0 && code != 4)); then
  echo "the database's schema could not be deployed: exit code $code: ${said%%$'\n'*}" >&2
  exit 1
fi
psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 </etc/openqa-administrator/administrator.sql
