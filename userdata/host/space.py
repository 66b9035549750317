"""How much of the data volume is free: openQA stops giving out jobs at 5 %, PostgreSQL at nothing."""

from __future__ import annotations

import os

from userdata.host import figures
from userdata.host.errors import HostError
from userdata.host.host import Host


def tell(host: Host) -> None:
    """Tells CloudWatch how much of the data volume is free, in percent of what may be filled.

    Raises:
        HostError: the volume is not there, or CloudWatch did not take the figure.
    """
    database = host.document.database is not None
    try:
        # A folder that only the volume has.
        disk = os.statvfs(host.layout.data / ("postgres" if database else "openqa"))
    except OSError as error:
        raise HostError(f"the data volume: {error.strerror}") from error
    free = 100 * disk.f_bavail / disk.f_blocks
    if database:
        figures.put(host, DatabaseVolumeFreePercent=free)
    else:
        figures.put(host, VolumeFreePercent=free)
