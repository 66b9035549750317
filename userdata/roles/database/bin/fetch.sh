#!/bin/bash
# PostgreSQL's restore_command, in the container and in the data folder.
#   usage: fetch.sh NAME TARGET SYSTEM
set -Eeuo pipefail

export PYTHONPATH=/opt/openqa-on-aws PYTHONDONTWRITEBYTECODE=1
code=0
python3 -S -m userdata.host.backup.archive fetch "$1" "$2" "$3" || code=$?
# PostgreSQL takes a code up to 125 for the end of the archive and would promote; it knows those of signals:
# src/backend/access/transam/xlogarchive.c, RestoreArchivedFile.
case $code in
  0) ;;
  3) exit 1 ;;
  *) exit $((code < 126 ? 200 : code)) ;;
esac
