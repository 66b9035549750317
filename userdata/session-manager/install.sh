#!/bin/bash
# Installs AWS's Session Manager agent: a pinned version, from AWS's bucket of the region, its signature
# checked against AWS's key, which lies beside this script.
#   usage: install.sh REGION
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
region=$1
# Releases: github.com/aws/amazon-ssm-agent/blob/mainline/RELEASENOTES.md. AWS changes its key about every
# eighteen months; a later version may need the later key, from the page named below.
version=3.3.4624.0
fingerprint=4855A9E6833216D6A77D8FE451A8E050D0052E5D

if command -v amazon-ssm-agent >/dev/null; then
  echo "the Session Manager agent is installed already"
  exit 0
fi
# shellcheck source=/dev/null
os=$(. /etc/os-release && echo "$ID")
# shellcheck source=userdata/os/debian.sh
. "$here/../os/$os.sh"
# shellcheck source=userdata/signed.sh
. "$here/../signed.sh"

# Bucket and layout: docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
domain=amazonaws.com
[[ $region != cn-* ]] || domain+=.cn
url=https://s3.$region.$domain/amazon-ssm-$region/$version/$session_manager_package
install_signed "$url" "$url.sig" "$here/amazon-ssm-agent.asc" "$fingerprint"
systemctl enable --now amazon-ssm-agent.service
