"""What this machine must have to run a local cloud."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Command → the Debian package that provides it.
COMMANDS = {
    "haproxy": "haproxy",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
# What instances get of this machine, which may itself be a container without them.
DEVICES = ("/dev/fuse", "/dev/loop-control", "/dev/net/tun")


def missing() -> str | None:
    """Why no local cloud can run here, in one sentence; None if one can."""
    if os.geteuid() != 0:
        return "The local cloud needs root: run it with sudo."
    packages = sorted({package for command, package in COMMANDS.items() if not shutil.which(command)})
    if packages:
        return f"The local cloud needs packages that are not installed: apt-get install {' '.join(packages)}."
    if devices := [device for device in DEVICES if not Path(device).exists()]:
        return f"The local cloud needs {', '.join(devices)}, which this machine lacks."
    if "cgroup2" not in Path("/proc/filesystems").read_text():
        return "The local cloud needs control groups version 2, which this kernel lacks."
    return None
