"""openQA's assets (``share/factory``), and how root adds one, as the folders belong to openQA."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from userdata.host import users
from userdata.host.errors import HostError
from userdata.host.host import Host


def folder(host: Host) -> Path:
    """Returns where openQA's assets are."""
    return host.layout.data / "openqa/share/factory"


def size(host: Host, name: str) -> int | None:
    """Returns the size of an asset; None: there is no such file, or openQA's user may not see it.

    Args:
        host: the web UI's host.
        name: the asset's path below the folder of assets.
    """
    try:
        with users.acting_as(users.OPENQA):
            about = (folder(host) / name).lstat()
    except HostError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def show(host: Host, file: Path, name: str) -> None:
    """Moves a file to openQA's assets, atomically.

    Args:
        host: the web UI's host.
        file: on openQA's volume, in a folder where root alone writes.
        name: the asset's path below the folder of assets.

    Raises:
        HostError: openQA's user may not put it there.
    """
    # Otherwise a power failure could leave an asset with its name and size but without its content.
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    file.chmod(0o644)
    users.give(file, users.OPENQA)
    new = folder(host) / "tmp" / file.name
    with users.acting_as(users.OPENQA):
        new.unlink(missing_ok=True)
        # A link, because openQA's user may not move the file out of root's folder.
        os.link(file, new)
        new.replace(folder(host) / name)
    file.unlink()


def remove(host: Host, name: str) -> None:
    """Removes an asset, if it is there.

    Args:
        host: the web UI's host.
        name: the asset's path below the folder of assets.

    Raises:
        HostError: openQA's user may not remove it.
    """
    with users.acting_as(users.OPENQA):
        (folder(host) / name).unlink(missing_ok=True)
