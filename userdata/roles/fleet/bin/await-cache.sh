#!/bin/bash
# Waits until the cache service has its minion. A worker that starts before asks again only after minutes.
#   usage: await-cache.sh URL
set -Eeuo pipefail

for ((second = 0; second < 60; second++)); do
  if curl --silent --max-time 5 "$1/info" | grep --quiet '"workers":[1-9]'; then
    exit 0
  fi
  sleep 1
done
echo "the cache service has no minion after 60 s" >&2
exit 1
