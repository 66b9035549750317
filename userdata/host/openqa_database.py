"""Queries to openQA's database, from the web UI's container, which has address and password."""

from __future__ import annotations

from userdata.host.commands import run

CONTAINER = "openqa-webui"


def sql(statement: str) -> str:
    """Returns what a statement prints: a line per row, with tabs between columns.

    Raises:
        HostError: there is no answer, or an error.
    """
    return run(
        [
            *("podman", "exec", "--interactive", "--env=PGSERVICEFILE=/etc/openqa/pg_service.conf"),
            *("--env=PGSERVICE=openqa", CONTAINER, "psql", "--no-psqlrc", "--quiet", "--tuples-only"),
            *("--no-align", "--field-separator=\t", "--no-password", "--set=ON_ERROR_STOP=1"),
        ],
        # As input: a list of IDs may exceed the length of a command line.
        stdin=f"{statement};\n",
        seconds=600,
    )


def rows(query: str) -> list[list[str]]:
    """Returns the columns of each row.

    Raises:
        HostError: there is no answer, or an error.
    """
    return [line.split("\t") for line in sql(query).splitlines()]
