#!/bin/bash
# In the container: whether a service listens.
#   usage: health.sh PORT
set -Eeuo pipefail

: <"/dev/tcp/127.0.0.1/$1"
