"""The users whose folders are on the hosts' volumes, and how root works in them.

Anything in another user's folder may turn into a link at any moment. So root writes only where root alone
may, and elsewhere acts as that user: a link then reaches no further than whoever made it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath

from userdata.host.commands import run
from userdata.host.errors import HostError

# Their names are the container images' (userdata/containers/base).
OPENQA = 601
WORKER = 602
DATABASE = 603
# Without a name: what schedules builds by messages and by the clock (roles/messages, roles/timetable).
MESSAGES = 604
# Without a name: owns the repositories of tests and their releases, and nothing else.
TESTS = 605
# Without a name: owns the administrator's key. Whoever posts jobs can make openQA show what its own user
# may read: a job says where its tests are, a build names a file.
ADMINISTRATOR = 606


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Acts with the rights of a user only; a process that does not run as root stays as it is.

    Raises:
        HostError: the system refused an operation.
    """
    root, groups = os.geteuid() == 0, os.getgroups()
    if root:
        os.setgroups([])
        os.setegid(user)
        os.seteuid(user)
    try:
        yield
    except OSError as error:
        raise HostError(str(error)) from error
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def make_folder(base: Path, name: str, *, user: int, mode: int) -> None:
    """Creates a folder for a user, or hands over an existing one; replaces links on its path.

    Args:
        base: a folder in which root alone writes; created if missing.
        name: the folder's path below that one.
        user: its owner.
        mode: its permissions.

    Raises:
        HostError: something else is in its place.
    """
    base.mkdir(parents=True, exist_ok=True)
    options = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        with ExitStack() as opened:
            above = os.open(base, options)
            opened.callback(os.close, above)
            for part in PurePath(name).parts:
                _make(part, above)
                above = os.open(part, options, dir_fd=above)
                opened.callback(os.close, above)
            os.fchmod(above, mode)
            if os.geteuid() == 0:
                os.fchown(above, user, user)
    except OSError as error:
        raise HostError(f"{base / name}: {error.strerror}") from error


def give(path: Path, user: int) -> None:
    """Makes a user the owner of a file, or of a folder and all in it: of links, not of their targets."""
    if os.geteuid() == 0:
        run(["chown", "--no-dereference", "--recursive", f"{user}:{user}", str(path)])


def _make(name: str, above: int) -> None:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            os.mkdir(name, dir_fd=above)
