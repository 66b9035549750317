#!/bin/bash
# In the container: whether PostgreSQL takes connections.
set -Eeuo pipefail

exec pg_isready --quiet --host=/run/postgresql
