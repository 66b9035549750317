"""The web UI host's part: ``hdd/fixed`` gets what the builders published, beside what others put there."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from userdata.host import factory, figures
from userdata.host.backup.manifests import moment
from userdata.host.disk_images.manifest import Image, Manifest
from userdata.host.disk_images.store import Store
from userdata.host.document import DiskImages, required
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.secrets import write_private

log = logging.getLogger(__name__)

# openQA schedules nothing below this share of free space.
FREE = 0.05


@dataclass(frozen=True)
class Shown:
    """An image that this host has put there: its object and its architecture."""

    key: str
    architecture: str


@dataclass(frozen=True)
class Places:
    """Where root keeps things, on the volume; nobody else writes there."""

    partial: Path
    record: Path


def fetch(host: Host) -> None:
    """Adds new images and removes those that are gone; reports the age of the builders' last checks.

    Raises:
        HostError: part of it failed; the rest was done.
    """
    wanted = required(host.document.disk_images, "disk_images")
    places = _places(host)
    shutil.rmtree(places.partial, ignore_errors=True)
    places.partial.mkdir(parents=True)
    wrong = []
    read: dict[str, Manifest] = {}
    stores = _stores(host, wanted)
    for architecture, store in stores.items():
        try:
            manifest, _ = store.read()
            if manifest is not None:
                read[architecture] = manifest
                if manifest.checked is not None:
                    _tell_age(host, architecture, manifest.checked)
        except HostError as error:
            wrong.append(str(error))
    shown = _record(places)
    for name, (architecture, image) in choose(read).items():
        there = shown.get(name)
        if there and there.key == image.key and factory.size(host, _asset(name)) == image.bytes:
            continue
        if there and there.architecture in stores and there.architecture not in read:
            # Another architecture may take its place only once its own builder has dropped it.
            continue
        try:
            _show(host, stores[architecture], image, places)
        except HostError as error:
            wrong.append(str(error))
            continue
        shown[name] = Shown(image.key, architecture)
        _remember(places, shown)
        log.info("%s is new", name)
    for name in gone(shown, read):
        try:
            factory.remove(host, _asset(name))
        except HostError as error:
            wrong.append(str(error))
            continue
        del shown[name]
        _remember(places, shown)
        log.info("%s is gone", name)
    if wrong:
        raise HostError("; ".join(wrong))


def choose(manifests: Mapping[str, Manifest]) -> dict[str, tuple[str, Image]]:
    """Returns the images to show, by name, each with its architecture.

    Some images are for all architectures, and every builder makes them: the first one's is shown.
    """
    chosen: dict[str, tuple[str, Image]] = {}
    for architecture, manifest in manifests.items():
        for image in manifest.images:
            chosen.setdefault(image.name, (architecture, image))
    return chosen


def gone(shown: Mapping[str, Shown], manifests: Mapping[str, Manifest]) -> list[str]:
    """Returns the images to remove: their own builder's manifest is there, and no manifest has them.

    Args:
        shown: the builders' images that are there.
        manifests: those that could be read.
    """
    names = choose(manifests)
    return sorted(name for name, of in shown.items() if of.architecture in manifests and name not in names)


def _stores(host: Host, wanted: DiskImages) -> dict[str, Store]:
    s3 = host.client("s3")
    return {
        architecture: Store(s3, bucket=wanted.bucket, prefix=f"{architecture}/")
        for architecture in wanted.architectures
    }


def _places(host: Host) -> Places:
    own = host.layout.data / "disk-images"
    return Places(partial=own / "partial", record=own / "shown.json")


def _show(host: Host, store: Store, image: Image, places: Places) -> None:
    room = os.statvfs(places.partial)
    if (room.f_bavail * room.f_frsize - image.bytes) < FREE * room.f_blocks * room.f_frsize:
        raise HostError(f"{image.name}: no room on the volume for its {image.bytes} bytes")
    path = store.fetch(image, places.partial)
    factory.show(host, path, _asset(image.name))


def _asset(name: str) -> str:
    return f"hdd/fixed/{name}"


def _record(places: Places) -> dict[str, Shown]:
    try:
        data = json.loads(places.record.read_text(encoding="utf-8"))
        return {name: Shown(**entry) for name, entry in data.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise HostError(f"{places.record}: cannot be read: {error}") from error


def _remember(places: Places, shown: Mapping[str, Shown]) -> None:
    text = json.dumps({name: asdict(entry) for name, entry in shown.items()}, indent=1)
    write_private(places.record, text, mode=0o644)


def _tell_age(host: Host, architecture: str, checked: str) -> None:
    age = (datetime.now(UTC) - moment(checked)).total_seconds()
    figures.put(host, architecture=architecture, ImagesAgeSeconds=age)
