"""Asking openQA's database as openQA does: in the web UI's container, which has address and password."""

from __future__ import annotations

from userdata.host.commands import run

CONTAINER = "openqa-webui"


def sql(statement: str) -> str:
    """Returns what a statement prints: a line for each row, with tabs between its columns.

    Raises:
        HostError: there is no answer, or an error.
    """
    return run(
        [
            *("podman", "exec", "--interactive", "--env=PGSERVICEFILE=/etc/openqa/pg_service.conf"),
            *("--env=PGSERVICE=openqa", CONTAINER, "psql", "--no-psqlrc", "--quiet", "--tuples-only"),
            *("--no-align", "--field-separator=\t", "--no-password", "--set=ON_ERROR_STOP=1"),
        ],
        # As input: a list of ids may be longer than a command line.
        stdin=f"{statement};\n",
        seconds=600,
    )


def rows(query: str) -> list[list[str]]:
    """Returns the columns of each row.

    Raises:
        HostError: there is no answer, or an error.
    """
    return [line.split("\t") for line in sql(query).splitlines()]
