"""``content``: brings tests, needles and job templates up to date now, on the web UI's host."""

from __future__ import annotations

import argparse
from typing import Any

from ops.deployment import DeploymentError
from ops.hosts import StatefulHost
from settings import Environment


def add_command(commands: Any) -> None:
    """Adds ``content`` to the command line."""
    parser = commands.add_parser(
        "content",
        help="bring tests, needles and job templates up to date now",
        description="Has the web UI's host fetch from the repositories now, as its timer does every "
        "[content] refresh_minutes, and shows its output. If anything fails, openQA and the workers keep "
        "what they have.",
    )
    parser.add_argument(
        "--rewritten",
        action="store_true",
        help="accept a rewritten history: one that does not follow from the commit in use",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="reload all job templates, even those that openQA should already have",
    )
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Brings the content up to date.

    Args:
        environment: whose.
        options: ``rewritten`` and ``again``.

    Returns:
        0.

    Raises:
        DeploymentError: there is no repository, or the host refused or failed.
    """
    if not environment.content.tests:
        raise DeploymentError(
            f"{environment.name} follows no repository: its [content] needs tests, or a profile with tests"
        )
    given = {"Rewritten": options.rewritten, "Again": options.again}
    parameters = {name: f"--{name.lower()}" for name, wanted in given.items() if wanted}
    StatefulHost(environment, "webui").run("content", parameters)
    return 0
