# Debian 13: all that install.sh must know of it. Sourced; sets what os/fedora.sh sets too.
# Source of names: packages.debian.org/trixie.
# shellcheck shell=bash disable=SC2034  # read by install.sh

# openssl: the database's certificates. catatonit: podman's --init. netavark, aardvark-dns, crun: podman only
# recommends them.
packages=(podman crun netavark aardvark-dns catatonit nftables e2fsprogs openssl iproute2
  python3-boto3 python3-jinja2 python3-requests)

# What checks the Session Manager agent's signature.
signature_packages=(curl gpg gpgv)

os_install() {
  apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --quiet update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 --yes --quiet \
    install --no-install-recommends "$@"
}

os_is_installed() {
  [[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# AWS names its folders after the package system's architectures:
# docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
session_manager_package="debian_$(dpkg --print-architecture)/amazon-ssm-agent.deb"

os_install_file() {
  DEBIAN_FRONTEND=noninteractive dpkg --install "$1"
}
