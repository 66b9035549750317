"""``restart``: restarts all services of the database's or the web UI's host."""

from __future__ import annotations

import argparse
from typing import Any

from ops.hosts import StatefulHost
from settings import Environment


def add_command(commands: Any) -> None:
    """Adds ``restart`` to the command line."""
    parser = commands.add_parser(
        "restart",
        help="restart all services of a host",
        description="Restarts all services of the host, with the current secrets, and waits until they work. "
        "openQA is down meanwhile; jobs on workers run on.",
    )
    parser.add_argument("part", choices=("database", "webui"), help="which host")
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Restarts a host's services.

    Args:
        environment: whose.
        options: ``part``.

    Returns:
        0.

    Raises:
        DeploymentError: the host or AWS refused or failed.
    """
    StatefulHost(environment, options.part).run("restart")
    return 0
