#!/bin/bash
# Installs AWS's Session Manager agent: a pinned version, from AWS's bucket of the region, its signature
# checked against AWS's key, which lies beside this script.
#   usage: install.sh REGION
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
region=$1
# Releases: github.com/aws/amazon-ssm-agent/blob/mainline/RELEASENOTES.md. AWS changes its key about every
# eighteen months; this version was signed with 4855 A9E6 8332 16D6 A77D 8FE4 51A8 E050 D005 2E5D. A later
# version may need the later key, from the page named below.
version=3.3.4624.0

if command -v amazon-ssm-agent >/dev/null; then
  echo "the Session Manager agent is installed already"
  exit 0
fi
# shellcheck source=/dev/null
os=$(. /etc/os-release && echo "$ID")
# shellcheck source=userdata/os/debian.sh
. "$here/../os/$os.sh"
for package in "${signature_packages[@]}"; do
  os_is_installed "$package" || os_install "$package"
done

scratch=$(mktemp --directory)
trap 'rm -rf "$scratch"' EXIT
file=$scratch/${session_manager_package##*/}
# Bucket and layout: docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
url=https://s3.$region.amazonaws.com/amazon-ssm-$region/$version/$session_manager_package
for suffix in "" .sig; do
  curl --fail --silent --show-error --location --retry 5 --retry-connrefused --output "$file$suffix" "$url$suffix"
done
# gpgv trusts the key of this file and nothing else. That the key expired since does not matter: the version
# is pinned.
gpg --dearmor <"$here/amazon-ssm-agent.asc" >"$scratch/key.gpg"
gpgv --quiet --keyring "$scratch/key.gpg" "$file.sig" "$file"
os_install_file "$file"
systemctl enable --now amazon-ssm-agent.service
