#!/usr/bin/env bash
# Takes the README's picture: the newest job of the running local deployment, as a browser shows it.
#   usage: picture.sh URL OUTPUT.png
set -Eeuo pipefail

if (($# != 2)); then
  echo "usage: $0 URL OUTPUT.png" >&2
  exit 2
fi
url=$1 output=$2
if ! command -v chromium >/dev/null; then
  echo "$0: chromium is not installed: apt-get install chromium" >&2
  exit 1
fi
profile=$(mktemp --directory)
trap 'rm --recursive --force "$profile"' EXIT

jobs=$(curl --silent --show-error --fail --insecure "$url/api/v1/jobs?latest=1")
job=$(python3 -c 'import json, sys; print(max((job["id"] for job in json.load(sys.stdin)["jobs"]), default=""))' <<<"$jobs")
if [[ -z $job ]]; then
  echo "$0: $url has no job to show" >&2
  exit 1
fi
# The certificate is the local authority's, which no browser knows.
chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --ignore-certificate-errors --user-data-dir="$profile" \
  --window-size=1280,800 --virtual-time-budget=15000 --screenshot="$output" "$url/tests/$job" 2>/dev/null
echo "$output shows $url/tests/$job"
