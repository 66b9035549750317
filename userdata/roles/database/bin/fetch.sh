#!/bin/bash
# PostgreSQL's restore_command, in the container and in the data folder.
#   usage: fetch.sh NAME TARGET SYSTEM
set -Eeuo pipefail

export PYTHONPATH=/opt/openqa-on-aws PYTHONDONTWRITEBYTECODE=1
exec python3 -S -m userdata.host.backup.archive fetch "$1" "$2" "$3"
