#!/usr/bin/env bash
# Takes the README's picture: the newest job of the running local deployment, as a browser shows it.
#   usage: picture.sh URL OUTPUT.png
set -Eeuo pipefail

url=$1 output=$2
profile=$(mktemp --directory)
trap 'rm --recursive --force "$profile"' EXIT

job=$(curl --silent --show-error --fail --insecure "$url/api/v1/jobs?latest=1" |
  python3 -c 'import json, sys; print(max(job["id"] for job in json.load(sys.stdin)["jobs"]))')
# The certificate is the local authority's, which no browser knows.
chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --ignore-certificate-errors --user-data-dir="$profile" \
  --window-size=1280,800 --virtual-time-budget=15000 --screenshot="$output" "$url/tests/$job" 2>/dev/null
echo "$output shows $url/tests/$job"
