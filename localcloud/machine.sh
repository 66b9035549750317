#!/bin/bash
# Runs one machine until it powers off: the overlay lives in this script's own mount namespace, so it goes
# with the machine, however that ends. Started by machine.py inside the machine's network namespace.
#
# Usage: machine.sh ID CGROUP LOWER DIRECTORY IMAGES
#   ID         the instance's id
#   CGROUP     the machine's cgroup, below /sys/fs/cgroup
#   LOWER      the root file systems below, as overlayfs's lowerdir option
#   DIRECTORY  holds upper/, work/, root/ and containers/
#   IMAGES     podman's storage of the root file systems; empty where they have none
set -Eeuo pipefail
id=$1 cgroup=$2 lower=$3 directory=$4 images=$5

# The sysfs of this network namespace, and cgroup v2 alone: nspawn would pick v1 controllers where they are.
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo $$ >"/sys/fs/cgroup$cgroup/cgroup.procs"
mount -t tmpfs tmpfs /tmp
mount -t overlay overlay \
  -o "lowerdir=$lower,upperdir=$directory/upper,workdir=$directory/work,volatile" "$directory/root"

devices=(--bind=/dev/fuse --bind=/dev/net/tun)
if [[ -e /dev/kvm ]]; then
  devices+=(--bind=/dev/kvm)
fi

# An overlay cannot lie on an overlay: containers are in a folder of their own, over the images below.
storage=("--bind=$directory/containers:/var/lib/containers")
if [[ -n "$images" ]]; then
  storage+=("--bind-ro=$images:/usr/lib/containers/storage")
fi

# seccomp: nspawn's filter refuses calls that podman's run-time needs.
# The network below /proc/sys is the machine's own and must be writable, as it is with --private-network,
# which cannot be used: its interfaces would not outlive a reboot.
export SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
while :; do
  status=0
  systemd-nspawn --quiet --register=no --keep-unit --settings=no --boot --machine="$id" \
    --directory="$directory/root" --resolv-conf=off --timezone=off --link-journal=no \
    --private-users=no --capability=all --console=read-only "${devices[@]}" "${storage[@]}" </dev/null || status=$?
  # 133: the machine asked for a reboot.
  ((status == 133)) || exit "$status"
done
