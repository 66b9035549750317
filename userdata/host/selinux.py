"""SELinux, on hosts that have it: Fedora's."""

from __future__ import annotations

from pathlib import Path

from userdata.host.commands import run
from userdata.host.layout import Layout


def label(layout: Layout, folder: Path) -> None:
    """Gives the root folder of a new file system its label, which everything created in it inherits.

    Without a label, even systemd may neither write there nor expose it to a service.

    Args:
        layout: the host's.
        folder: where the file system is mounted.

    Raises:
        HostError: it was refused.
    """
    if (layout.root / "sys/fs/selinux/enforce").exists():
        run(["restorecon", str(folder)])
