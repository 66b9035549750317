"""A cluster made from a backup, in a server of its own that nobody else can reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from userdata.host.backup import base as base_backups
from userdata.host.backup import choose, names, server, store
from userdata.host.backup.choose import Lineage, Target
from userdata.host.backup.manifests import Base
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host

Report = Callable[[str], None]

# The database's own server, and how long its start may take.
UNIT = "openqa-database.service"
START_SECONDS = 600
# The name of the data folder, which carries PostgreSQL's major version.
DATA = "17"
# The old one's, until the restored one answers: bin/start.sh puts it back if that is missing.
REPLACED = f"{DATA}.replaced"
POSTGRES = 603
_SECONDS = 12 * 3600
_PAUSE = 0.2
_REPORT_SECONDS = 10.0
# Leaves room for the WAL to replay, and for what the replay adds.
_ROOM = 1.3
# For each foreign key, makes a query that finds rows without their parent.
_ORPHANS = """
select format(
  'select %L where exists (select from %s c where %s and not exists (select from %s p where %s))',
  con.conname || ' of ' || con.conrelid::regclass, con.conrelid::regclass,
  (select string_agg(format('c.%I is not null', a.attname), ' and ') from unnest(con.conkey) k
    join pg_attribute a on a.attrelid = con.conrelid and a.attnum = k),
  con.confrelid::regclass,
  (select string_agg(format('c.%I = p.%I', a.attname, b.attname), ' and ')
    from unnest(con.conkey, con.confkey) as k(child, parent)
    join pg_attribute a on a.attrelid = con.conrelid and a.attnum = k.child
    join pg_attribute b on b.attrelid = con.confrelid and b.attnum = k.parent))
