#!/usr/bin/env bash
# Installs the Debian packages that the project's commands need. Does nothing if they are installed.
#
#   prerequisites.sh python    to make the virtual environment
#   prerequisites.sh machine   to build images, run the local cloud and its tests (as root)
set -Eeuo pipefail

case "${1-}" in
  python)
    packages=(python3-venv)
    # A Python that is not Debian's brings its own.
    if python3 -c 'import ensurepip, venv' 2>/dev/null; then
      packages=()
    fi
    ;;
  machine)
    packages=(
      e2fsprogs         # file systems of volumes
      fdisk             # partitions, which volumes must not lose
      gpg               # signatures of packages
      gpgv              # their verification
      haproxy           # plays the load balancer
      iproute2          # the VPC's links
      mmdebstrap        # builds root file systems from signed packages
      nftables          # plays the security groups
      nginx-light       # checks the web UI host's nginx.conf
      openssl           # the database's certificates
      qemu-system-arm   # emulates the guest that proves KVM, for aarch64
      qemu-system-x86   # the same for x86_64
      rabbitmq-server   # plays the broker of messages
      rsync             # what must fail on the mounted backup bucket
      slirp4netns       # the local cloud's way out to the internet
      systemd-container # systemd-nspawn plays the instances
    )
    ;;
  *)
    echo "usage: $0 python|machine" >&2
    exit 2
    ;;
esac

missing=()
for package in "${packages[@]}"; do
  if ! dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "$0: this machine lacks ${missing[*]} and has no apt-get: install them by hand" >&2
  exit 1
fi
sudo=()
if ((EUID != 0)); then
  sudo=(sudo "--preserve-env=http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY")
fi
echo "Installing Debian packages: ${missing[*]}"
# Some of them bring services that would start and listen; only their programs are wanted here. The policy holds
# while this runs: one that a killed run leaves behind keeps no service of the machine from starting.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]] || grep -q prerequisites.sh "$policy"; then
  trap '"${sudo[@]}" rm --force "$policy"' EXIT
  printf '#!/bin/sh\n! grep -qs prerequisites.sh /proc/%d/cmdline || exit 101\n' $$ |
    "${sudo[@]}" install --mode=0755 /dev/stdin "$policy"
fi
# A fresh machine may be upgrading itself, which takes minutes; without this option apt-get would not wait.
install=(apt-get install -qq --yes --no-install-recommends --option=DPkg::Lock::Timeout=600)
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" "${missing[@]}" >/dev/null
for package in "${missing[@]}"; do
  case $package in
    haproxy) "${sudo[@]}" systemctl disable --quiet haproxy.service ;;
    nginx-light) "${sudo[@]}" systemctl disable --quiet nginx.service ;;
    rabbitmq-server) "${sudo[@]}" systemctl disable --quiet rabbitmq-server.service epmd.service epmd.socket ;;
  esac
done
