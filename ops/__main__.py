"""The operator's command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

import settings
from ops import backups, disk_images, fleets, restore, schedule, smoke
from ops.deployment import DeploymentError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``python -m ops``; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 refused or failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ops",
        description="Commands for a deployed openQA; those that ask AWS use the credentials of the shell.",
    )
    parser.add_argument(
        "--env", required=True, metavar="NAME", help="the environment: environments/NAME.toml"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=settings.ENVIRONMENTS,
        metavar="DIRECTORY",
        help="where its file is",
    )
    parser.add_argument(
        "--url",
        type=_url,
        help="where the web UI answers, if not at the address that the stack tells (a tunnel, say)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    backups.add_command(commands)
    fleets.add_command(commands)
    disk_images.add_command(commands)
    restore.add_command(commands)
    schedule.add_command(commands)
    smoke.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        environment = settings.load(options.env, options.environments)
        return int(options.run(environment, options))
    except (settings.SettingsError, DeploymentError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was begun in openQA or on a host goes on there", file=sys.stderr)
        return 130


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as https://localhost:8443")
    return text


if __name__ == "__main__":
    sys.exit(main())
