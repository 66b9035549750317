"""Queries to a PostgreSQL that runs in a container."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from userdata.host.commands import run
from userdata.host.errors import HostError

CONTAINER = "openqa-database"
# psql, printing nothing but the results; columns are separated by "|".
_PSQL = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
_CONNECTION = ("--host=/run/postgresql", "--username=postgres")
# A slot of the session: it disappears with it, however that ends.
_SLOT = (
    "select 'kept' from pg_create_physical_replication_slot("
    "'base_backup_' || pg_backend_pid(), immediately_reserve => true, temporary => true)"
)


def query(sql: str, *, container: str = CONTAINER, database: str = "postgres", seconds: float = 60) -> str:
    """Returns what a query prints, without trailing newlines; columns are separated by ``|``.

    Args:
        sql: one or more statements; never a secret.
        container: the container.
        database: the database.
        seconds: when to give up.

    Raises:
        HostError: there is no answer, or an error.
    """
    return run(
        [
            *("podman", "exec", container, *_PSQL, *_CONNECTION),
            *(f"--dbname={database}", f"--command={sql}"),
        ],
        seconds=seconds,
    ).rstrip("\n")


@contextmanager
def kept_log() -> Iterator[None]:
    """Makes the server keep all write-ahead log written from now on.

    Raises:
        HostError: it does not answer.
    """
    command = ["podman", "exec", "--interactive", CONTAINER, *_PSQL, *_CONNECTION]
    # Then psql reads its input, which ends with this context.
    command += [f"--command={_SLOT}", "--file=-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        if session.stdout is None or session.stdout.readline() != "kept\n":
            raise HostError("PostgreSQL refuses to keep its log for a base backup")
        yield
