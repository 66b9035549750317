#!/bin/bash
# In the container: makes the cluster where there never was one, then becomes PostgreSQL.
set -Eeuo pipefail

data=/var/lib/postgresql/17

if [[ ! -e "$data/PG_VERSION" ]]; then
  # What is left of an interrupted initdb; a cluster always has its PG_VERSION.
  rm -rf "$data.new"
  if [[ -e "$data" ]]; then
    echo "$data exists, but holds no PostgreSQL cluster: refusing to make one" >&2
    exit 1
  fi
  initdb --pgdata="$data.new" --username=postgres --auth=reject --data-checksums --encoding=UTF8 \
    --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C
  mv "$data.new" "$data"
fi
exec postgres -D "$data" -c config_file=/etc/openqa-on-aws/postgresql.conf
