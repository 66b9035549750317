"""Asking a PostgreSQL that runs in a container."""

from __future__ import annotations

from userdata.host.commands import run

CONTAINER = "openqa-database"


def query(sql: str, *, container: str = CONTAINER, database: str = "postgres", seconds: float = 60) -> str:
    """Returns what a query prints, without the last line's end; columns stand apart by ``|``.

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
            *("podman", "exec", container, "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
            *("--set=ON_ERROR_STOP=1", "--host=/run/postgresql", "--username=postgres"),
            *(f"--dbname={database}", f"--command={sql}"),
        ],
        seconds=seconds,
    ).rstrip("\n")
