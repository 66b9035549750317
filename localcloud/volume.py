"""EBS volumes: sparse files behind loop devices that the kernel clears when their last user goes."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_SET_CAPACITY = 0x4C07
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block_size, struct loop_info64 (232 bytes; lo_flags at 52), 8 reserved words
_LOOP_CONFIG = struct.Struct("<II 52x I 176x 64x")


class VolumeError(Exception):
    """No loop device could be set up."""


class Volume:
    """A volume, for as long as the object is open.

    The loop device is held open for the volume's whole life, so that there is never a second one on the same
    file; it is cleared by the kernel when this process ends, however it ends.

    Attributes:
        device: The block device.
    """

    def __init__(self, path: Path, *, size_gib: int) -> None:
        """Open a volume, making its file where there is none.

        Args:
            path: The file.
            size_gib: Its size in GiB; takes no space until written.

        Raises:
            VolumeError: No loop device could be set up.
        """
        self._path = path
        backing = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(backing, size_gib << 30)
            self.device, self._fd = _attach(backing)
        finally:
            os.close(backing)

    def in_use(self) -> bool:
        """Tell whether it is mounted somewhere."""
        try:
            os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            raise
        return False

    def grow(self, size_gib: int) -> None:
        """Make it this large, even while it is in use; like EBS, never make it smaller.

        Args:
            size_gib: Its size in GiB.
        """
        if self._path.stat().st_size < size_gib << 30:
            os.truncate(self._path, size_gib << 30)
            fcntl.ioctl(self._fd, _LOOP_SET_CAPACITY)

    def delete(self) -> None:
        """Remove the volume and what is on it."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)


def _attach(backing: int) -> tuple[Path, int]:
    """Bind a file to a free loop device; return that and a file descriptor that keeps it."""
    config = _LOOP_CONFIG.pack(backing, 0, _LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        # Between asking for a free one and taking it, somebody else may have taken it.
        for _ in range(64):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:
                    raise VolumeError(f"{device}: {error.strerror}") from error
            else:
                return device, descriptor
    finally:
        os.close(control)
    raise VolumeError("no free loop device")
