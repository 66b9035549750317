#!/bin/bash
# Installs everything that a role needs and that does not depend on the instance: at first boot, and when a
# golden image is made, so that nothing is left to do at boot.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat >&2 <<'TEXT'
usage: install.sh [--role database|webui|worker|builder]… [--document FILE | --session-manager REGION]
  --role               install for this role (default: all roles)
  --document           a host document: load its images, and install the Session Manager agent if it says so
  --session-manager    without a document: install the Session Manager agent from this region's bucket
Without a document, all container images in /var/cache/openqa-on-aws are loaded.
TEXT
  exit 2
}

roles=() document="" session_manager_region=""
while (($#)); do
  (($# > 1)) || usage
  case $1 in
    --role) roles+=(--role "$2") ;;
    --document) document=$2 ;;
    --session-manager) session_manager_region=$2 ;;
    *) usage ;;
  esac
  shift 2
done

# shellcheck source=/dev/null
os=$(. /etc/os-release && echo "$ID")
if [[ ! -f "$here/os/$os.sh" ]]; then
  echo "install.sh: the operating system is $os, allowed are debian and fedora" >&2
  exit 1
fi
# shellcheck source=userdata/os/debian.sh
. "$here/os/$os.sh"

from_document() {
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$document" "$1"
}
if [[ -n "$document" && "$(from_document session_manager)" == True ]]; then
  session_manager_region=$(from_document region)
fi

# First, so that a host on which anything below fails can be inspected.
if [[ -n "$session_manager_region" ]]; then
  bash "$here/session-manager/install.sh" "$session_manager_region"
fi

# Usage: find_missing PACKAGE…; sets "missing".
find_missing() {
  missing=()
  # The usual case, with a golden image: one query instead of one per package.
  os_is_installed "$@" && return
  local package
  for package; do
    os_is_installed "$package" || missing+=("$package")
  done
}

find_missing "${packages[@]}"
if ((${#missing[@]})); then
  os_install "${missing[@]}"
fi
os_prepare_containers

# Nothing in a VPC answers multicast: each lookup of a missing name would take seconds, and cloud-init does one
# at every host's first boot.
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nLLMNR=no\n' >/etc/systemd/resolved.conf.d/openqa-on-aws.conf

# Hosts that keep state mount the backup bucket.
if ((${#roles[@]} == 0)) || [[ " ${roles[*]} " =~ " database "|" webui " ]]; then
  bash "$here/mount-s3/install.sh"
fi

# Whether this is, or may become, a host that runs openQA's worker outside containers.
wants_tap() {
  if [[ -n "$document" ]]; then
    python3 -c 'import json, sys
sys.exit((json.load(open(sys.argv[1])).get("worker") or {}).get("network") != "tap")' "$document"
  else
    ((${#roles[@]} == 0)) || [[ " ${roles[*]} " == *" worker "* ]]
  fi
}

if wants_tap; then
  # With the user IDs that containers know, before the packages choose others.
  id geekotest &>/dev/null || useradd --system --user-group --uid 601 --home-dir /var/lib/openqa geekotest
  id _openqa-worker &>/dev/null || useradd --system --user-group --uid 602 --groups geekotest,kvm \
    --home-dir /run/openqa --shell /bin/bash _openqa-worker
  # Also what the content's tests need.
  more=$([[ -z "$document" ]] || python3 -c 'import json, sys
print(*json.load(open(sys.argv[1]))["worker"]["packages"])' "$document")
  read -ra more <<<"$more"
  find_missing "${tap_packages[@]}" "${more[@]}"
  if ((${#missing[@]})); then
    os_install_idle "$here/containers/worker/tesseract-ocr-all.control" "${missing[@]}"
  fi
  sh "$here/containers/worker/firmware-names.sh"
fi

# Builders are rare, and only some of them run createhdds: its packages are in no golden image.
builds_with_createhdds() {
  [[ -n "$document" ]] && python3 -c 'import json, sys
sys.exit((json.load(open(sys.argv[1])).get("builder") or {}).get("program") != "createhdds")' "$document"
}

if builds_with_createhdds; then
  find_missing "${createhdds_packages[@]}"
  if ((${#missing[@]})); then
    os_install "${missing[@]}"
  fi
fi

images=("${roles[@]}")
[[ -z "$document" ]] || images=(--document "$document")
PYTHONPATH=$(dirname "$here") PYTHONDONTWRITEBYTECODE=1 python3 -m userdata.host images "${images[@]}"
