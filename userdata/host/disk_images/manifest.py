"""The manifest of an architecture's images: which there are, where, and what they must contain."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

FORMAT = 1
# How createhdds names its images; nothing else in its folder is one.
NAME = re.compile(r"disk[A-Za-z0-9_.+-]*\.(img|qcow2)")


class ManifestError(Exception):
    """A manifest that is cut off, or lacks something."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A disk image.

    Attributes:
        name: its file name.
        key: its object's key, below the architecture's prefix.
        bytes: its size, including holes.
        sha256: of its content, with holes read as zeros.
        modified: its modification time, in seconds since the epoch.
    """

    name: str
    key: str
    bytes: int
    sha256: str
    modified: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a builder published.

    Attributes:
        checked: when all images were last found to be current, in ISO 8601; None: never.
        images: the images, by name.
    """

    checked: str | None
    images: tuple[Image, ...]


def encode(manifest: Manifest) -> bytes:
    """Returns the manifest's JSON."""
    return (json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n").encode()


def decode(text: bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        ManifestError: it is cut off or of another format, lacks something, or names what is not an image.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ManifestError(f"its format is {data['format']!r}, not {FORMAT}")
        images = tuple(_image(entry) for entry in data["images"])
        if data["checked"] is not None and datetime.fromisoformat(data["checked"]).tzinfo is None:
            raise ManifestError(f"{data['checked']} has no time zone")
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"it is not a manifest of disk images: {error!r}") from error
    return Manifest(checked=data["checked"], images=images)


def _image(data: Mapping[str, Any]) -> Image:
    image = Image(**data)
    kinds = {"str": str, "int": int}
    if any(type(getattr(image, field.name)) is not kinds[str(field.type)] for field in fields(Image)):
        raise ManifestError(f"an image is {data!r}")
    if not NAME.fullmatch(image.name):
        raise ManifestError(f"{image.name!r} is not a disk image")
    return image
