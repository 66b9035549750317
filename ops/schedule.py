"""``schedule``: schedules a build by hand, and shows what became of it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from ops.deployment import DeploymentError, OpenQa, connect, understood
from ops.hosts import StatefulHost
from settings import Environment
from settings.messages import COMPOSE, UPDATE
from userdata.messages.openqa import posted
from userdata.messages.rules import IDENTITY

_SETTING = re.compile(r"([A-Z_][A-Z0-9_]*)=(.*)")
# All but BUILD, which openQA does not require.
_NEEDED = IDENTITY[:-1]
_ARTICLE = {"compose": "a compose", "update": "an update"}
_WHAT = {
    "compose": "the https:// address of a compose, without spaces or a query",
    "update": "the id of an update, such as FEDORA-2026-0123456789",
}
# What the Systems Manager document allows.
_PATTERN = {"compose": re.compile(COMPOSE), "update": re.compile(UPDATE)}


def add_command(commands: Any) -> None:
    """Adds ``schedule`` to the command line."""
    parser = commands.add_parser("schedule", help="schedule a build by hand")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    iso = actions.add_parser(
        "iso",
        help="schedule what the job templates have for a product",
        description="Calls openQA's `isos post` and shows the jobs, and why others were not scheduled. "
        "Exits with 0 only if there are jobs and nothing failed.",
    )
    iso.add_argument(
        "settings",
        nargs="+",
        metavar="KEY=VALUE",
        help=f"openQA's settings; {', '.join(_NEEDED)} must be among them, and BUILD should be",
    )
    iso.set_defaults(run=run_iso)
    for kind, what in (("compose", "URL"), ("update", "ID")):
        action = actions.add_parser(
            kind,
            help=f"schedule {_ARTICLE[kind]} of Fedora's, as its messages would",
            description="Runs fedora_openqa on the web UI's host, and shows its output.",
        )
        action.add_argument("what", metavar=what, help=_WHAT[kind])
        action.set_defaults(run=run_fedora, kind=kind)


def run_iso(environment: Environment, options: argparse.Namespace) -> int:
    """Schedules a build and shows its jobs.

    Args:
        environment: where.
        options: ``url`` (or None) and ``settings``.

    Returns:
        0 if there are jobs and nothing failed, else 1.

    Raises:
        DeploymentError: the settings are invalid, or openQA does not answer or refuses.
    """
    settings = parse(options.settings)
    openqa = connect(environment, url=options.url)
    with understood(openqa):
        return show(openqa, openqa.request("POST", "isos", data=settings))


def run_fedora(environment: Environment, options: argparse.Namespace) -> int:
    """Schedules a compose or an update of Fedora's; returns 0.

    Args:
        environment: where.
        options: ``kind`` and ``what``.

    Raises:
        DeploymentError: ``what`` is invalid, the environment has no fedora_openqa, or fedora_openqa failed.
    """
    schedule = environment.schedule
    if schedule is None or schedule.program != "fedora_openqa":
        raise DeploymentError(
            f"{environment.name} does not schedule with fedora_openqa: "
            'its [schedule] needs program = "fedora_openqa"'
        )
    if not _PATTERN[options.kind].fullmatch(options.what):
        raise DeploymentError(
            f"{options.what!r} is not {_ARTICLE[options.kind]}; allowed: {_WHAT[options.kind]}"
        )
    StatefulHost(environment, "webui").run("schedule", {"Kind": options.kind, "What": options.what})
    return 0


def parse(words: Sequence[str]) -> dict[str, str]:
    """Reads settings from a command line.

    Raises:
        DeploymentError: a word is not a setting, or a setting is missing or given twice.
    """
    settings: dict[str, str] = {}
    for word in words:
        found = _SETTING.fullmatch(word)
        if found is None:
            raise DeploymentError(f"{word!r} is not a setting; allowed: KEY=VALUE with KEY in capitals")
        if found[1] in settings:
            raise DeploymentError(f"{found[1]} is given twice; allowed: each setting once")
        settings[found[1]] = found[2]
    if missing := [name for name in _NEEDED if not settings.get(name)]:
        raise DeploymentError(
            f"{', '.join(missing)} missing: openQA identifies a product by {', '.join(_NEEDED)}"
        )
    return settings


def show(openqa: OpenQa, answer: Any) -> int:
    """Shows what came of a build.

    Args:
        openqa: the API.
        answer: openQA's answer to ``isos post``.

    Returns:
        0 if there are jobs and nothing failed, else 1.
    """
    done = posted(answer)
    for number in done.ids:
        job = openqa.request("GET", f"jobs/{number}")["job"]
        print(f"  {openqa.url}/tests/{number}  {job['name']}  {job['settings'].get('WORKER_CLASS', '')}")
    for failure in filter(None, (*done.failed, done.error)):
        print(f"  not scheduled: {failure}")
    if done.ids:
        print(f"Scheduled {len(done.ids)} jobs; {len(done.failed)} could not be scheduled.")
    else:
        print(
            "Scheduled no jobs: no job template matches this product, or the errors above prevented them all."
        )
    return 0 if done.ids and not (done.failed or done.error) else 1
