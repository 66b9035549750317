"""A stateful host's services started anew: with today's secrets, certificates and configuration."""

from __future__ import annotations

from userdata.host import ready
from userdata.host.aws import wait
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.progress import Report

SECONDS = 780


def restart(host: Host, report: Report) -> None:
    """Starts all services anew, and waits until the host does its work; jobs on workers run on.

    Args:
        host: the database's or the web UI's.
        report: is told what is done.

    Raises:
        HostError: they do not start, or it does not do its work in time.
    """
    report("starting all services anew, with today's secrets and certificates")
    # All services require it, so they start anew, too.
    run(["systemctl", "restart", "openqa-configure.service"], seconds=SECONDS)
    run(["systemctl", "start", "--no-block", "openqa-on-aws.target"])
    while True:
        try:
            wait(f"the {host.document.role} to work", lambda: _works(host), seconds=SECONDS, pause=1)
            return
        except HostError:
            # Whoever ran it again would begin the upgrade again.
            if not ready.upgrades(host):
                raise
            report("openQA still upgrades the database's schema")


def _works(host: Host) -> bool | None:
    try:
        ready.check(host)
    except (HostError, OSError, ValueError):
        return None
    return True
