"""What happens on a volume without a database: a new one is made only if there are no backups."""

from __future__ import annotations

import os
from typing import Any

from userdata.host.aws import call
from userdata.host.backup import names
from userdata.host.backup.recovery import DATA, POSTGRES, REPLACED, START_SECONDS, UNIT
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host

_LEAVE = "may-initialise"


def decide(host: Host) -> None:
    """At every start: permits the creation of a cluster, or has the host wait for an operator.

    Raises:
        HostError: the bucket cannot be listed.
    """
    host.layout.awaits_restore.unlink(missing_ok=True)
    leave = host.layout.config / _LEAVE
    leave.unlink(missing_ok=True)
    # If there is only the second, bin/start.sh puts it back.
    if any((host.layout.data / "postgres" / name / "PG_VERSION").exists() for name in (DATA, REPLACED)):
        return
    backup = host.document.backup
    if backup is not None and has_base(host.client("s3"), bucket=backup.bucket, prefix=backup.prefix):
        host.layout.awaits_restore.write_text(
            f"the database's volume is empty, but the bucket {backup.bucket} holds backups: run "
            f"'python -m ops --env {host.document.environment} restore --to latest', or on this host "
            f"'PYTHONPATH={host.layout.bundle} python3 -m userdata.host restore --to latest'",
            encoding="utf-8",
        )
        return
    _give_leave(host)


def initialise(host: Host) -> None:
    """Creates an empty database even though there are backups, as the operator decided.

    Raises:
        HostError: the host does not wait for an operator.
    """
    if not host.layout.awaits_restore.exists():
        raise HostError("there is a database already; an empty one is made only where the volume is empty")
    _give_leave(host)
    host.layout.awaits_restore.unlink()
    run(["systemctl", "start", UNIT], seconds=START_SECONDS)


def has_base(s3: Any, *, bucket: str, prefix: str) -> bool:
    """Returns whether a bucket holds the manifest of a base backup of any cluster.

    Raises:
        HostError: the bucket cannot be listed.
    """

    def listed(begin: str, **more: str) -> Any:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=begin, **more)
        return call(f"bucket {bucket}", lambda: list(pages))

    return any(
        entry["Key"].endswith(f"/{names.MANIFEST}")
        for clusters in listed(f"{prefix}{names.CLUSTERS}/", Delimiter="/")
        for cluster in clusters.get("CommonPrefixes", [])
        for page in listed(f"{cluster['Prefix']}base/")
        for entry in page.get("Contents", [])
    )


def _give_leave(host: Host) -> None:
    host.layout.config.mkdir(mode=0o750, parents=True, exist_ok=True)
    leave = host.layout.config / _LEAVE
    leave.touch(mode=0o600)
    if os.geteuid() == 0:
        os.chown(leave, POSTGRES, POSTGRES)
