"""The kernel's side of a file system: FUSE's protocol over /dev/fuse.

Layouts and numbers: Linux's include/uapi/linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

_LOG = logging.getLogger(__name__)

MAX_WRITE = 1024 * 1024
ROOT = 1
DIRECT_IO = 1  # an open file's flag: past the page cache
THREADS = 8

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTRIBUTES = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_WRITE_OUT = struct.Struct("<II")
_STATFS_OUT = struct.Struct("<5Q10I")
_DIRENT = struct.Struct("<QQII")
_MOUNT_FLAGS = 2 | 4 | 1024  # nosuid, nodev, noatime
_READ_ONLY = 1


class Op(IntEnum):
    """The requests that are more than refused."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44


class _Can(IntFlag):
    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1  # asked for only to refuse them: otherwise the kernel keeps locks by itself
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    FLOCK_LOCKS = 1 << 10
    DO_READDIRPLUS = 1 << 13
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22


_WANTED = (
    _Can.ASYNC_READ | _Can.POSIX_LOCKS | _Can.ATOMIC_O_TRUNC | _Can.BIG_WRITES | _Can.FLOCK_LOCKS
    | _Can.DO_READDIRPLUS | _Can.PARALLEL_DIROPS | _Can.MAX_PAGES
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request of the kernel.

    Attributes:
        op: What is asked; a number that is no :class:`Op` is refused.
        node: The inode that it is about.
        pid: The thread that asks.
        body: The rest.
    """

    op: int
    node: int
    pid: int
    body: memoryview

    def fields(self, layout: str) -> tuple[int, ...]:
        """Read numbers from the body's beginning."""
        return struct.unpack_from(layout, self.body)

    def name(self, offset: int = 0) -> str:
        """Read a name: what stands from an offset up to a NUL."""
        return os.fsdecode(bytes(self.body[offset:]).split(b"\0")[0])


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What ``stat`` tells of an inode; all three times are one, in seconds."""

    node: int
    size: int
    time: float
    mode: int
    links: int
    uid: int
    gid: int

    def packed(self) -> bytes:
        """The kernel's form."""
        seconds, nanoseconds = divmod(int(self.time * 1_000_000_000), 1_000_000_000)
        return _ATTRIBUTES.pack(
            *(self.node, self.size, -(-self.size // 512), seconds, seconds, seconds),
            *(nanoseconds, nanoseconds, nanoseconds, self.mode, self.links, self.uid, self.gid, 0, 4096, 0),
        )


def entry(attributes: Attributes, *, valid: float) -> bytes:
    """Answer a look-up; the kernel may keep it for ``valid`` seconds."""
    seconds, nanoseconds = divmod(int(valid * 1_000_000_000), 1_000_000_000)
    head = _ENTRY.pack(attributes.node, 0, seconds, seconds, nanoseconds, nanoseconds)
    return head + attributes.packed()


def attributes_of(attributes: Attributes, *, valid: float) -> bytes:
    """Answer a question for attributes; the kernel may keep them for ``valid`` seconds."""
    seconds, nanoseconds = divmod(int(valid * 1_000_000_000), 1_000_000_000)
    return _ATTR_OUT.pack(seconds, nanoseconds, 0) + attributes.packed()


def opened(handle: int, flags: int = 0) -> bytes:
    """Answer an open."""
    return _OPEN_OUT.pack(handle, flags, 0)


def written(size: int) -> bytes:
    """Answer a write."""
    return _WRITE_OUT.pack(size, 0)


def file_system() -> bytes:
    """Answer ``statfs``: as good as endless, and empty."""
    blocks = 1 << 40
    return _STATFS_OUT.pack(blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096, *([0] * 7))


def directory_entry(name: str, offset: int, attributes: Attributes, answer: bytes) -> bytes:
    """One entry of a directory with what a look-up of it answers."""
    encoded = os.fsencode(name)
    head = _DIRENT.pack(attributes.node, offset, len(encoded), attributes.mode >> 12)
    return answer + head + encoded + bytes(-len(encoded) % 8)


def no_entry() -> bytes:
    """What goes before an entry that is not to be looked up: ``.`` and ``..``."""
    return bytes(_ENTRY.size + _ATTRIBUTES.size)


def mount(directory: Path, *, allow_other: bool, read_only: bool) -> int:
    """Mount a file system.

    Args:
        directory: Where.
        allow_other: Other users than this one may use it.
        read_only: Nobody may write.

    Returns:
        The file descriptor that the kernel's requests come from.

    Raises:
        OSError: The kernel refused.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions"
    options += ",allow_other" if allow_other else ""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MOUNT_FLAGS | (_READ_ONLY if read_only else 0))
    if libc.mount(b"mountpoint-s3", os.fsencode(directory), b"fuse", flags, options.encode()):
        number = ctypes.get_errno()
        os.close(device)
        raise OSError(number, f"cannot mount at {directory}: {os.strerror(number)}")
    return device


def serve(device: int, answer: Callable[[Request], bytes]) -> None:
    """Answer the kernel's requests until the file system is unmounted.

    Args:
        device: What :func:`mount` returned.
        answer: Returns the answer's body, or raises OSError with the errno. It is called from several
            threads at once.
    """
    threads = [threading.Thread(target=_loop, args=(device, answer), daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _loop(device: int, answer: Callable[[Request], bytes]) -> None:
    while True:
        try:
            data = os.read(device, MAX_WRITE + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                continue
            raise
        _, op, unique, node, _, _, pid, _ = _IN.unpack_from(data)
        request = Request(op, node, pid, memoryview(data)[_IN.size :])
        if op in (Op.FORGET, Op.BATCH_FORGET):
            answer(request)
            continue
        number, body = 0, b""
        try:
            body = _initialised(request) if op == Op.INIT else answer(request)
        except OSError as error:
            number = error.errno or errno.EIO
            _LOG.debug("request %d of inode %d: %s", op, node, error)
        except Exception:
            number = errno.EIO
            _LOG.exception("request %d of inode %d", op, node)
        reply = _OUT.pack(_OUT.size + len(body), -number, unique) + body
        try:
            os.write(device, reply)
        except OSError as error:
            # The one who asked is gone, or the file system is.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise


def _initialised(request: Request) -> bytes:
    _, minor, readahead, offered = request.fields(_INIT_IN.format)
    flags = _WANTED & offered
    pages = MAX_WRITE // 4096
    return _INIT_OUT.pack(7, min(minor, 31), readahead, flags, 64, 48, MAX_WRITE, 1, pages, 0, 0)
