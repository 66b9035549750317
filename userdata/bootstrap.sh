#!/bin/bash
# First boot, after boot.sh: install, prepare, start, wait until it works, report. Any failure is reported to
# the console, the Auto Scaling group and CloudFormation, and powers the machine off.
set -Eeuo pipefail

root=/opt/openqa-on-aws
export PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1

say() {
  echo "openqa-on-aws: $*"
  { echo "openqa-on-aws: $*" >/dev/console; } 2>/dev/null || true
}

failed() {
  trap - ERR
  # Some workers may already have jobs: openQA reruns them elsewhere if it learns of this before the host ends.
  timeout 30 systemctl stop 'openqa-worker@*.service' 'openqa-worker-plain@*.service' || true
  python3 -m userdata.host fail "$1" || true
  say "first boot failed: $(cat /var/lib/openqa-on-aws/failure 2>/dev/null || echo "$1"); powering off"
  systemctl --no-block poweroff
  exit 1
}
trap 'failed "bootstrap.sh failed at line $LINENO"' ERR

step() {
  local name=$1
  shift
  say "$name"
  "$@" || failed "$name failed: '$*'"
}

started=$SECONDS
role=$(python3 -c 'import json; print(json.load(open("/etc/openqa-on-aws/host.json"))["role"])')
step "installing for the role $role" bash "$root/userdata/install.sh" --role "$role" --document /etc/openqa-on-aws/host.json
step "preparing the host" python3 -m userdata.host prepare
step "starting the agent" systemctl start openqa-agent.service
step "starting openQA's services" systemctl start --no-block openqa-on-aws.target
step "waiting until the host works" python3 -m userdata.host ready
say "the $role works after $((SECONDS - started)) s"
