"""``restore`` and ``reconcile``: restores the database on its host, then brings openQA in line with it."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.simulate.options import whole
from ops.deployment import DeploymentError
from ops.hosts import StatefulHost
from settings import Environment
from userdata.host.backup import choose
from userdata.host.errors import HostError

# A web UI host that found no database terminates, and the next one takes its place.
_WEBUI_SECONDS = 1200
# The Systems Manager document allows no more digits.
LAST_TIMELINE = 999_999_999


def add_command(commands: Any) -> None:
    """Adds ``restore`` and ``reconcile`` to the command line."""
    parser = commands.add_parser(
        "restore",
        help="restore the database from the backup bucket",
        description="Restores the database on its host, then does what 'reconcile' does.",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="latest|TIME",
        help="the newest state there is, or a time: 2026-01-31T03:00:00Z",
    )
    parser.add_argument(
        "--timeline",
        type=whole(1, LAST_TIMELINE),
        help="the timeline to follow (default: the one written to last)",
    )
    parser.add_argument("--yes-overwrite", action="store_true", help="replace an existing database")
    parser.add_argument(
        "--database-only", action="store_true", help="leave openQA alone (if there is no web UI host yet)"
    )
    parser.set_defaults(run=run)
    reconciling = commands.add_parser(
        "reconcile",
        help="bring openQA in line with a restored database",
        description="On the web UI's host: restarts openQA with the current API key, schedules again the "
        "jobs that were running, and marks those whose results or assets are gone.",
    )
    reconciling.set_defaults(run=reconcile)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Restores the database.

    Args:
        environment: whose.
        options: ``to``, ``timeline``, ``yes_overwrite`` and ``database_only``.

    Returns:
        0.

    Raises:
        DeploymentError: the host or AWS refused or failed.
    """
    try:
        target = choose.parse_target(options.to, timeline=options.timeline)
    except HostError as error:
        raise DeploymentError(str(error)) from error
    parameters = {
        "To": target.time.isoformat() if target.time else "latest",
        "Timeline": f"--timeline={target.timeline}" if target.timeline is not None else "",
        "Overwrite": "--yes-overwrite" if options.yes_overwrite else "",
    }
    StatefulHost(environment, "database").run("restore", parameters)
    return 0 if options.database_only else reconcile(environment, options)


def reconcile(environment: Environment, options: argparse.Namespace) -> int:
    """Brings openQA in line with the database.

    Args:
        environment: whose.
        options: none are used.

    Returns:
        0.

    Raises:
        DeploymentError: the host or AWS refused or failed.
    """
    StatefulHost(environment, "webui").run("reconcile", wait_seconds=_WEBUI_SECONDS)
    return 0
