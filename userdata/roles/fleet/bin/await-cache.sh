#!/bin/bash
# Waits until the cache service answers, or has its minion. A worker that starts before asks again only after
# minutes.
#   usage: await-cache.sh SOCKET [minion]
set -Eeuo pipefail

case ${2:-} in
  minion) expected='"workers":[1-9]' ;;
  *) expected='"workers":' ;;
esac
while ((SECONDS < 60)); do
  if curl --silent --max-time 5 --unix-socket "$1" http://localhost/info | grep --quiet "$expected"; then
    exit 0
  fi
  sleep 0.1
done
echo "the cache service has no ${2:-answer} after 60 s" >&2
exit 1
