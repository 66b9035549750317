"""The folder of what is built, which gets there whole or not at all.

What is being built lives in a workspace: a folder under ``building/``, locked by its process.
When complete, and on the disk, it is renamed to its final name. A killed build leaves an unlocked workspace,
which the next build removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from images.errors import BuildError

_SECONDS_TO_DIE = 10
_FOLDER = re.compile(r"[\w/.+-]+")

# Also where hosts look for archives.
DEFAULT = "/var/cache/openqa-on-aws"


def root() -> Path:
    """Returns the cache's folder: ``$OPENQA_CACHE``, or :data:`DEFAULT` where that is empty or not set.

    Raises:
        BuildError: its name has characters that would end it where it is used, such as in mount options.
    """
    # Absolute: containers and a cloud's first process run in other folders than this process.
    folder = Path(os.environ.get("OPENQA_CACHE") or DEFAULT).absolute()
    if not _FOLDER.fullmatch(str(folder)):
        raise BuildError(f"OPENQA_CACHE names {str(folder)!r}: allowed are letters, digits and /._+-")
    return folder


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Makes a new empty folder on the cache's file system, and removes it at the end."""
    building = root() / "building"
    building.mkdir(parents=True, exist_ok=True)
    with locked(root() / "building.lock"):
        for leftover in building.iterdir():
            _remove_unless_in_use(leftover)
        folder = building / f"openqa-images-{secrets.token_hex(6)}"
        folder.mkdir()
        lock = _locked_folder(folder)
    try:
        yield folder
    finally:
        _discard(folder)
        os.close(lock)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds an exclusive lock, after waiting for whoever has it. The lock ends with its process.

    Raises:
        BuildError: this user may not write to the cache.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("w")
    except PermissionError as error:
        raise BuildError(f"cannot write {error.filename}: building needs root, run it with sudo") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def publish(built: Path, final: Path) -> None:
    """Moves what is complete to its final name, unless someone else was first.

    Raises:
        BuildError: it could not be written to the disk.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        # Otherwise a loss of power could leave half of it under its final name.
        _run("write", built, "sync", "--file-system", str(built))
        built.rename(final)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Reports on standard error what begins, and how long it took."""
    print(f"images: {what} …", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"images: {what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def remove(path: Path) -> None:
    """Removes a file or a tree, never what is mounted in it.

    Raises:
        BuildError: not all of it could be removed.
    """
    _run("remove", path, "rm", "--recursive", "--force", "--one-file-system", str(path))


def _run(verb: str, path: Path, *command: str) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        raise BuildError(f"cannot {verb} {path}: {done.stderr.strip().splitlines()[0]}")


def _remove_unless_in_use(folder: Path) -> None:
    # Whoever uses it may be about to remove it.
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        lock = _locked_folder(folder)
        _discard(folder)
        os.close(lock)


def _locked_folder(folder: Path) -> int:
    """Returns a handle that holds the folder's lock.

    Raises:
        BlockingIOError: someone else holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _discard(folder: Path) -> None:
    # A container run for this workspace had a control group of the same name.
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        group = Path(mount_point) / folder.name
        if kind == "cgroup2" and group.is_dir():
            _end(group)
    remove(folder)


def _end(group: Path) -> None:
    """Kills what is left in a control group and removes it."""
    (group / "cgroup.kill").write_text("1")
    limit = time.monotonic() + _SECONDS_TO_DIE
    while "populated 1" in (group / "cgroup.events").read_text():
        if time.monotonic() > limit:
            raise BuildError(f"a process of an earlier build does not die: its control group is {group}")
        time.sleep(0.05)
    for part in (*sorted(group.rglob("*/"), reverse=True), group):
        part.rmdir()
