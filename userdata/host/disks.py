"""A worker host's instance-store disks: they hold pools and cache, and are formatted at each boot.

Their content never survives a stop of the instance, so nothing is worth protecting: no journal, RAID 0.

``python3 -m userdata.host.disks`` is a program of its own: all of openQA waits for it, and the other commands
spend most of their time loading AWS's libraries.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from userdata.host import selinux
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.layout import Layout

# The disks' model name (EC2 user guide, "NVMe SSD volumes"); their device names change from boot to boot.
MODEL = "Amazon EC2 NVMe Instance Storage"
ARRAY = Path("/dev/md/openqa")
FORMAT_SECONDS = 900


def main(layout: Layout) -> int:
    """Sets the disks up; returns the exit code, and a failure's reason goes to stderr."""
    try:
        set_up(layout)
    except HostError as error:
        print(f"openqa-on-aws: {error}", file=sys.stderr)
        return 1
    return 0


def find(root: Path = Path("/")) -> list[Path]:
    """Returns the instance-store disks that this machine has, in the order of their names.

    Args:
        root: where ``sys`` and ``dev`` are.
    """
    return [
        root / "dev" / disk.name
        for disk in sorted((root / "sys/block").glob("*"))
        if _read(disk / "device/model") == MODEL
        # One path of a multipath disk is no disk itself.
        and _read(disk / "hidden") != "1"
        # A container sees all disks of its host in /sys, but has only its own in /dev.
        and _number(root / "dev" / disk.name) == _read(disk / "dev")
    ]


def commands(disks: list[Path], *, arrays: Iterable[str], target: Path) -> list[list[str]]:
    """Returns the commands that create one file system on the disks and mount it.

    Args:
        disks: one or more.
        arrays: the names of RAID arrays left on them from before a reboot.
        target: where to mount.
    """
    device = disks[0] if len(disks) == 1 else ARRAY
    number = f"--raid-devices={len(disks)}"
    made = ["mdadm", "--create", str(ARRAY), "--run", "--level=0", number, *map(str, disks)]
    features = ["-O", "^has_journal", "-m", "0"]
    return [
        *(["mdadm", "--stop", f"/dev/{array}"] for array in sorted(set(arrays))),
        *([made] if device == ARRAY else []),
        ["mkfs.ext4", "-q", "-F", "-L", "openqa-worker", *features, str(device)],
        ["mount", "-t", "ext4", "-o", "noatime", str(device), str(target)],
    ]


def set_up(layout: Layout) -> None:
    """Formats the instance-store disks and mounts them on the workers' folder; without disks does nothing.

    Raises:
        HostError: a command failed.
    """
    disks = find(layout.root)
    if not disks or layout.worker.is_mount():
        return
    layout.worker.mkdir(parents=True, exist_ok=True)
    arrays = [
        holder.name
        for disk in disks
        for holder in (layout.root / "sys/block" / disk.name / "holders").glob("md*")
    ]
    for command in commands(disks, arrays=arrays, target=layout.worker):
        run(command, seconds=FORMAT_SECONDS)
    selinux.label(layout, layout.worker)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _number(device: Path) -> str | None:
    """The device's number as /sys has it; None if there is no such block device."""
    if not device.is_block_device():
        return None
    number = device.stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


if __name__ == "__main__":
    sys.exit(main(Layout()))
