"""The operator's command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import settings
from ops import (
    backups,
    content,
    disk_images,
    fleets,
    remove,
    restart,
    restore,
    schedule,
    secrets,
    smoke,
    status,
)
from ops.deployment import DeploymentError


class _Parser(argparse.ArgumentParser):
    """Parses the command line or one command; these options may come before or after any command."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # A command's own defaults would override options given before it.
        self.add_argument(
            "--env",
            default=argparse.SUPPRESS,
            metavar="NAME",
            help="the environment, environments/NAME.toml; required",
        )
        self.add_argument(
            "--environments",
            type=Path,
            default=argparse.SUPPRESS,
            metavar="DIRECTORY",
            help="the folder of the environment's file",
        )
        self.add_argument(
            "--url",
            type=_url,
            default=argparse.SUPPRESS,
            help="the web UI's address, if not the one in the stack's outputs (for a tunnel, say)",
        )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``python -m ops``; None: the process's own.

    Returns:
        The exit code: 0 for success, 1 if refused or failed.
    """
    parser = _Parser(
        prog="python -m ops",
        description="Commands for a deployed openQA; those that use AWS take the shell's credentials.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    backups.add_command(commands)
    content.add_command(commands)
    fleets.add_command(commands)
    disk_images.add_command(commands)
    remove.add_command(commands)
    restart.add_command(commands)
    restore.add_command(commands)
    schedule.add_command(commands)
    secrets.add_command(commands)
    smoke.add_command(commands)
    status.add_command(commands)
    given = argparse.Namespace(env=None, environments=settings.ENVIRONMENTS, url=None)
    options = parser.parse_args(arguments, given)
    if options.env is None:
        parser.error("the following arguments are required: --env")
    try:
        environment = settings.load(options.env, options.environments)
        return int(options.run(environment, options))
    except (settings.SettingsError, DeploymentError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: whatever was started in openQA or on a host continues there", file=sys.stderr)
        return 130


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as https://localhost:8443")
    return text


if __name__ == "__main__":
    sys.exit(main())
