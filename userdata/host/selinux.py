"""SELinux, on hosts that have it: Fedora's."""

from __future__ import annotations

from pathlib import Path

from userdata.host.commands import run
from userdata.host.layout import Layout


def label(layout: Layout, folder: Path) -> None:
    """Gives the folder of a new file system the label of its place, which all that is made there then has.

    Without one, systemd itself may neither write there nor show it to a service.

    Args:
        layout: the host's.
        folder: where the file system is mounted.

    Raises:
        HostError: it was refused.
    """
    if (layout.root / "sys/fs/selinux/enforce").exists():
        run(["restorecon", str(folder)])
