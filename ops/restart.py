"""``restart``: all services of the database's or the web UI's host started anew."""

from __future__ import annotations

import argparse
from typing import Any

from ops.hosts import StatefulHost
from settings import Environment


def add_command(commands: Any) -> None:
    """Adds ``restart`` to the command line."""
    parser = commands.add_parser(
        "restart",
        help="start all services of a host anew",
        description="Starts all services of the host anew, with today's secrets, and waits until it works. "
        "openQA is away meanwhile; jobs on workers run on.",
    )
    parser.add_argument("part", choices=("database", "webui"), help="which host")
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Starts a host's services anew.

    Args:
        environment: whose.
        options: ``part``.

    Returns:
        0.

    Raises:
        DeploymentError: refused or failed.
    """
    StatefulHost(environment, options.part).run("restart")
    return 0
