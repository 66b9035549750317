"""Backups of fixed assets and of openQA's configuration, and the way back.

Content that is in the bucket is not sent again unless it would expire: an asset that is gone from openQA
later disappears from the bucket, and nobody needs to delete it. An inventory, written last, lists the
assets.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from userdata.host import factory, figures, roles, users
from userdata.host.backup import manifests, names, store
from userdata.host.backup.base import alone
from userdata.host.backup.manifests import Asset, Inventory
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host

Report = Callable[[str], None]

# Content is sent again after this share of the days after which the bucket drops an object.
_RENEW = 2 / 3
# Marks a volume to which the assets of an earlier volume were restored.
_MARK = "assets-kept"


@dataclass(frozen=True)
class Found:
    """A fixed asset as it is on the volume."""

    path: Path
    bytes: int
    modified: int


def keep(host: Host, report: Report = print) -> None:
    """The timer's job: restores what a new volume lacks, then backs up, and tells CloudWatch the outcome.

    Raises:
        HostError: something could not be restored or sent; the rest was.
    """
    with alone(host, "backup of assets"), figures.outcome(host, AssetsFailed=(0.0, 1.0)):
        store.require_mount()
        if not (host.layout.data / _MARK).exists() and (inventory := store.newest_inventory()):
            try:
                _restore(host, inventory, overwrite=False, report=report)
            except HostError as error:
                raise HostError(
                    f"{error}; to go on without it, run 'PYTHONPATH={host.layout.bundle} "
                    "python3 -m userdata.host assets backup'"
                ) from error
        _back_up(host, report)


def back_up(host: Host, report: Report = print) -> None:
    """Backs up what is there, even if assets of an earlier volume are missing, as the operator decided.

    Raises:
        HostError: something could not be sent; the rest was.
    """
    with alone(host, "backup of assets"):
        store.require_mount()
        _back_up(host, report)


def restore(host: Host, *, overwrite: bool, report: Report = print) -> None:
    """Restores the assets of the newest inventory.

    Args:
        host: this host.
        overwrite: whether to replace existing assets that differ.
        report: takes the progress, a line at a time.

    Raises:
        HostError: there is no backup, or part of it is damaged or unreadable; the rest is restored.
    """
    with alone(host, "backup of assets"):
        store.require_mount()
        inventory = store.newest_inventory()
        if inventory is None:
            raise HostError("the backup bucket holds no assets of this environment")
        _restore(host, inventory, overwrite=overwrite, report=report)


def due(sent: datetime, now: datetime, *, keep_days: int) -> bool:
    """Returns whether an object must be sent again before the bucket drops it.

    Args:
        sent: when it was last sent.
        now: the current time.
        keep_days: how long the bucket keeps it.
    """
    return now - sent > timedelta(days=keep_days) * _RENEW


def _back_up(host: Host, report: Report) -> None:
    keep_days = required(host.document.backup, "backup").keep_days
    before = store.newest_inventory()
    wrong: dict[str, str] = {}
    sums, sizes, modified = {}, {}, {}
    with users.acting_as(users.OPENQA):
        for name, asset in _fixed(factory.folder(host), wrong):
            try:
                sums[name] = _kept(name, asset, before, keep_days=keep_days, report=report)
            except HostError as error:
                wrong[name] = str(error)
            else:
                sizes[name], modified[name] = asset.bytes, asset.modified
    if before:
        # An asset that cannot be seen may still exist.
        for name in before.assets:
            if _unseen(name, wrong):
                sums[name], sizes[name] = before.assets[name], before.sizes[name]
                modified[name] = before.modified[name]
    now = Inventory(
        environment=host.document.environment,
        taken=manifests.now(),
        assets=sums,
        sizes=sizes,
        modified=modified,
        configuration=roles.webui_configuration(host),
    )
    if before is None or _content(before) != _content(now) or due(before.end, now.end, keep_days=keep_days):
        path = store.MOUNT / names.INVENTORIES / f"{names.attempt()}.json"
        store.write(path, [manifests.encode(now)], compress=False)
        report(f"backed up: {len(sums)} fixed assets and openQA's configuration")
    (host.layout.data / _MARK).touch()
    # Only now: the other assets must be sent all the same, or they would expire.
    if wrong:
        raise HostError("; ".join(wrong.values()))


def _restore(host: Host, inventory: Inventory, *, overwrite: bool, report: Report) -> None:
    with users.acting_as(users.OPENQA):
        wrong = list(_restored(inventory, factory.folder(host), overwrite=overwrite, report=report))
    if wrong:
        raise HostError("; ".join(wrong))


def _restored(inventory: Inventory, folder: Path, *, overwrite: bool, report: Report) -> Iterator[str]:
    """Restores what an inventory names; yields an error for whatever could not be restored."""
    unseen: dict[str, str] = {}
    there = dict(_fixed(folder, unseen))
    yield from unseen.values()
    for name, sha256 in inventory.assets.items():
        if not _is_fixed(name):
            raise HostError(f"the inventory of {inventory.taken} names {name!r}, which is not a fixed asset")
        size, modified = inventory.sizes[name], inventory.modified[name]
        present = there.get(name)
        if present is not None and (present.bytes, present.modified) == (size, modified):
            continue
        if _unseen(name, unseen):
            continue
        if present is not None and not overwrite:
            report(f"{name} is there already, and is kept")
            continue
        report(f"restoring {name} ({size >> 20} MiB)")
        try:
            _fetch(sha256, folder / name, modified=modified, scratch=folder / "tmp")
        except HostError as error:
            report(f"REFUSED: {error}")
            yield str(error)


def _is_fixed(name: str) -> bool:
    """Whether a path below ``share/factory`` is a fixed asset's, and does not lead elsewhere."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and len(path.parts) >= 3 and path.parts[1] == "fixed"


