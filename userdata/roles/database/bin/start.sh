#!/bin/bash
# In the container: makes the cluster where there never was one, nor a backup, then becomes PostgreSQL.
set -Eeuo pipefail

data=/var/lib/postgresql/17

# A restore was killed before the restored cluster was in the place of this one: userdata/host/backup/restore.py.
if [[ ! -e "$data" && -e "$data.replaced" ]]; then
  mv "$data.replaced" "$data"
fi
if [[ ! -e "$data/PG_VERSION" ]]; then
  # What is left of an interrupted initdb; a cluster always has its PG_VERSION.
  rm -rf "$data.new"
  if [[ -e "$data" ]]; then
    echo "$data exists, but holds no PostgreSQL cluster: refusing to make one" >&2
    exit 1
  fi
  # Given by userdata/host/backup/awaiting.py.
  if [[ ! -e /etc/openqa-on-aws/may-initialise ]]; then
    echo "there is no cluster in $data, and no leave to make one" >&2
    exit 1
  fi
  # Small segments: one is archived every half minute, and a small volume holds many.
  initdb --pgdata="$data.new" --username=postgres --auth=reject --data-checksums --wal-segsize=4 --encoding=UTF8 \
    --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C
  mv "$data.new" "$data"
fi
exec postgres -D "$data" -c config_file=/etc/openqa-on-aws/postgresql.conf
