"""Where things are in the bucket. Pure functions on names.

    postgres/SYSTEM/base/ATTEMPT/base.tar.gz        a base backup
    postgres/SYSTEM/base/ATTEMPT/manifest.json
    postgres/SYSTEM/wal/GROUP/NAME/ATTEMPT.gz       a file of the WAL archive
    postgres/SYSTEM/wal/GROUP/NAME/ATTEMPT.json

SYSTEM is the cluster's system identifier, so that WAL of different clusters never mixes. The web UI host's:

    openqa/assets/SHA256/ATTEMPT                    an asset's content
    openqa/assets/SHA256/ATTEMPT.json
    openqa/inventories/ATTEMPT.json                 which assets there were, under which names
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from userdata.host.errors import HostError

CLUSTERS = PurePosixPath("postgres")
ASSETS = PurePosixPath("openqa/assets")
INVENTORIES = PurePosixPath("openqa/inventories")
BASE = "base.tar.gz"
MANIFEST = "manifest.json"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
# The last, unfinished segment of an abandoned timeline; and the notes that a base backup makes.
_OTHER = re.compile(r"[0-9A-F]{24}\.(partial|[0-9A-F]{8}\.backup)")
_SYSTEM = re.compile(r"[0-9]{1,20}")
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, order=True)
class Segment:
    """The name of a WAL segment.

    Attributes:
        timeline: its timeline.
        log: the upper 32 bits of its position.
        number: its number among those with the same upper bits.
    """

    timeline: int
    log: int
    number: int

    @property
    def name(self) -> str:
        """The file name that PostgreSQL uses."""
        return f"{self.timeline:08X}{self.log:08X}{self.number:08X}"


def segment(name: str) -> Segment | None:
    """Parses a segment's file name; None if it is another kind of file."""
    if not _SEGMENT.fullmatch(name):
        return None
    return Segment(*(int(name[start : start + 8], 16) for start in (0, 8, 16)))


def segment_at(position: int, *, timeline: int, size: int) -> Segment:
    """Returns the segment that holds a position.

    Args:
        position: the position in the WAL, in bytes.
        timeline: the timeline.
        size: the size of a segment in bytes.
    """
    each = 2**32 // size
    index = position // size
    return Segment(timeline, index // each, index % each)


def next_segment(current: Segment, *, size: int) -> Segment:
    """Returns the next segment on the same timeline; ``size`` is a segment's size in bytes."""
    index = current.log * (2**32 // size) + current.number + 1
    return segment_at(index * size, timeline=current.timeline, size=size)


def is_archived(name: str) -> bool:
    """Returns whether PostgreSQL archives files with such a name."""
    return any(pattern.fullmatch(name) for pattern in (_SEGMENT, _HISTORY, _OTHER))


def attempt(now: datetime | None = None) -> str:
    """Returns a name that was never used: the time in UTC and some random digits."""
    return f"{now or datetime.now(UTC):{_STAMP}}-{secrets.token_hex(4)}"


def stamp(attempt: str) -> str:
    """Returns the time in an attempt's name, which sorts by time."""
    return attempt.partition("-")[0]


def began(attempt: str) -> datetime | None:
    """Returns when an attempt was made; None if it is not the name of an attempt."""
    try:
        return datetime.strptime(stamp(attempt), _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def cluster(system: str) -> PurePosixPath:
    """Returns the folder of a cluster.

    Raises:
        HostError: it is not a system identifier.
    """
    if not _SYSTEM.fullmatch(system):
        raise HostError(f"system identifier {system!r}: not a number")
    return CLUSTERS / system


def bases(system: str) -> PurePosixPath:
    """Returns the folder of a cluster's base backups."""
    return cluster(system) / "base"


def wal(system: str) -> PurePosixPath:
    """Returns the folder of a cluster's WAL archive."""
    return cluster(system) / "wal"


def wal_group(name: str) -> str:
    """Returns the group of a file in the WAL archive; groups keep the bucket's listings short.

    Raises:
        HostError: PostgreSQL archives no such file.
    """
    if not is_archived(name):
        raise HostError(f"{name!r} is not a file of a WAL archive")
    return "history" if _HISTORY.fullmatch(name) else name[:16]


def wal_folder(system: str, name: str) -> PurePosixPath:
    """Returns the folder of all attempts to archive a file."""
    return wal(system) / wal_group(name) / name


def position(text: str) -> int:
    """Returns a position in the WAL, such as ``0/2000028``, in bytes.

    Raises:
        ValueError: it is malformed.
    """
    upper, lower = text.split("/")
    return int(upper, 16) << 32 | int(lower, 16)
