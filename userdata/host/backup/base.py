"""Taking base backups, and reporting the age of the newest to CloudWatch."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from userdata.host import figures
from userdata.host.backup import choose, manifests, names, server, store
from userdata.host.backup.manifests import Base
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host

# The tables whose numbers of rows are in the manifest: openQA is nothing without them.
COUNTED = ("api_keys", "assets", "job_groups", "jobs", "machines", "products", "test_suites", "users")
_SECONDS = 600


@dataclass(frozen=True)
class Cluster:
    """What a running server says about itself."""

    system: str
    timeline: int
    postgres: str
    segment_bytes: int


def cluster() -> Cluster:
    """Asks the running server.

    Raises:
        HostError: it does not answer.
    """
    system, timeline, postgres, size = server.query(
        "select system_identifier, timeline_id, split_part(current_setting('server_version'), ' ', 1), "
        "(select setting from pg_settings where name = 'wal_segment_size') "
        "from pg_control_system(), pg_control_checkpoint()"
    ).split("|")
    return Cluster(system, int(timeline), postgres, int(size))


def take(host: Host) -> Base:
    """Takes a base backup and returns its manifest.

    Raises:
        HostError: it is not complete; what it left in the bucket does not count.
    """
    store.require_mount()
    database = required(host.document.database, "database")
    about = cluster()
    rows, newest = counts(database.name)
    attempt, started = names.attempt(), manifests.now()
    folder = store.MOUNT / names.bases(about.system) / attempt
    # The WAL written meanwhile is read last, so it must be kept until then.
    with server.kept_log(), tempfile.TemporaryFile("w+", encoding="utf-8") as messages:
        written = store.write(folder / names.BASE, _stream(messages), compress=True)
        messages.seek(0)
        start, stop, timeline = parse_messages(messages.read())
    manifest = Base(
        attempt=attempt,
        object=names.BASE,
        sha256=written.sha256,
        bytes=written.bytes,
        plain_bytes=written.plain_bytes,
        environment=host.document.environment,
        postgres=about.postgres,
        system=about.system,
        timeline=timeline,
        segment_bytes=about.segment_bytes,
        start=start,
        stop=stop,
        started=started,
        finished=manifests.now(),
        rows=rows,
        newest_job=newest,
    )
    store.write(folder / names.MANIFEST, [manifests.encode(manifest)], compress=False)
    return manifest


def take_when_due(host: Host) -> Base | None:
    """Takes a base backup if last night's is missing; returns None if it is not.

    Raises:
        HostError: the backup failed.
    """
    about, bases = _taken()
    # Attempts' names sort by time.
    newest = max((base.attempt for base in bases if base.system == about.system), default="")
    attempts = store.listed(store.MOUNT / names.bases(about.system))
    failed = [began for attempt in attempts if attempt > newest and (began := names.began(attempt))]
    return take(host) if choose.is_due(_ends(about, bases), failed, datetime.now(UTC)) else None


def tell(host: Host) -> None:
    """Tells CloudWatch how far WAL archiving lags behind, and how old the newest base backup is, if any.

    Raises:
        HostError: the bucket or the server does not answer, or CloudWatch did not accept the figures.
    """
    ends = _ends(*_taken())
    figures.put(host, WalArchiveLagSeconds=float(archive_lag()))
    if ends:
        figures.put(host, BackupAgeSeconds=(datetime.now(UTC) - max(ends)).total_seconds())


def archive_lag() -> str:
    """Returns for how many seconds the oldest WAL segment has waited to be archived; 0: none waits."""
    return server.query(
        "select coalesce(ceil(extract(epoch from now() - min(modification))), 0) "
        "from pg_ls_archive_statusdir() where name like '%.ready'"
    )


def counts(database: str, *, container: str = server.CONTAINER) -> tuple[dict[str, int], int | None]:
    """Returns the number of rows by table, and the highest ID that a job ever had.

    Args:
        database: openQA's database.
        container: the server's container.
    """
    listed = ", ".join(f"'{name}'" for name in COUNTED)
    tables = server.query(
        f"select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' "  # noqa: S608
        f"and relname in ({listed}) order by 1",
        container=container,
        database=database,
    ).split()
    rows = {
        table: int(
            server.query(
                f"select count(*) from public.{table}",  # noqa: S608  # a name of COUNTED
                container=container,
                database=database,
                seconds=_SECONDS,
            )
        )
        for table in tables
    }
    newest = None
    if "jobs" in rows:
        newest = int(
            server.query(
                "select coalesce(max(id), 0) from public.jobs", container=container, database=database
            )
        )
    return rows, newest


def _taken() -> tuple[Cluster, list[Base]]:
    """Returns the running cluster, and all base backups."""
    store.require_mount()
    return cluster(), store.find_bases()


def _ends(about: Cluster, bases: Iterable[Base]) -> list[datetime]:
    """Returns when the base backups of a cluster's timeline ended."""
    return [base.end for base in bases if (base.system, base.timeline) == (about.system, about.timeline)]


@contextmanager
def alone(host: Host, what: str) -> Iterator[None]:
    """Keeps a second one of its kind from running.

    Args:
        host: this host.
        what: the kind, such as ``backup`` or ``restore``.

    Raises:
        HostError: another one is running.
    """
    host.layout.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (host.layout.runtime / f"{what}.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"another {what} runs on this host") from error
        yield


def parse_messages(text: str) -> tuple[str, str, int]:
    """Parses pg_basebackup's output: where the backup's WAL starts and stops, and its timeline.

    Raises:
        HostError: it does not tell.
    """
    start = re.search(r"log start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)", text)
    stop = re.search(r"log end point: ([0-9A-F]+/[0-9A-F]+)", text)
    if not (start and stop):
        raise HostError("pg_basebackup does not tell where its write-ahead log starts and ends")
    return start[1], stop[1], int(start[2])


def _stream(messages: IO[str]) -> Iterator[bytes]:
    command = [
        *("podman", "exec", "--env=LC_ALL=C", server.CONTAINER, "pg_basebackup"),
        *("--host=/run/postgresql", "--username=postgres", "--format=tar", "--wal-method=fetch"),
        *("--pgdata=-", "--checkpoint=fast", "--verbose"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process:
        try:
            if process.stdout is None:  # never: it is a pipe
                return
            while chunk := process.stdout.read(store.CHUNK):
                yield chunk
            if process.wait():
                messages.seek(0)
                lines = messages.read().strip().splitlines() or ["no message"]
                raise HostError(f"pg_basebackup: exit code {process.returncode}: {lines[-1]}")
        finally:
            process.kill()
