"""Manifests: what makes an object in the bucket a backup. Written last, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

FORMAT = 1


class ManifestError(Exception):
    """A manifest that is cut off, of another kind, or lacks something."""


@dataclass(frozen=True, kw_only=True)
class Wal:
    """The manifest of an archived file.

    Attributes:
        name: the file's name in PostgreSQL's WAL folder.
        object: the name of the object beside the manifest.
        sha256: of the object.
        bytes: of the object.
        plain_sha256: of the file.
        plain_bytes: of the file.
        system: the cluster's system identifier.
        archived: when, in ISO 8601.
    """

    name: str
    object: str
    sha256: str
    bytes: int
    plain_sha256: str
    plain_bytes: int
    system: str
    archived: str


@dataclass(frozen=True, kw_only=True)
class Base:
    """The manifest of a base backup.

    Attributes:
        attempt: the name of its folder.
        object: the name of the object beside the manifest.
        sha256: of the object.
        bytes: of the object.
        plain_bytes: of the archive before compression.
        environment: whose database it is.
        postgres: the server's version, such as ``17.6``.
        system: the cluster's system identifier.
        timeline: the timeline that it was taken on.
        segment_bytes: the size of a WAL segment.
        start: where in the WAL a recovery begins, such as ``0/2000028``.
        stop: the position from which the data are consistent.
        started: when, in ISO 8601.
        finished: when, in ISO 8601; no earlier moment can be restored from it.
        rows: the number of rows of each table, when it began.
        newest_job: the highest ID that a job ever had, when it began; None: there was no such table.
    """

    attempt: str
    object: str
    sha256: str
    bytes: int
    plain_bytes: int
    environment: str
    postgres: str
    system: str
    timeline: int
    segment_bytes: int
    start: str
    stop: str
    started: str
    finished: str
    rows: Mapping[str, int]
    newest_job: int | None

    @property
    def end(self) -> datetime:
        """When it was finished."""
        return moment(self.finished)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """The manifest of an asset's content.

    Attributes:
        object: the name of the object beside the manifest.
        sha256: of the object.
        bytes: of the object.
        sent: when, in ISO 8601.
    """

    object: str
    sha256: str
    bytes: int
    sent: str

    @property
    def end(self) -> datetime:
        """When it was sent."""
        return moment(self.sent)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What an openQA had; the content of each asset is in the bucket.

    Attributes:
        environment: whose it is.
        taken: when, in ISO 8601.
        assets: the SHA-256 of each fixed asset, by its path below ``share/factory``.
        sizes: their sizes in bytes.
        modified: when each was modified, in nanoseconds since 1970.
        configuration: openQA's configuration files, with placeholders for secrets.
    """

    environment: str
    taken: str
    assets: Mapping[str, str]
    sizes: Mapping[str, int]
    modified: Mapping[str, int]
    configuration: Mapping[str, str]

    @property
    def end(self) -> datetime:
        """When it was taken."""
        return moment(self.taken)


Manifest = Wal | Base | Asset | Inventory
M = TypeVar("M", Wal, Base, Asset, Inventory)


def encode(manifest: Manifest) -> bytes:
    """Returns the manifest's JSON."""
    kind = type(manifest).__name__.lower()
    return (json.dumps({"format": FORMAT, "kind": kind, **asdict(manifest)}, indent=1) + "\n").encode()


def decode(kind: type[M], text: bytes) -> M:
    """Reads a manifest.

    Args:
        kind: the class of such manifests.
        text: its JSON.

    Raises:
        ManifestError: it is cut off, of another kind or format, or lacks something.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ManifestError("it is not JSON") from error
    if not isinstance(data, dict):
        raise ManifestError("it is not a JSON object")
    if (data.pop("format", None), data.pop("kind", None)) != (FORMAT, kind.__name__.lower()):
        raise ManifestError(f"it is not of kind {kind.__name__.lower()}, format {FORMAT}")
    known = {field.name: field.type for field in fields(kind)}
    if set(data) != set(known):
        raise ManifestError(f"its keys are not {', '.join(sorted(known))}")
    for name, value in data.items():
        if not _fits(value, str(known[name])):
            raise ManifestError(f"its {name} is {value!r}")
    try:
        for name in ("archived", "started", "finished", "sent", "taken"):
            if name in data:
                moment(data[name])
    except ValueError as error:
        raise ManifestError(str(error)) from error
    return kind(**data)


def moment(text: str) -> datetime:
    """Reads a time with its zone.

    Raises:
        ValueError: it is not an ISO 8601 time, or lacks the zone.
    """
    read = datetime.fromisoformat(text)
    if read.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return read.astimezone(UTC)


def now() -> str:
    """Returns the current time in the manifests' form."""
    return datetime.now(UTC).isoformat()


def _fits(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return type(value) is int and value >= 0
    if kind == "int | None":
        return value is None or type(value) is int
    wanted = str if kind == "Mapping[str, str]" else int
    return isinstance(value, dict) and all(type(entry) is wanted for entry in value.values())
