#!/bin/bash
# Installs AWS's mount-s3: a pinned version, its signature checked against AWS's keys, which are those with
# the published fingerprints. Does nothing where the machine image has the program.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Releases: github.com/awslabs/mountpoint-s3/releases. Fingerprints, the older key last:
# docs.aws.amazon.com/AmazonS3/latest/userguide/mountpoint-installation.html
version=1.24.0
fingerprints=(8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B 673FE4061506BB469A0EF857BE397A52B086DA5A)
bucket=https://s3.amazonaws.com/mountpoint-s3-release

if command -v mount-s3 >/dev/null; then
  echo "mount-s3 is installed already"
  exit 0
fi
# shellcheck source=/dev/null
os=$(. /etc/os-release && echo "$ID")
# shellcheck source=userdata/os/debian.sh
. "$here/../os/$os.sh"
# shellcheck source=userdata/signed.sh
. "$here/../signed.sh"
command -v curl >/dev/null || os_install curl

architecture=$(uname -m | sed 's/aarch64/arm64/')
keys=$(mktemp)
fetch "$bucket/public_keys/KEYS" "$keys"
url=$bucket/$version/$architecture/mount-s3-$version-$architecture.$package_format
install_signed "$url" "$url.asc" "$keys" "${fingerprints[@]}"
rm --force "$keys"
