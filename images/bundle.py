"""What every instance fetches at boot: ``userdata/`` and ``fleet/`` in one archive.

The archive is deterministic: equal files give an equal archive, whatever their dates and owners, so that
instances are replaced only when something that they run has changed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("userdata", "fleet")
# No instance has the simulator and the catalogue, so a change of these must replace none.
LEFT_OUT = {"__pycache__", "simulate", "workload", "catalogue.py", "catalogue.toml"}

_PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An archive and its SHA-256, in hexadecimal digits."""

    path: Path
    sha256: str


def write_bundle(directory: Path) -> Bundle:
    """Writes the archive into a directory, under a name that holds its hash.

    Args:
        directory: where to; it exists.
    """
    content = _archive()
    sha256 = hashlib.sha256(content).hexdigest()
    path = directory / f"bundle-{sha256}.tar.gz"
    path.write_bytes(content)
    return Bundle(path=path, sha256=sha256)


def _archive() -> bytes:
    compressed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=compressed, mode="wb", filename="", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for folder in FOLDERS:
            for path in sorted((_PROJECT / folder).rglob("*")):
                if _belongs(path):
                    _add(archive, path)
    return compressed.getvalue()


def _belongs(path: Path) -> bool:
    return path.is_file() and LEFT_OUT.isdisjoint(path.relative_to(_PROJECT).parts)


def _add(archive: tarfile.TarFile, path: Path) -> None:
    content = path.read_bytes()
    entry = tarfile.TarInfo(path.relative_to(_PROJECT).as_posix())
    entry.size = len(content)
    entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    archive.addfile(entry, io.BytesIO(content))
