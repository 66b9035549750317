#!/bin/bash
# In the container: whether a service listens, and answers where a path is given.
#   usage: health.sh PORT [PATH]
set -Eeuo pipefail

if (($# == 2)); then
  exec curl --fail --silent --output /dev/null --max-time 8 "http://127.0.0.1:$1$2"
fi
: <"/dev/tcp/127.0.0.1/$1"
