"""Moving openQA's database to another server, such as RDS: dump and load, all or nothing."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time

from userdata.host.backup import server
from userdata.host.backup.base import alone
from userdata.host.backup.recovery import POSTGRES, START_SECONDS, UNIT, Report
from userdata.host.commands import ended_in_order, run
from userdata.host.document import Database, required
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.secrets import write_private

# In the container; the host writes it next to PostgreSQL's configuration.
_CA = "move-ca.crt"
_SECONDS = 3600
_UNLIMITED = -1
_TARGET = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# The database's comment once it has moved: without it, the next start lets openQA in again
# (bin/reconcile.sh).
_MOVED = "moved to "
# Makes a query for each table's number of rows and each sequence's value.
_TABLES = """
select format(
  'select %L || ' || case c.relkind when 'S' then 'last_value' else 'count(*)' end || ' from %I.%I',
  n.nspname || '.' || c.relname || ': ', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'S') and n.nspname !~ '^(pg_|information_schema$)' order by n.nspname, c.relname
"""
_SESSIONS = (
    "select count(*) from pg_stat_activity where datname = '{database}' and backend_type = 'client backend' "
    "and pid <> pg_backend_pid()"
)


def move(host: Host, target: str, *, certificates: str, report: Report = print) -> None:
    """Copies the database to an empty one on another server and compares; this one then refuses openQA.

    On any failure this one lets openQA in again, and the other stays empty, unless it was the comparison that
    failed.

    Args:
        host: the database's host.
        target: the other server's name, as its certificate holds it, with ``:PORT`` where it is not 5432.
        certificates: those of the CAs that may have signed the other server's.
        report: takes the progress, a line at a time.

    Raises:
        HostError: openQA is still connected, the other is not empty, or is not complete in the end.
    """
    if not _TARGET.fullmatch(target):
        raise HostError(f"--to {target}: not a server; allowed: NAME or NAME:PORT")
    database = required(host.document.database, "database")
    write_private(host.layout.config / _CA, certificates, user=POSTGRES)
    began = time.monotonic()
    with alone(host, "move"), ended_in_order():
        # A killed restore leaves it stopped.
        run(["systemctl", "start", UNIT], seconds=START_SECONDS)
        if (comment := _comment(database)).startswith(_MOVED):
            raise HostError(f"the database was already {comment}; docs/backups.md tells how to go back")
        _limit_logins(database, 0)
        try:
            _move(host, database, target, report)
            server.query(f"comment on database \"{database.name}\" is '{_MOVED}{target}'")
        except BaseException:
            _limit_logins(database, _UNLIMITED)
            raise
    report(
        f"{target} has all of it, after {time.monotonic() - began:.0f} s; this database now refuses openQA"
    )


def _move(host: Host, database: Database, target: str, report: Report) -> None:
    if sessions := int(server.query(_SESSIONS.format(database=database.name))):
        raise HostError(f"{sessions} sessions use the database: stop openQA on the web UI's host first")
    if there := _ask(host, database, target, _TABLES):
        raise HostError(
            f"{target}: its database is not empty, it has {len(there.splitlines())} tables already"
        )
    size = server.query(f"select pg_size_pretty(pg_database_size('{database.name}'))")
    report(f"copying {size} to {target}")
    _copy(host, database, target)
    report("comparing every table and sequence")
    asked = server.query(_TABLES, database=database.name).splitlines()
    ours = [server.query(sql, database=database.name, seconds=_SECONDS) for sql in asked]
    theirs = _ask(host, database, target, ";\n".join(asked)).splitlines()
    if wrong := sorted(set(ours) ^ set(theirs)):
        raise HostError(f"{target}: differs: {', '.join(wrong)}")
    _ask(host, database, target, "analyze")


def _comment(database: Database) -> str:
    return server.query(
        f"select shobj_description(oid, 'pg_database') from pg_database where datname = '{database.name}'"  # noqa: S608
    )


def _limit_logins(database: Database, limit: int) -> None:
    """Limits the number of sessions of openQA's role; the administrator's do not count."""
    server.query(f'alter database "{database.name}" connection limit {limit}')


def _copy(host: Host, database: Database, target: str) -> None:
    dump = [
        *("podman", "exec", server.CONTAINER, "pg_dump", "--host=/run/postgresql", "--username=postgres"),
        *("--no-owner", "--no-privileges", "--no-comments", f"--dbname={database.name}"),
    ]
    with tempfile.TemporaryFile() as said:
        with (
            subprocess.Popen(dump, stdout=subprocess.PIPE, stderr=said) as source,
            subprocess.Popen(
                _psql(database, target),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
            ) as sink,
        ):
            if source.stdout is None or sink.stdin is None:  # never: they are pipes
                return
            try:
                sink.stdin.write(f"{_password(host)}\nbegin;\n".encode())
                while chunk := source.stdout.read(1 << 20):
                    sink.stdin.write(chunk)
                # Only now: if the input ends earlier, for whatever reason, the server rolls everything back.
                if not source.wait():
                    sink.stdin.write(b"commit;\n")
                sink.stdin.close()
            except BrokenPipeError:
                source.kill()
        if source.returncode or sink.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["it broke off"]
            raise HostError(f"{target}: not copied: {next((s for s in lines if 'ERROR' in s), lines[-1])}")


def _ask(host: Host, database: Database, target: str, sql: str) -> str:
    """Returns the other server's answer, for the same role and database."""
    return run(
        _psql(database, target, "--tuples-only", "--no-align"),
        stdin=f"{_password(host)}\n{sql};\n",
        seconds=_SECONDS,
    ).rstrip("\n")


def _psql(database: Database, target: str, *options: str) -> list[str]:
    name, _, port = target.partition(":")
    return [
        *("podman", "exec", "--interactive", server.CONTAINER, "/opt/bin/elsewhere.sh"),
        *(name, port or "5432", database.user, database.name, f"/etc/openqa-on-aws/{_CA}", *options),
    ]


def _password(host: Host) -> str:
    return (host.layout.secrets / "database").read_text(encoding="ascii")
