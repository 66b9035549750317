"""How much of the data volume is free: openQA stops giving out jobs at 5 %."""

from __future__ import annotations

import os

from userdata.host import figures
from userdata.host.errors import HostError
from userdata.host.host import Host


def tell(host: Host) -> None:
    """Tells CloudWatch how much of the data volume is free, in percent of what openQA may fill.

    Raises:
        HostError: the volume is not there, or CloudWatch did not take the figure.
    """
    try:
        disk = os.statvfs(host.layout.data / "openqa")
    except OSError as error:
        raise HostError(f"the data volume: {error.strerror}") from error
    figures.put(host, VolumeFreePercent=100 * disk.f_bavail / disk.f_blocks)
