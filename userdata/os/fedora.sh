# Fedora: all that install.sh must know of it. Sourced; sets what os/debian.sh sets too.
# Source of names: packages.fedoraproject.org.
# shellcheck shell=bash disable=SC2034  # read by install.sh

packages=(podman crun netavark aardvark-dns catatonit nftables e2fsprogs mdadm openssl iproute
  python3-boto3 python3-jinja2 python3-pika python3-psycopg2 python3-requests xorriso)

# Tap hosts run openQA's worker themselves: what the worker's container image has, and Open vSwitch.
tap_packages=(openqa-worker os-autoinst os-autoinst-openvswitch openqa-client git optipng rsync
  qemu-img swtpm swtpm-tools tesseract tesseract-langpack-eng perl-JSON perl-REST-Client openvswitch
  dbus-daemon procps-ng)
case $(uname -m) in
  x86_64) tap_packages+=(qemu-system-x86 edk2-ovmf) ;;
  aarch64) tap_packages+=(qemu-system-aarch64 edk2-aarch64) ;;
esac

# What createhdds imports and runs, as on the workers that run it for Fedora (fedora-infra/ansible).
createhdds_packages=(git libvirt-daemon libvirt-daemon-kvm python3-libvirt python3-libguestfs
  python3-fedfind qemu-kvm virt-install)
case $(uname -m) in
  x86_64) createhdds_packages+=(edk2-ovmf) ;;
  aarch64) createhdds_packages+=(edk2-aarch64) ;;
esac

# What checks the signatures of AWS's packages.
signature_packages=(curl gnupg2)

os_install() {
  dnf --assumeyes --quiet --setopt=install_weak_deps=False install "$@"
}

# Usage: os_is_installed PACKAGE…; all of them.
os_is_installed() {
  rpm --query --quiet "$@"
}

# SELinux needs nothing of the kind. Usage and purpose: os/debian.sh.
os_prepare_containers() {
  :
}

# AWS names its folders by GOARCH:
# docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
session_manager_package="linux_$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')/amazon-ssm-agent.rpm"

package_format=rpm

os_install_file() {
  # The signature was checked against AWS's key already, which rpm does not know.
  dnf --assumeyes --quiet --nogpgcheck install "$1"
}

# Fedora's packages start and enable nothing, and need no stand-in. Usage: os_install_idle STAND_IN PACKAGE…
os_install_idle() {
  shift
  os_install "$@"
  # What systemd starts that has no program's label is confined as systemd is (fedora-selinux/selinux-policy,
  # init.te): openQA's programs are in /usr/share and /usr/lib, and their packages bring no policy.
  if selinuxenabled 2>/dev/null; then
    chcon --recursive --type=bin_t /usr/share/openqa/script /usr/lib/os-autoinst
  fi
}