def _fetch(sha256: str, target: Path, *, modified: int, scratch: Path) -> None:
    reason = f"{store.MOUNT / names.ASSETS / sha256}: the content of {target.name} is missing"
    for asset in reversed(store.find_assets(sha256)):
        temporary = scratch / f"{names.attempt()}.fetching"
        content = store.read(
            store.MOUNT / names.ASSETS / sha256 / asset.object,
            sha256=sha256,
            size=asset.bytes,
            compressed=False,
        )
        try:
            with temporary.open("wb") as file:
                for chunk in content:
                    file.write(chunk)
            os.utime(temporary, ns=(modified, modified))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        except OSError as error:
            raise HostError(f"{target}: {error.strerror}") from error
        except HostError as error:
            # Another attempt may be intact.
            reason = str(error)
            continue
        finally:
            temporary.unlink(missing_ok=True)
        return
    raise HostError(reason)


def _send(asset: Found, sha256: str) -> None:
    attempt = names.attempt()
    folder = store.MOUNT / names.ASSETS / sha256
    written = store.write(folder / attempt, _chunks(asset.path), compress=False)
    if written.sha256 != sha256:
        raise HostError(f"{asset.path}: changed while it was sent")
    manifest = Asset(object=attempt, sha256=sha256, bytes=written.bytes, sent=manifests.now())
    store.write(folder / f"{attempt}.json", [manifests.encode(manifest)], compress=False)


def _kept(name: str, asset: Found, before: Inventory | None, *, keep_days: int, report: Report) -> str:
    """Returns an asset's SHA-256, once the bucket has its content."""
    sha256 = _sum(name, asset, before)
    attempts = store.find_assets(sha256)
    if not attempts or due(attempts[-1].end, datetime.now(UTC), keep_days=keep_days):
        report(f"sending {name} ({asset.bytes >> 20} MiB)")
        _send(asset, sha256)
    return sha256


def _sum(name: str, asset: Found, before: Inventory | None) -> str:
    """Returns the content's SHA-256; an unmodified file is not read again."""
    known = (before.sizes.get(name), before.modified.get(name)) if before else None
    if before and known == (asset.bytes, asset.modified):
        return before.assets[name]
    digest = hashlib.sha256()
    for chunk in _chunks(asset.path):
        digest.update(chunk)
    return digest.hexdigest()


def _content(inventory: Inventory) -> tuple[object, ...]:
    return (inventory.assets, inventory.sizes, inventory.modified, inventory.configuration)


def _fixed(folder: Path, wrong: dict[str, str]) -> Iterator[tuple[str, Found]]:
    """Yields the fixed assets; notes in ``wrong`` why an asset or folder cannot be seen."""

    def note(error: OSError) -> None:
        path = Path(error.filename)
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            wrong[path.relative_to(folder).as_posix()] = f"{path}: cannot be read: {error.strerror}"

    # Not glob, which takes an unreadable folder for an empty one.
    for kind in sorted(folder.iterdir()):
        for above, folders, files in os.walk(kind / "fixed", onerror=note):
            folders.sort()
            for path in (Path(above, name) for name in sorted(files)):
                try:
                    about = path.lstat()
                except OSError as error:
                    note(error)
                    continue
                if stat.S_ISREG(about.st_mode):
                    yield path.relative_to(folder).as_posix(), Found(path, about.st_size, about.st_mtime_ns)


def _unseen(name: str, wrong: Container[str]) -> bool:
    """Whether an asset, or a folder above it, is among those that cannot be seen."""
    return any(path in wrong for path in (name, *map(str, PurePosixPath(name).parents)))


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(store.CHUNK):
                yield chunk
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error
