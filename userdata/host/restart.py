"""Restarting a stateful host's services with the current secrets, certificates and configuration."""

from __future__ import annotations

from userdata.host import ready
from userdata.host.aws import wait
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.progress import Report

SECONDS = 780


def restart(host: Host, report: Report) -> None:
    """Restarts all services, and waits until the host works; jobs on workers keep running.

    Args:
        host: the database's or the web UI's.
        report: takes the progress, a line at a time.

    Raises:
        HostError: they do not start, or the host does not work in time.
    """
    report("restarting all services with the current secrets and certificates")
    # All services require it, so they restart, too.
    run(["systemctl", "restart", "openqa-configure.service"], seconds=SECONDS)
    run(["systemctl", "start", "--no-block", "openqa-on-aws.target"])
    while True:
        try:
            wait(f"the {host.document.role} to work", lambda: _works(host), seconds=SECONDS, pause=1)
            return
        except HostError:
            # After an error somebody would run this again, and so restart the upgrade.
            if not ready.upgrades(host):
                raise
            report("openQA is still upgrading the database's schema")


def _works(host: Host) -> bool | None:
    try:
        ready.check(host)
    except (HostError, OSError, ValueError):
        return None
    return True
