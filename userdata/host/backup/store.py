"""Writing and reading objects in the mounted bucket by its rules."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from userdata.host.backup import manifests, names
from userdata.host.backup.manifests import Asset, Base, Inventory, M, ManifestError, Wal
from userdata.host.errors import HostError

MOUNT = Path("/srv/backups")
CHUNK = 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS
# The fastest: the host has better things to do than save some bytes.
_LEVEL = 1
# Chunks that are read and compressed while others are hashed and written.
_AHEAD = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """What was written: the object's size and hash, and the size of the data before compression."""

    sha256: str
    bytes: int
    plain_bytes: int


def require_mount(mount: Path = MOUNT, table: Path = Path("/proc/self/mountinfo")) -> None:
    """Makes sure that the bucket is mounted and not just a plain folder is there.

    Raises:
        HostError: nothing is mounted there, or not the bucket.
    """
    found = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    kinds = [words[words.index("-") + 1] for words in found if words[4] == str(mount)]
    if not kinds or not kinds[-1].startswith("fuse"):
        raise HostError(f"{mount}: the backup bucket is not mounted")


def write(path: Path, chunks: Iterable[bytes], *, compress: bool) -> Written:
    """Writes a new object from start to end; it is complete only when this returns.

    Args:
        path: where; must not exist. Its folder is created.
        chunks: the data.
        compress: whether to store them as gzip.

    Raises:
        HostError: there is any doubt that the bucket has all of it.
    """
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP) if compress else None
    stored = hashlib.sha256()
    stored_bytes = plain_bytes = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            for given, part in _ahead(_stored(chunks, compressor)):
                plain_bytes += given
                stored.update(part)
                stored_bytes += len(part)
                _write_all(descriptor, part)
            # Completes the upload: closing would not report an error.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        size = path.stat().st_size
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    if size != stored_bytes:
        raise HostError(f"{path}: has {size} bytes, {stored_bytes} were written")
    return Written(stored.hexdigest(), stored_bytes, plain_bytes)


def read(path: Path, *, sha256: str, size: int, compressed: bool) -> Iterator[bytes]:
    """Yields the data of an object; if an error follows, they must not be used.

    Args:
        path: the object.
        sha256: its hash.
        size: its size in bytes.
        compressed: whether it is gzip.

    Raises:
        HostError: it differs from what was written; with its name.
    """
    digest, count = hashlib.sha256(), 0
    expander = zlib.decompressobj(wbits=_GZIP) if compressed else None
    try:
        with path.open("rb") as file:
            for chunk in _ahead(iter(lambda: file.read(CHUNK), b"")):
                digest.update(chunk)
                count += len(chunk)
                plain = expander.decompress(chunk) if expander else chunk
                if plain:
                    yield plain
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error
    except zlib.error as error:
        raise HostError(f"{path}: is damaged: {error}") from error
    if count != size:
        raise HostError(f"{path}: is truncated: {count} bytes instead of {size}")
    if digest.hexdigest() != sha256:
        raise HostError(f"{path}: was changed: its SHA-256 is not that of its manifest")


def find_bases(mount: Path = MOUNT) -> list[Base]:
    """Returns the manifests of all base backups of all clusters, the oldest first."""
    found = []
    for system in _entries(mount / names.CLUSTERS):
        for folder in _entries(system / "base"):
            manifest = _manifest(Base, folder / names.MANIFEST)
            if manifest is not None and manifest.system == system.name and manifest.attempt == folder.name:
                found.append(manifest)
    return sorted(found, key=lambda base: base.end)


def find_wal(system: str, name: str, mount: Path = MOUNT) -> list[Wal]:
    """Returns the manifests of all complete attempts to archive a file."""
    found = []
    for path in _entries(mount / names.wal_folder(system, name)):
        if path.suffix != ".json":
            continue
        try:
            manifest = manifests.decode(Wal, path.read_bytes())
        except ManifestError:
            continue
        except OSError as error:
            raise HostError(f"{path}: cannot be read: {error.strerror}") from error
        if (manifest.system, manifest.name, manifest.object) == (system, name, f"{path.stem}.gz"):
            found.append(manifest)
    return found


def find_assets(sha256: str, mount: Path = MOUNT) -> list[Asset]:
    """Returns the manifests of all complete attempts to send an asset's content, the oldest first."""
    found = []
    for path in _entries(mount / names.ASSETS / sha256):
        manifest = _manifest(Asset, path) if path.suffix == ".json" else None
        if manifest is not None and (manifest.sha256, manifest.object) == (sha256, path.stem):
            found.append(manifest)
    return sorted(found, key=lambda asset: asset.end)


def newest_inventory(mount: Path = MOUNT) -> Inventory | None:
    """Returns the newest inventory; None: there is none."""
    for path in reversed(_entries(mount / names.INVENTORIES)):
        if (manifest := _manifest(Inventory, path)) is not None:
            return manifest
    return None


def later_segment(system: str, missing: names.Segment, mount: Path = MOUNT) -> str | None:
    """Returns the timeline's first archived segment after a missing one; None: there is none."""
    root = mount / names.wal(system)
    groups = [group for group in listed(root) if group >= missing.name[:16] and group[:8] == missing.name[:8]]
    for group in groups:
        for name in listed(root / group):
            if name > missing.name and names.segment(name) and find_wal(system, name, mount):
                return name
    return None


def last_attempt(system: str, timeline: int, mount: Path = MOUNT) -> str:
    """Returns the last attempt to archive a file of a timeline, complete or not; empty: there is none."""
    root, begin = mount / names.wal(system), f"{timeline:08X}"
    folders = [root / "history" / f"{begin}.history"]
    for group in [name for name in listed(root) if name.startswith(begin)][-1:]:
        folders += [root / group / name for name in listed(root / group) if names.segment(name)][-1:]
    return max((attempt for folder in folders for attempt in listed(folder)), default="")


def listed(folder: Path) -> list[str]:
    """Returns the sorted names of a folder's entries; none if there is no such folder."""
    return [path.name for path in _entries(folder)]


def object_of(base: Base, mount: Path = MOUNT) -> Path:
    """Returns the object of a base backup."""
    return mount / names.bases(base.system) / base.attempt / base.object


def _manifest(kind: type[M], path: Path) -> M | None:
    try:
        return manifests.decode(kind, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ManifestError):
        # An incomplete attempt.
        return None
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error


def _stored(chunks: Iterable[bytes], compressor: zlib._Compress | None) -> Iterator[tuple[int, bytes]]:
    for chunk in chunks:
        yield len(chunk), compressor.compress(chunk) if compressor else chunk
    if compressor:
        yield 0, compressor.flush()


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields items that another thread produces, some in advance."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        made = deque(pool.submit(next, iterator, None) for _ in range(_AHEAD))
        while (item := made.popleft().result()) is not None:
            made.append(pool.submit(next, iterator, None))
            yield item


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HostError(f"{folder}: cannot be listed: {error.strerror}") from error
