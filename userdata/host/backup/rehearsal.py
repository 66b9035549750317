"""The daily proof that the newest backup can be restored."""

from __future__ import annotations

from userdata.host import figures
from userdata.host.backup import base as base_backups
from userdata.host.backup import recovery, store
from userdata.host.backup.choose import Target
from userdata.host.backup.recovery import Report
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host

CONTAINER = "openqa-rehearsal"


def rehearse(host: Host, report: Report = print) -> None:
    """Restores the newest backup into a server of its own, checks it, and tells CloudWatch the outcome.

    On the root disk: a rehearsal must not fill the database's volume.

    Raises:
        HostError: the backup cannot be restored, or is not sound.
    """
    # Finding another one at work proves nothing.
    with base_backups.alone(host, "rehearsal"), figures.outcome(host, RestoreVerified=(1.0, 0.0)):
        _rehearse(host, report)


def _rehearse(host: Host, report: Report) -> None:
    database = required(host.document.database, "database")
    store.require_mount()
    target, (base, *_) = recovery.plan(Target())
    with recovery.recovered(
        host,
        base,
        target,
        folder=host.layout.state / "rehearsal",
        container=CONTAINER,
        # In the unit's own control group, so that its limits apply.
        options=("--cgroups=split",),
        report=report,
    ) as scratch:
        if wrong := recovery.check(scratch, database=database.name, thorough=True):
            raise HostError(f"the newest backup is not sound: {'; '.join(wrong)}")
    report("the newest backup can be restored")