from pg_constraint con where con.contype = 'f' order by con.conname
"""


class DamagedBaseError(HostError):
    """A base backup differs from what was written; an older one may do."""


@dataclass(frozen=True)
class Scratch:
    """A recovered cluster.

    Attributes:
        folder: what is mounted as PostgreSQL's home; the data are in it.
        container: the server's container.
        base: the base backup that it was made from.
    """

    folder: Path
    container: str
    base: Base

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / DATA


def plan(target: Target, mount: Path = store.MOUNT) -> tuple[Target, list[Base]]:
    """Returns a target with the timeline that leads there, and the base backups on it, the best first.

    Raises:
        HostError: there is none.
    """
    bases = store.find_bases(mount)
    if not bases:
        raise HostError("the backup bucket holds no base backup of this environment")
    lineages = {}
    for system in {base.system for base in bases}:
        own = [base for base in bases if base.system == system]
        if (found := lineage(system, target, own, mount)) is not None:
            lineages[system] = found
    if not lineages:
        raise HostError(f"there is no timeline {target.timeline}")
    if candidates := choose.candidates(bases, target, lineages):
        return replace(target, timeline=lineages[candidates[0].system].timeline), candidates
    raise HostError(
        f"no base backup leads there; the oldest was finished at {bases[0].finished}, "
        f"the newest at {bases[-1].finished}"
    )


def lineage(system: str, target: Target, bases: Sequence[Base], mount: Path = store.MOUNT) -> Lineage | None:
    """Returns a cluster's timeline that leads to a target, with its ancestors; None if there is none.

    Args:
        system: the cluster's system identifier.
        target: what to restore.
        bases: its base backups. A history is archived once and expires, while base backups, which include a
            copy of it, are taken every night; by then those of its ancestors have expired, too.
        mount: where the bucket is mounted.

    Raises:
        HostError: its history is damaged.
    """
    known = store.listed(mount / names.wal(system) / "history")
    archived = [name for name in known if store.find_wal(system, name, mount)]
    found = {1, *(base.timeline for base in bases), *(int(name[:8], 16) for name in archived)}

    def newest(timeline: int) -> tuple[str, int]:
        taken = (base.attempt for base in bases if base.timeline == timeline)
        last = max([store.last_attempt(system, timeline, mount), *taken])
        return names.stamp(last), timeline

    # Not the highest: a restored database that was replaced by the old one again leaves its timeline behind.
    timeline = target.timeline or max(found, key=newest)
    if timeline not in found:
        return None
    name = f"{timeline:08X}.history"
    damage = ""
    for manifest in store.find_wal(system, name, mount):
        path = mount / names.wal_folder(system, name) / manifest.object
        try:
            text = b"".join(store.read(path, sha256=manifest.sha256, size=manifest.bytes, compressed=True))
        except HostError as error:
            damage = str(error)
            continue
        return choose.parse_history(timeline, text.decode())
    if damage:
        raise HostError(damage)
    return Lineage(timeline, {})


@contextmanager
def recovered(
    host: Host,
    base: Base,
    target: Target,
    *,
    folder: Path,
    container: str,
    options: Sequence[str] = (),
    report: Report = print,
) -> Iterator[Scratch]:
    """Makes a cluster from a base backup and the WAL after it; removes it at the end, unless it was moved.

    Args:
        host: this host.
        base: the base backup.
        target: how far to go.
        folder: where to put it; existing content is removed.
        container: a name for the server's container.
        options: of ``podman run``.
        report: takes the progress, a line at a time.

    Raises:
        DamagedBaseError: the base backup differs from what was written.
        HostError: there is no room, the WAL has a gap, or PostgreSQL refuses it.
    """
    scratch = Scratch(folder, container, base)
    # What a killed one left: its server may still run, and its data may take up the room.
    run(["podman", "rm", "--force", "--ignore", "--time=60", container], seconds=120)
    shutil.rmtree(folder, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < base.plain_bytes * _ROOM:
        raise HostError(
            f"{folder.parent} has {free >> 20} MiB left, {int(base.plain_bytes * _ROOM) >> 20} are needed"
        )
    folder.mkdir(mode=0o700)
    try:
        os.chown(folder, POSTGRES, POSTGRES)
        report(f"unpacking the base backup of {base.finished} ({base.bytes >> 20} MiB)")
        _unpack(base, scratch.data)
        _verify(host, scratch)
        report("replaying the write-ahead log")
        _start(host, scratch, target, options)
        _await_end(scratch, report)
        yield scratch
    finally:
        run(["podman", "rm", "--force", "--ignore", "--time=60", container], seconds=120)
        shutil.rmtree(folder, ignore_errors=True)


def check(scratch: Scratch, *, database: str, thorough: bool) -> list[str]:
    """Returns what is wrong with a recovered cluster; an empty list if all is well.

    Args:
        scratch: the cluster.
        database: openQA's database.
        thorough: whether to read every index and table, too.

    Raises:
        HostError: it does not answer.
    """
    wrong: list[str] = []
    if not scratch.base.rows and not _has_database(scratch, database):
        # The backup is from before the database was created.
        return wrong
    rows, newest = base_backups.counts(database, container=scratch.container)
    for table, count in scratch.base.rows.items():
        if table not in rows:
            wrong.append(f"table {table} is missing")
        elif count and not rows[table]:
            wrong.append(f"table {table} is empty, {count} rows were backed up")
    if scratch.base.newest_job and (newest or 0) < scratch.base.newest_job:
        wrong.append(f"the newest job is {newest}, job {scratch.base.newest_job} was backed up")
    asked = server.query(_ORPHANS, container=scratch.container, database=database)
    for sql in asked.splitlines():
        if name := server.query(sql, container=scratch.container, database=database, seconds=3600):
            wrong.append(f"constraint {name} does not hold")
    if thorough:
        command = ["pg_amcheck", "--host=/run/postgresql", "--username=postgres", "--install-missing"]
        try:
            run(["podman", "exec", scratch.container, *command, f"--database={database}"], seconds=6 * 3600)
        except HostError as error:
            wrong.append(str(error))
    return wrong


def has_jobs(scratch: Scratch, *, database: str) -> bool:
    """Returns whether there is a table of jobs: openQA creates it when it first starts.

    Args:
        scratch: the recovered cluster.
        database: openQA's database.

    Raises:
        HostError: it does not answer.
    """
    return _has_database(scratch, database) and bool(
        server.query("select to_regclass('public.jobs')", container=scratch.container, database=database)
    )


def _has_database(scratch: Scratch, database: str) -> bool:
    return bool(
        server.query(
            f"select 1 from pg_database where datname = '{database}'",  # noqa: S608  # the document's name
            container=scratch.container,
        )
    )


def _unpack(base: Base, data: Path) -> None:
    data.mkdir(mode=0o700)
    os.chown(data, POSTGRES, POSTGRES)
    chunks = store.read(store.object_of(base), sha256=base.sha256, size=base.bytes, compressed=True)
    # As PostgreSQL's user, who must own all of it: the archive names other owners for some files.
    user = ["setpriv", f"--reuid={POSTGRES}", f"--regid={POSTGRES}", "--clear-groups"]
    command = [*user, "tar", "--extract", "--same-permissions", f"--directory={data}"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            _feed(process, chunks)
        except HostError as error:
            process.kill()
            raise DamagedBaseError(str(error)) from error
        if process.wait():
            # The object is intact: the cause is on this host, such as a full disk.
            said.seek(0)
            lines = said.read().strip().splitlines() or ["no message"]
            free = shutil.disk_usage(data).free >> 20
            raise HostError(
                f"{store.object_of(base)} cannot be unpacked in {data}, where {free} MiB are left: {lines[0]}"
            )
    run(["sync", "--file-system", str(data)], seconds=3600)


def _feed(process: subprocess.Popen[bytes], chunks: Iterator[bytes]) -> None:
    """Feeds everything to a program; if it ends early, the rest is still read."""
    if process.stdin is None:  # never: it is a pipe
        return
    with suppress(BrokenPipeError), process.stdin:
        for chunk in chunks:
            process.stdin.write(chunk)
    for _ in chunks:
        pass


def control_data(host: Host, scratch: Scratch) -> dict[str, str]:
    """Returns what pg_controldata reports about a stopped cluster."""
    lines = _program(host, scratch, "pg_controldata", "-D").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _program(host: Host, scratch: Scratch, *words: str) -> str:
    return run(
        [
            *("podman", "run", "--rm", "--pull=never", "--network=none", "--user=postgres"),
            *("--security-opt=label=disable", f"--volume={scratch.folder}:/var/lib/postgresql"),
            *(host.document.images["database"].name, *words, f"/var/lib/postgresql/{DATA}"),
        ],
        seconds=6 * 3600,
    )


def _verify(host: Host, scratch: Scratch) -> None:
    # If podman cannot run anything, that is no sign of damage.
    _program(host, scratch, "test", "-d")
    try:
        _program(host, scratch, "pg_verifybackup", "--quiet")
    except HostError as error:
        raise DamagedBaseError(f"{store.object_of(scratch.base)}: {error}") from error


def _start(host: Host, scratch: Scratch, target: Target, options: Sequence[str]) -> None:
    signal = scratch.data / "recovery.signal"
    signal.touch(mode=0o600)
    os.chown(signal, POSTGRES, POSTGRES)
    settings = {
        "config_file": "/etc/openqa-on-aws/postgresql.conf",
        "listen_addresses": "",
        "ssl": "off",
        "archive_mode": "off",
        "shared_buffers": "128MB",
        "restore_command": f'/opt/bin/fetch.sh "%f" "%p" {scratch.base.system}',
        "recovery_target_timeline": str(target.timeline),
        "recovery_target_action": "promote",
    }
    if target.time is not None:
        settings["recovery_target_time"] = target.time.isoformat()
    run(
        [
            *("podman", "run", "--detach", "--pull=never", "--network=none", "--user=postgres"),
            *(f"--name={scratch.container}", "--init", "--stop-signal=SIGINT", "--shm-size=256m"),
            *("--tmpfs=/run/postgresql:mode=1777", "--security-opt=label=disable"),
            *("--cap-drop=all", "--security-opt=no-new-privileges"),
            f"--volume={scratch.folder}:/var/lib/postgresql",
            f"--volume={store.MOUNT.parent}:{store.MOUNT.parent}:rslave",
            f"--volume={host.layout.config}:/etc/openqa-on-aws:ro",
            f"--volume={host.layout.bundle}/userdata:/opt/openqa-on-aws/userdata:ro",
            f"--volume={host.layout.bundle}/userdata/roles/database/bin:/opt/bin:ro",
            *options,
            *(host.document.images["database"].name, "postgres", "-D", f"/var/lib/postgresql/{DATA}"),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ],
        seconds=120,
    )


def _await_end(scratch: Scratch, report: Report) -> None:
    end, told = time.monotonic() + _SECONDS, time.monotonic()
    while time.monotonic() < end:
        if run(["podman", "inspect", "--format={{.State.Running}}", scratch.container]).strip() != "true":
            raise HostError(_last_words(scratch.container))
        try:
            state, replayed = server.query(
                "select pg_is_in_recovery(), coalesce(pg_last_xact_replay_timestamp()::text, 'nothing yet')",
                container=scratch.container,
            ).split("|")
        except HostError:
            # Not consistent yet.
            state, replayed = "t", "nothing yet"
        if state == "f":
            report(f"replayed; the last transaction is from {replayed}")
            return
        if time.monotonic() - told > _REPORT_SECONDS:
            told = time.monotonic()
            report(f"replaying; transactions up to: {replayed}")
        time.sleep(_PAUSE)
    raise HostError(f"the recovery did not end within {_SECONDS} s")


def _last_words(container: str) -> str:
    # podman logs separates stdout and stderr; PostgreSQL and the restore command write to stderr.
    done = subprocess.run(
        ["podman", "logs", "--tail=200", container], capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("openqa-on-aws: ")]
    if ours:
        return ours[-1].removeprefix("openqa-on-aws: ")
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    if any("recovery ended before configured recovery target was reached" in line for line in fatal):
        return "the archived write-ahead log ends before that time; ask for an earlier one, or for 'latest'"
    return (fatal or lines or ["PostgreSQL said nothing"])[-1]
