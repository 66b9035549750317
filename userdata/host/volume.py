"""The data volume: attached only when it is free, formatted only when it is blank."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from userdata.host.aws import call, wait
from userdata.host.commands import run
from userdata.host.errors import HostError

DEVICE_NAME = "/dev/sdf"
# The old host's drain detaches it within 2 minutes; EC2 releases it from a lost instance upon termination.
FREE_SECONDS = 600
APPEAR_SECONDS = 120
# A clean file system takes no time. A full check of a large one takes longer than a host may take to boot.
CHECK_SECONDS = 3600
# A file system, partition table, LUKS or LVM leaves something in the first MiB.
BLANK_BYTES = 1024 * 1024
# An ext4 whose beginning is lost still has copies of its superblock at the beginning of some of its groups.
GROUP_BYTES = 128 * 1024 * 1024
BLOCK_BYTES = 4096
# Stands in the first block, the superblock's, until the rest of the file system is on the disk. No file's
# content ever gets there.
UNFINISHED = b"openqa-on-aws: the file system is being made".ljust(BLOCK_BYTES, b"\0")


def device_path(volume: str) -> Path:
    """Returns where udev puts an EBS volume: its serial number is its ID without the dash."""
    return Path("/dev/disk/by-id") / f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


def attach(ec2: Any, *, volume: str, instance: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Attaches a volume once no other instance has it; does nothing if this instance has it already.

    Never detaches it from another instance.

    Raises:
        HostError: another instance kept it, it does not exist, or it could not be attached.
    """
    state = wait(
        f"volume {volume} to be released by the instance that has it",
        lambda: _usable(ec2, volume, instance),
        seconds=FREE_SECONDS,
        sleep=sleep,
    )
    if state == "available":
        call(
            f"volume {volume}",
            ec2.attach_volume,
            VolumeId=volume,
            InstanceId=instance,
            Device=DEVICE_NAME,
        )
    wait(
        f"volume {volume} to be attached",
        lambda: _attached(ec2, volume, instance),
        seconds=APPEAR_SECONDS,
        sleep=sleep,
    )


def find_device(volume: str, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Waits for the attached volume's block device and returns its path.

    Raises:
        HostError: it did not appear.
    """
    path = device_path(volume)
    return wait(
        f"the device of volume {volume} at {path}",
        lambda: path if path.is_block_device() else None,
        seconds=APPEAR_SECONDS,
        pause=0.5,
        sleep=sleep,
    )


def ensure_filesystem(device: Path) -> bool:
    """Creates an ext4 file system on a blank device, and returns whether it did; checks an existing one.

    If the host ended while creating one, it is created again.

    Raises:
        HostError: the device holds something other than ext4, or an ext4 that needs manual repair.
    """
    kind = _signature(device)
    if kind == "ext4":
        _check(device)
        return False
    if kind:
        raise HostError(f"{device} holds {kind}, not ext4: refusing to touch it")
    try:
        if not is_unfinished(device) and not is_blank(device):
            raise HostError(f"{device} has no known file system, but is not blank: refusing to format it")
        _format(device)
    except OSError as error:
        raise HostError(f"{device} cannot be read or written: {error.strerror}") from error
    return True


def show(volume: str, link: Path) -> None:
    """Waits for the volume's device, checks its file system, and points a link at it, for mounting.

    Raises:
        HostError: it did not appear, or needs manual repair.
    """
    device = find_device(volume)
    _check(device)
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(device)


def is_blank(device: Path) -> bool:
    """Returns whether a device holds only zeros where data would have left a trace.

    These places are its first MiB, and the beginning of each would-be ext4 group.
    """

    def zeros(position: int, size: int) -> bool:
        file.seek(position)
        return not any(file.read(size))

    with device.open("rb") as file:
        groups = range(GROUP_BYTES, file.seek(0, os.SEEK_END), GROUP_BYTES)
        return zeros(0, BLANK_BYTES) and all(zeros(group, BLOCK_BYTES) for group in groups)


def is_unfinished(device: Path) -> bool:
    """Returns whether the creation of a file system on a device began and never finished."""
    with device.open("rb") as file:
        return file.read(BLOCK_BYTES) == UNFINISHED


def detach(ec2: Any, *, volume: str, instance: str) -> None:
    """Asks EC2 to detach the unmounted volume from this instance. Never by force."""
    if _usable(ec2, volume, instance) == "attached":
        call(f"volume {volume}", ec2.detach_volume, VolumeId=volume, InstanceId=instance, Force=False)


def _check(device: Path) -> None:
    """Replays the journal and, if the file system has noted an error, repairs what is safe to repair."""
    # It exits with 1 if it corrected something.
    command = ["sh", "-c", 'e2fsck -p "$1" || [ $? -eq 1 ]', "e2fsck", str(device)]
    try:
        run(command, seconds=CHECK_SECONDS)
    except HostError as error:
        raise HostError(f"the file system on {device} needs manual repair with e2fsck: {error}") from error


def _format(device: Path) -> None:
    """Creates the file system in a sparse file, and copies its content, the first block last."""
    with device.open("r+b", buffering=0) as disk, tempfile.NamedTemporaryFile(dir="/var/tmp") as image:

        def put(position: int, content: bytes) -> None:
            os.pwrite(disk.fileno(), content, position)

        put(0, UNFINISHED)
        os.fsync(disk.fileno())
        image.truncate(disk.seek(0, os.SEEK_END))
        # nodiscard: what an earlier attempt left on the device is not taken for zeros.
        run(["mkfs.ext4", "-q", "-E", "nodiscard", "-L", "openqa-data", image.name], seconds=600)
        for position in _stored(image.fileno()):
            if position:
                put(position, os.pread(image.fileno(), BLOCK_BYTES, position))
        os.fsync(disk.fileno())
        put(0, os.pread(image.fileno(), BLOCK_BYTES, 0))
        os.fsync(disk.fileno())


def _stored(file: int) -> Iterator[int]:
    """Yields the position of each block of a sparse file that is no hole."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is nothing more
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield from range(start, end, BLOCK_BYTES)


def _signature(device: Path) -> str:
    # blkid exits with 2 if it finds nothing.
    answer = run(["sh", "-c", 'blkid --probe --output export "$1" || [ $? -eq 2 ]', "blkid", str(device)])
    found = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    return found.get("TYPE") or found.get("PTTYPE") or ""


def _describe(ec2: Any, volume: str) -> dict[str, Any]:
    answer = call(f"volume {volume}", ec2.describe_volumes, VolumeIds=[volume])
    found: dict[str, Any] = answer["Volumes"][0]
    return found


def _usable(ec2: Any, volume: str, instance: str) -> str | None:
    description = _describe(ec2, volume)
    if any(entry["InstanceId"] == instance for entry in description.get("Attachments", [])):
        return "attached"
    return "available" if description["State"] == "available" else None


def _attached(ec2: Any, volume: str, instance: str) -> bool | None:
    entries = _describe(ec2, volume).get("Attachments", [])
    return True if any(e["InstanceId"] == instance and e["State"] == "attached" for e in entries) else None
