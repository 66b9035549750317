#!/bin/bash
# Runs at an instance's first boot, as cloud-init user data: writes the host document, fetches the bundle with
# the instance's own role, checks it, and hands over to it.
set -Eeuo pipefail

root=/opt/openqa-on-aws
state=/var/lib/openqa-on-aws

say() {
  echo "openqa-on-aws: $*"
  # Some machines do not let us write there.
  { echo "openqa-on-aws: $*" >/dev/console; } 2>/dev/null || true
}

if [[ -e "$state/first-boot" ]]; then
  say "first boot refused: this machine already had one at $(<"$state/first-boot"); replace the instance instead"
  exit 1
fi

failed() {
  say "first boot failed: $1; powering off"
  systemctl --no-block poweroff
  exit 1
}
step="preparing folders"
trap 'failed "$step (boot.sh, line $LINENO)"' ERR

mkdir -p "$root" "$state" /etc/openqa-on-aws
date --utc +%FT%TZ >"$state/first-boot"
cat >/etc/openqa-on-aws/host.json <<'DOCUMENT'
@@DOCUMENT@@
DOCUMENT

step="installing python3-boto3"
if ! python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("boto3") is None)'; then
  # The one package that cannot be left to the bundle's scripts: it fetches the bundle.
  if command -v dnf >/dev/null; then
    dnf --assumeyes --quiet install python3-boto3
  else
    # apt does not wait for the lock on its package lists, which apt-daily may hold.
    systemctl --quiet stop apt-daily.service 2>/dev/null || true
    apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --quiet update
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --yes --quiet \
      install --no-install-recommends python3-boto3
  fi
fi

# The role's credentials may appear some seconds after the instance.
export AWS_METADATA_SERVICE_TIMEOUT=5 AWS_METADATA_SERVICE_NUM_ATTEMPTS=10
step="fetching the bundle s3://@@BUNDLE_BUCKET@@/@@BUNDLE_KEY@@"
python3 - "$state/bundle.tar.gz" <<'PYTHON'
import sys

import boto3
from botocore.config import Config

s3 = boto3.client("s3", region_name="@@REGION@@", config=Config(retries={"mode": "standard", "max_attempts": 10}))
s3.download_file("@@BUNDLE_BUCKET@@", "@@BUNDLE_KEY@@", sys.argv[1])
PYTHON

step="checking the bundle's SHA-256"
echo "@@BUNDLE_SHA256@@  $state/bundle.tar.gz" | sha256sum --check --quiet

step="unpacking the bundle"
tar --extract --gzip --no-same-owner --directory "$root" --file "$state/bundle.tar.gz"
rm "$state/bundle.tar.gz"

trap - ERR
exec bash "$root/userdata/bootstrap.sh"
