# Fedora: all that install.sh must know of it. Sourced; sets what os/debian.sh sets too.
# Source of names: packages.fedoraproject.org.
# shellcheck shell=bash disable=SC2034  # read by install.sh

packages=(podman crun netavark aardvark-dns catatonit nftables e2fsprogs openssl iproute
  python3-boto3 python3-jinja2 python3-requests)

# What checks the Session Manager agent's signature.
signature_packages=(curl gnupg2)

os_install() {
  dnf --assumeyes --quiet --setopt=install_weak_deps=False install "$@"
}

os_is_installed() {
  rpm --query --quiet "$1"
}

# AWS names its folders by GOARCH:
# docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
session_manager_package="linux_$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')/amazon-ssm-agent.rpm"

os_install_file() {
  # The signature was checked against AWS's key already, which rpm does not know.
  dnf --assumeyes --quiet --nogpgcheck install "$1"
}
