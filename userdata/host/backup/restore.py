"""Restoring the database: recovered and checked beside the old one, then put in its place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from userdata.host import interrupted, ready
from userdata.host.aws import wait
from userdata.host.backup import base as base_backups
from userdata.host.backup import names, recovery, server, store
from userdata.host.backup.choose import Target
from userdata.host.backup.manifests import Base
from userdata.host.backup.recovery import (
    DATA,
    REPLACED,
    START_SECONDS,
    UNIT,
    DamagedBaseError,
    Report,
    Scratch,
)
from userdata.host.commands import ended_in_order, run
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host

CONTAINER = "openqa-restore"
_ARCHIVE_SECONDS = 90
_WAKE_SECONDS = 10


def restore(host: Host, target: Target, *, overwrite: bool, report: Report = print) -> None:
    """Restores the database and starts it.

    Until the restored one answers, the old one is kept; on any failure it is put back.

    Args:
        host: this host.
        target: what to restore.
        overwrite: whether an existing database may be replaced.
        report: takes the progress, a line at a time.

    Raises:
        HostError: refused or failed; the database is as it was.
    """
    began = time.monotonic()
    store.require_mount()
    with base_backups.alone(host, "restore"), ended_in_order():
        data = host.layout.data / "postgres" / DATA
        _settle(data, report)
        if not overwrite and (reason := _in_the_way(host, data)):
            raise HostError(f"{reason}: to replace it, pass --yes-overwrite")
        keep = data.exists() and not _archive_rest(report)
        target, bases = recovery.plan(target)
        for base in bases:
            try:
                _restore(host, base, target, keep=keep, report=report)
            except DamagedBaseError as error:
                report(f"REFUSED: {error}")
                report("trying an older base backup: with the log after it, it leads to the same state")
                continue
            report(f"the database is restored, after {time.monotonic() - began:.0f} s")
            return
        raise HostError("every base backup that leads there is damaged")


def _settle(data: Path, report: Report) -> None:
    """Cleans up after a restore that was killed while it swapped the databases."""
    replaced = data.with_name(REPLACED)
    if not replaced.exists():
        return
    if data.exists():
        kept = _keep(replaced)
        report(f"an earlier restore was killed; the database before it is kept in {kept}")
        return
    report("an earlier restore was killed; putting back the database from before it")
    replaced.rename(data)
    try:
        run(["systemctl", "start", UNIT], seconds=START_SECONDS)
    except HostError as error:
        # It is about to be replaced anyway.
        report(str(error))


def _keep(replaced: Path) -> Path:
    """Renames a replaced database, which is then kept until somebody deletes it."""
    return replaced.rename(replaced.with_name(f"{DATA}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))


def _in_the_way(host: Host, data: Path) -> str | None:
    """Returns why an operator must confirm; None: nothing would be lost."""
    if not data.exists():
        return None
    database = required(host.document.database, "database")
    try:
        rows, _ = base_backups.counts(database.name)
    except HostError:
        return f"{data} holds a database that does not answer"
    if rows.get("jobs"):
        return f"{data} holds a healthy database with {rows['jobs']} jobs"
    # openQA makes users, machines and templates of its own: then it was in use.
    if there := [f"{count} {table}" for table, count in rows.items() if count]:
        return f"{data} holds a healthy database without jobs, but with {', '.join(there)}"
    return None


def _archive_rest(report: Report) -> bool:
    """Makes the running server archive everything; returns whether it did."""
    try:
        _await_archive(time.monotonic() + _ARCHIVE_SECONDS)
    except HostError as error:
        report(f"the current database's latest changes are not in the bucket, so its folder is kept: {error}")
        return False
    return True


def _await_archive(end: float) -> None:
    while True:
        # The end of a segment wakes the archiver, which pauses for a minute after three failures. The restore
        # point gives the segment content: an empty one would not be ended.
        server.query("select pg_create_restore_point('openqa-on-aws'), pg_switch_wal()")
        try:
            wait(
                "the write-ahead log to be archived",
                lambda: True if float(base_backups.archive_lag()) == 0 else None,
                seconds=_WAKE_SECONDS,
                pause=0.5,
            )
        except HostError:
            if time.monotonic() >= end:
                raise
        else:
            return


def _restore(host: Host, base: Base, target: Target, *, keep: bool, report: Report) -> None:
    database = required(host.document.database, "database")
    folder = host.layout.data / "restore"
    with recovery.recovered(host, base, target, folder=folder, container=CONTAINER, report=report) as scratch:
        report("checking what was restored")
        if wrong := recovery.check(scratch, database=database.name, thorough=False):
            raise HostError(f"the restored database is not sound: {'; '.join(wrong)}")
        if recovery.has_jobs(scratch, database=database.name):
            server.query(interrupted.MARK, container=CONTAINER, database=database.name)
        run(["podman", "stop", "--time=600", CONTAINER], seconds=700)
        _hand_over_log(host, scratch)
        _switch(host, scratch, keep=keep, report=report)


def _hand_over_log(host: Host, scratch: Scratch) -> None:
    """Makes the future server archive what the recovery wrote, as the scratch server did not."""
    facts = recovery.control_data(host, scratch)
    timeline, current = facts["Latest checkpoint's TimeLineID"], facts["Latest checkpoint's REDO WAL file"]
    status = scratch.data / "pg_wal/archive_status"
    found = (path.name for path in status.parent.iterdir())
    for name in unarchived(found, timeline=int(timeline), current=current):
        mark = status / f"{name}.ready"
        mark.touch(mode=0o600)
        os.chown(mark, recovery.POSTGRES, recovery.POSTGRES)


def unarchived(found: Iterable[str], *, timeline: int, current: str) -> list[str]:
    """Returns the files in a WAL folder that a recovery to a new timeline leaves unarchived.

    Args:
        found: the files.
        timeline: the new timeline.
        current: the segment still being written.
    """
    begin = f"{timeline:08X}"
    return sorted(
        name
        for name in found
        if name == f"{begin}.history" or (names.segment(name) and name.startswith(begin) and name < current)
    )


def _switch(host: Host, scratch: Scratch, *, keep: bool, report: Report) -> None:
    data = host.layout.data / "postgres" / DATA
    old = data.with_name(REPLACED)
    awaits = host.layout.awaits_restore
    report("putting it in place of the old one")
    awaited = awaits.read_text(encoding="utf-8") if awaits.exists() else None
    had_old = data.exists()
    try:
        run(["systemctl", "stop", UNIT], seconds=300)
        if had_old:
            keep = keep or not _has_archived(host, replace(scratch, folder=data.parent))
            data.rename(old)
        scratch.data.rename(data)
        awaits.unlink(missing_ok=True)
        run(["systemctl", "start", UNIT], seconds=START_SECONDS)
        wait("the restored database to answer", lambda: _answers(host), seconds=START_SECONDS, pause=1)
    except BaseException:
        run(["systemctl", "stop", UNIT], seconds=300)
        if not scratch.data.exists():
            data.rename(scratch.data)
        if old.exists():
            old.rename(data)
        if had_old:
            run(["systemctl", "start", "--no-block", UNIT])
        elif awaited is not None:
            awaits.write_text(awaited, encoding="utf-8")
        raise
    if had_old and keep:
        report(f"the old database is kept in {_keep(old)}")
    elif had_old:
        # It is deleted with the scratch server's folder: half of it must not look like a kept one.
        old.rename(scratch.data)


def _has_archived(host: Host, stopped: Scratch) -> bool:
    """Whether a server that was in use until now has archived everything."""
    try:
        states = list((stopped.data / "pg_wal/archive_status").iterdir())
        if any(state.suffix == ".ready" for state in states):
            return False
        # Only a clean shutdown hands over the last segment.
        return recovery.control_data(host, stopped)["Database cluster state"] == "shut down"
    except (HostError, KeyError, OSError):
        return False


def _answers(host: Host) -> bool | None:
    try:
        ready.check_database(host)
    except HostError:
        return None
    return True
