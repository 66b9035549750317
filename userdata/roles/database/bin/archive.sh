#!/bin/bash
# PostgreSQL's archive_command, in the container and in the data folder.
#   usage: archive.sh PATH NAME
set -Eeuo pipefail

export PYTHONPATH=/opt/openqa-on-aws PYTHONDONTWRITEBYTECODE=1
# PostgreSQL tries again; a bucket that hangs must not keep it from stopping.
exec timeout --kill-after=5 30 python3 -S -m userdata.host.backup.archive archive "$1" "$2"
