"""Root file systems, and throw-away containers that run a command in one.

Everything runs in namespaces of its own that end with this process, however it ends: no mount and no
process stays behind.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from images import cache, recipe

# What Debian's own cloud image brings, as far as it matters to a host (no kernel and boot loader).
BASE_PACKAGES = (
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "less",
    "libnss-resolve",
    "libpam-systemd",
    "openssl",
    "procps",
    "python3",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
)

_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
)

# The machine's name would be every host's; systemd-resolved's place for the resolver is where run() puts it.
_FINISH_ROOT = 'rm -f "$1/etc/hostname"; ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"'


class BuildError(Exception):
    """Something could not be built; the message is one sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of this machine shown inside a container."""

    source: Path
    target: str
    writable: bool = False


def base_root() -> Path:
    """Returns a Debian root that stands in for its cloud image, made on first use (about a minute)."""
    return debian_root("base", packages=BASE_PACKAGES)


def golden_root(os: str = "debian") -> Path:
    """Returns the base root after ``userdata/install.sh``, packages and container images included.

    Args:
        os: the hosts' operating system. Only ``debian`` has a base root.

    Raises:
        BuildError: there is no base root for the system, or the installation failed.
    """
    if os != "debian":
        raise BuildError(f"no golden root for {os!r}: local instances run debian")
    from images import build  # build needs run() and roots from here

    return build.golden_root()


def debian_root(name: str, *, packages: Iterable[str], variant: str = "apt") -> Path:
    """Returns a Debian root with the given packages, made on first use.

    Args:
        name: what it is for, part of its folder's name.
        packages: Debian packages, installed without recommendations.
        variant: mmdebstrap's variant: how much besides them.

    Raises:
        BuildError: mmdebstrap failed.
    """
    suite = recipe.DISTRIBUTIONS["debian"]
    content = (suite, variant, recipe.PACKAGES_AS_OF, _FINISH_ROOT, *sorted(packages))
    final = root_path(name, recipe.digest(text.encode() for text in content))
    if final.exists():
        return final
    with cache.workspace() as folder:
        command = ["mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}"]
        command += ["--format=directory", f"--customize-hook={_FINISH_ROOT}", suite, str(folder / "root")]
        execute([*_NAMESPACES, *command], log=log_path(f"root-{name}"))
        publish(folder / "root", final)
    return final


def derived_root(
    name: str, base: Path, command: Sequence[str], *, inputs: Iterable[str], binds: Iterable[Bind]
) -> Path:
    """Returns a copy of a root after a command changed it, made on first use.

    Args:
        name: what it is for, part of its folder's name.
        base: the root to start from, one of this module's.
        command: what changes it.
        inputs: all else that decides the outcome; with base and command, its identity.
        binds: what the command sees of this machine.

    Raises:
        BuildError: the command failed.
    """
    final = root_path(name, recipe.digest(text.encode() for text in (base.name, *command, *inputs)))
    if final.exists():
        return final
    with cache.workspace() as folder:
        copy = folder / "root"
        execute(["cp", "--archive", "--reflink=auto", str(base), str(copy)], log=log_path(f"root-{name}"))
        _enter(copy, "-", folder.name, command, binds=binds, log=log_path(f"root-{name}"))
        publish(copy, final)
    return final


def run(root: Path, command: Sequence[str], *, binds: Iterable[Bind] = (), log: Path | None = None) -> None:
    """Runs a command as root in a throw-away container over a root, which stays as it was.

    It sees this process's network, all capabilities and an empty ``/run``, but no service manager.

    Args:
        root: the root file system.
        command: the command and its arguments.
        binds: what it sees of this machine.
        log: where its output is appended to; None passes it to this process's standard error.

    Raises:
        BuildError: the command did not end with 0.
    """
    with cache.workspace() as folder:
        _enter(root, str(folder), folder.name, command, binds=binds, log=log)


def execute(command: Sequence[str], *, log: Path | None) -> None:
    """Runs a command on this machine; see :func:`run` for the log and the error."""
    with _append_to(log) as output:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
        except FileNotFoundError as error:
            raise BuildError(f"{error.filename} is not installed on this machine") from None
    if done.returncode:
        where = f"; its output is in {log}" if log else ""
        raise BuildError(f"{shlex.join(command[-3:])} ended with {done.returncode}{where}")


@contextlib.contextmanager
def _append_to(log: Path | None) -> Iterator[TextIO]:
    if log is None:
        yield sys.stderr
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        yield output


def root_path(name: str, hash_: str) -> Path:
    """Returns the folder of a root in the cache."""
    return cache.root() / "roots" / f"{name}-{hash_}"


def log_path(name: str) -> Path:
    """Returns the file that the output of building something goes to."""
    return cache.root() / "logs" / f"{name}.log"


def publish(built: Path, final: Path) -> None:
    """Moves what is complete to its final name, unless someone else was first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        built.rename(final)


def _enter(
    root: Path, scratch: str, name: str, command: Sequence[str], *, binds: Iterable[Bind], log: Path | None
) -> None:
    if os.geteuid() != 0:
        raise BuildError("building needs root: run it with sudo")
    options = [f"--bind{'' if b.writable else '-ro'}={b.source}:{b.target}" for b in binds]
    enter = str(Path(__file__).parent / "enter.sh")
    execute([*_NAMESPACES, enter, str(root), scratch, name, *options, *command], log=log)
