"""Free disk space: openQA stops assigning jobs at 5 % of its volume, PostgreSQL stops when none is left."""

from __future__ import annotations

import os
from pathlib import Path

from userdata.host import figures
from userdata.host.errors import HostError
from userdata.host.host import Host


def tell(host: Host) -> None:
    """Tells CloudWatch how much of the data volume and the root disk is free, in percent.

    Raises:
        HostError: the volume is not there, or CloudWatch did not accept the figures.
    """
    database = host.document.database is not None
    # A folder that only the volume has.
    volume = _free(host.layout.data / ("postgres" if database else "openqa"), what="the data volume")
    root = _free(host.layout.root, what="the root disk")
    if database:
        figures.put(host, DatabaseVolumeFreePercent=volume, DatabaseRootFreePercent=root)
    else:
        figures.put(host, VolumeFreePercent=volume, RootFreePercent=root)


def _free(path: Path, *, what: str) -> float:
    try:
        disk = os.statvfs(path)
    except OSError as error:
        raise HostError(f"{what}: {error.strerror}") from error
    return 100 * disk.f_bavail / disk.f_blocks
