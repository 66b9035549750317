"""PostgreSQL's archive_command and restore_command: ``python3 -m userdata.host.backup.archive COMMAND …``.

Runs in the database's container as PostgreSQL's user. Exit codes: 0 done; 1 not done (archiving is tried
again); 3 in a recovery: the archive ends here. fetch.sh passes that on to PostgreSQL, and turns all other
failures into an end of the recovery.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from userdata.host.backup import manifests, names, store
from userdata.host.backup.manifests import Wal
from userdata.host.errors import HostError

NO_SUCH_FILE = 3
# The header of a segment's first page, src/include/access/xlog_internal.h: magic, flags, timeline, address,
# rest, padding, system identifier, segment size.
_HEADER = struct.Struct("<HHIQI4xQI")


class GapError(HostError):
    """The archive has a gap, or holds only damaged copies of a file."""


def archive(path: Path, name: str, *, system: str, mount: Path = store.MOUNT) -> None:
    """Archives a file of the WAL folder; it is archived only if this returns.

    Args:
        path: the file.
        name: its name.
        system: the cluster's system identifier.
        mount: where the bucket is mounted.

    Raises:
        HostError: there is any doubt.
    """
    segment = names.segment(name)
    if segment is not None:
        _check_header(path, segment, system)
    attempt = names.attempt()
    folder = mount / names.wal_folder(system, name)
    digest = hashlib.sha256()
    written = store.write(folder / f"{attempt}.gz", _chunks(path, digest), compress=True)
    if written.plain_bytes != path.stat().st_size:
        raise HostError(f"{path}: changed while it was archived")
    manifest = Wal(
        name=name,
        object=f"{attempt}.gz",
        sha256=written.sha256,
        bytes=written.bytes,
        plain_sha256=digest.hexdigest(),
        plain_bytes=written.plain_bytes,
        system=system,
        archived=manifests.now(),
    )
    store.write(folder / f"{attempt}.json", [manifests.encode(manifest)], compress=False)


def fetch(name: str, target: Path, *, system: str, mount: Path = store.MOUNT) -> bool:
    """Fetches an archived file; returns False if the archive ends before it.

    Args:
        name: the file's name.
        target: where to put it.
        system: the cluster's system identifier.
        mount: where the bucket is mounted.

    Raises:
        GapError: there are later segments but not this one, or all its copies are damaged.
        HostError: the bucket cannot be read.
    """
    damage = ""
    for manifest in store.find_wal(system, name, mount):
        path = mount / names.wal_folder(system, name) / manifest.object
        try:
            _restore(path, manifest, target)
        except HostError as error:
            damage = str(error)
            continue
        return True
    if damage:
        raise GapError(damage)
    segment = names.segment(name)
    if segment is not None and (later := store.later_segment(system, segment, mount)):
        raise GapError(f"WAL segment {name} is missing, but {later} is there")
    return False


def system_of(data: Path) -> str:
    """Returns the system identifier of the cluster in a data folder, with which pg_control begins.

    Raises:
        HostError: it cannot be read.
    """
    try:
        return str(int.from_bytes((data / "global/pg_control").read_bytes()[:8], "little"))
    except OSError as error:
        raise HostError(f"{data / 'global/pg_control'}: {error.strerror}") from error


def main(arguments: list[str]) -> int:
    """Runs ``archive PATH NAME`` or ``fetch NAME TARGET SYSTEM`` in the data folder; returns the code."""
    try:
        store.require_mount()
        match arguments:
            case ["archive", path, name]:
                archive(Path(path), name, system=system_of(Path()))
            case ["fetch", name, target, system]:
                return 0 if fetch(name, Path(target), system=system) else NO_SUCH_FILE
            case _:
                raise HostError("usage: archive PATH NAME | fetch NAME TARGET SYSTEM")
    except (HostError, OSError) as error:
        print(f"openqa-on-aws: {error}", file=sys.stderr)
        return 1
    return 0


def _check_header(path: Path, segment: names.Segment, system: str) -> None:
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise HostError(f"{path}: is not a WAL segment")
    _, _, timeline, _, _, identifier, size = _HEADER.unpack(header)
    if str(identifier) != system:
        raise HostError(f"{path}: belongs to the cluster {identifier}, not to {system}")
    if timeline > segment.timeline:
        raise HostError(f"{path}: is from timeline {timeline}")
    if path.stat().st_size != size:
        raise HostError(f"{path}: has {path.stat().st_size} bytes instead of {size}")


def _restore(path: Path, manifest: Wal, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.fetching")
    digest = hashlib.sha256()
    with temporary.open("wb") as file:
        for chunk in store.read(path, sha256=manifest.sha256, size=manifest.bytes, compressed=True):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != manifest.plain_sha256:
        raise HostError(f"{path}: was changed: its content's SHA-256 is not that of its manifest")
    temporary.replace(target)


def _chunks(path: Path, digest: hashlib._Hash) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(store.CHUNK):
            digest.update(chunk)
            yield chunk


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
