#!/bin/bash
# Runs a command in a throw-away container: enter.sh ROOT SCRATCH NAME [systemd-nspawn's options] -- COMMAND
# The command sees an overlay whose changes end up in SCRATCH; with SCRATCH "-" it changes ROOT itself.
# Expects private mount and PID namespaces: all that it mounts ends with them.
set -Eeuo pipefail

root=$1 scratch=$2 name=$3
shift 3

# systemd-nspawn wants cgroup v2 alone, and a group that no other container uses.
if [[ $(stat --file-system --format %T /sys/fs/cgroup) != cgroup2fs ]]; then
  umount --recursive /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mkdir "/sys/fs/cgroup/$name"
echo 0 >"/sys/fs/cgroup/$name/cgroup.procs"

# What systemd-nspawn keeps there for a running container would outlive one that is killed.
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn

if [[ $scratch != - ]]; then
  mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
  root=$scratch/root
fi

# The container sees this process's network, and so needs its proxies: podman passes them on to what it builds.
for variable in {http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY; do
  [[ -z ${!variable-} ]] || set -- "--setenv=$variable=${!variable}" "$@"
done

# Podman inside makes system calls that systemd-nspawn's filter refuses.
export SYSTEMD_SECCOMP=0
# The roots' /etc/resolv.conf leads to where systemd-resolved would write.
exec systemd-nspawn --quiet --register=no --keep-unit --as-pid2 --private-users=no --capability=all \
  --console=pipe --timezone=off --machine="$name" --directory="$root" \
  --resolv-conf=off --bind-ro=/etc/resolv.conf:/run/systemd/resolve/stub-resolv.conf "$@"
