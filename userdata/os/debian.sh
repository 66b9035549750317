# Debian 13: all that install.sh must know of it. Sourced; sets what os/fedora.sh sets too.
# Source of names: packages.debian.org/trixie.
# shellcheck shell=bash disable=SC2034  # read by install.sh

# openssl: the database's certificates. mdadm, e2fsprogs: instance-store disks and data volumes. catatonit:
# podman's --init. netavark, aardvark-dns, crun: podman only recommends them. xorriso: cloudinit.iso.
packages=(podman crun netavark aardvark-dns catatonit nftables e2fsprogs mdadm openssl iproute2
  python3-boto3 python3-jinja2 python3-pika python3-psycopg2 python3-requests xorriso)

# Tap hosts run openQA's worker themselves: what the worker's container image has
# (userdata/containers/{openqa,worker}), Open vSwitch, and what our switch service needs.
tap_packages=(openqa-worker os-autoinst openqa-client git optipng rsync libminion-backend-sqlite-perl
  libminion-perl libmojo-sqlite-perl libtext-glob-perl libnet-dbus-perl libjson-perl librest-client-perl
  qemu-utils swtpm openvswitch-switch dbus python3-jeepney)
case $(uname -m) in
  x86_64) tap_packages+=(qemu-system-x86 ovmf) ;;
  aarch64) tap_packages+=(qemu-system-arm qemu-efi-aarch64) ;;
esac

# Debian has no fedfind: settings/checks.py refuses createhdds on it.
createhdds_packages=()

# What checks the signatures of AWS's packages.
signature_packages=(curl gpg gpgv)

os_install() {
  # The lock of lists knows no patience: apt-daily may be at work.
  systemctl --quiet stop apt-daily.service 2>/dev/null || true
  apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --quiet update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --yes --quiet \
    install --no-install-recommends "$@"
}

# Usage: os_is_installed PACKAGE…; all of them.
os_is_installed() {
  ! grep --quiet --line-regexp --invert-match installed \
    <<<"$(dpkg-query --show --showformat '${db:Status-Status}\n' "$@" 2>&1)"
}

# AppArmor's profile for crun allows everything, but a container without new privileges keeps it beside podman's own
# profile. That one then takes the container's processes for strangers: none may signal another, so that PostgreSQL
# gets no checkpoint, nobody reloads anything, and every stop ends with a kill.
os_prepare_containers() {
  mkdir --parents /etc/apparmor.d/disable
  ln --symbolic --force ../crun /etc/apparmor.d/disable/
  # Debian's own image has loaded it.
  if grep --quiet '^crun ' /sys/kernel/security/apparmor/profiles 2>/dev/null; then
    apparmor_parser --remove /etc/apparmor.d/crun
  fi
}

# AWS names its folders after the package system's architectures:
# docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
session_manager_package="debian_$(dpkg --print-architecture)/amazon-ssm-agent.deb"

package_format=deb

# With what it depends on.
os_install_file() {
  os_install "$1"
}

# The same without starting or enabling services, as Debian's packages do: roles start what they need. The
# stand-in saves 700 MB of languages. Usage: os_install_idle STAND_IN PACKAGE…
os_install_idle() {
  local control=$1 build unit
  shift
  build=$(mktemp --directory)
  mkdir "$build/DEBIAN"
  cp "$control" "$build/DEBIAN/control"
  dpkg-deb --root-owner-group --build "$build" "$build.deb" >/dev/null
  chmod 0644 "$build.deb"
  # The package's profile knows neither the place of our configuration nor that of Fedora's firmware.
  mkdir --parents /etc/apparmor.d/disable
  ln --symbolic --force ../usr.share.openqa.script.worker /etc/apparmor.d/disable/
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 0755 /usr/sbin/policy-rc.d
  os_install "$build.deb" "$@"
  rm --recursive "$build" "$build.deb" /usr/sbin/policy-rc.d
  for unit in openvswitch-switch openqa-worker.target openqa-worker-cacheservice \
    openqa-worker-cacheservice-minion openqa-vde_switch openqa-slirpvde; do
    systemctl disable --quiet "$unit"
  done
}
