"""Runs commands on this machine, or in throw-away containers of systemd-nspawn.

Each runs in namespaces that end with this process, however it ends: no mount and no process stays behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from images import cache
from images.errors import BuildError

_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
# How errors of apt, dnf, git and podman begin.
_COMPLAINT = re.compile(r"(E|[Ee]rror|[Ff]atal|No match for argument): ")
# What dpkg and others say first, while the errors that follow do not mention it.
_FULL = re.compile("no space left on device", re.IGNORECASE)
_ENTER = Path(__file__).parent / "enter.sh"


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of this machine, shown inside a container."""

    source: Path
    target: str
    writable: bool = False


def run(root: Path, command: Sequence[str], *, binds: Iterable[Bind] = (), log: Path | None = None) -> None:
    """Runs a command as root in a throw-away container over a root, which stays as it was.

    It sees this process's network, has all capabilities and an empty ``/run``, and no service manager.

    Args:
        root: the root file system.
        command: the command and its arguments.
        binds: what it sees of this machine.
        log: the file to append its output to; None passes it to standard error.

    Raises:
        BuildError: the command failed.
    """
    with cache.workspace() as folder:
        _enter(root, folder, folder.name, command, binds=binds, log=log)


def change(
    root: Path, command: Sequence[str], *, name: str, binds: Iterable[Bind] = (), log: Path | None = None
) -> None:
    """Runs a command as :func:`run` does, but on the root itself.

    Args:
        root: the root file system, inside a workspace.
        command: the command and its arguments.
        name: the workspace's name.
        binds: what it sees of this machine.
        log: the file to append its output to; None passes it to standard error.

    Raises:
        BuildError: the command failed.
    """
    _enter(root, "-", name, command, binds=binds, log=log)


def execute(command: Sequence[str], *, log: Path | None = None) -> None:
    """Runs a command on this machine, in namespaces of its own.

    Args:
        command: the command and its arguments.
        log: the file to append its output to; None passes it to standard error.

    Raises:
        BuildError: it is not installed, or failed.
    """
    if os.geteuid() != 0:
        raise BuildError("building needs root: run it with sudo")
    with _append_to(log) as output:
        begun = output.tell() if log else 0
        try:
            done = subprocess.run(
                [*_NAMESPACES, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=0o022,  # what is built must not depend on who builds it
                check=False,
            )
        except FileNotFoundError as error:
            raise BuildError(f"{error.filename} is not installed on this machine") from None
    if done.returncode:
        where = f"{_reason(log, begun)}; its output is in {log}" if log else ""
        raise BuildError(f"{_short(command)} ended with {done.returncode}{where}")


def log_path(name: str) -> Path:
    """Returns the file for the output of building something."""
    return cache.root() / "logs" / f"{name}.log"


def _enter(
    root: Path,
    scratch: Path | str,
    name: str,
    command: Sequence[str],
    *,
    binds: Iterable[Bind],
    log: Path | None,
) -> None:
    options = [f"--bind{'' if bind.writable else '-ro'}={bind.source}:{bind.target}" for bind in binds]
    execute([str(_ENTER), str(root), str(scratch), name, *options, "--", *command], log=log)


def _short(command: Sequence[str]) -> str:
    """Returns what identifies a command: what runs in the container, not how that is entered."""
    inner = command[command.index("--") + 1 :] if "--" in command else command
    return shlex.join(inner[:2])


def _reason(log: Path, begun: int) -> str:
    """Returns the first error that a command reported, if any: the later ones follow from it."""
    lines = log.read_bytes()[begun:].decode(errors="replace").splitlines()
    told = [line for line in lines if _FULL.search(line)] or [
        line for line in lines if _COMPLAINT.match(line)
    ]
    return f": {told[0].strip()}" if told else ""


@contextlib.contextmanager
def _append_to(log: Path | None) -> Iterator[TextIO]:
    if log is None:
        yield sys.stderr
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        yield output
