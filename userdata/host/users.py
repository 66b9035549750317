"""The users whose folders are on the hosts' volumes, and how root works in them.

What is in a folder of another's may become a link at any moment. So root writes where root alone may, and
acts as that user elsewhere: a link then leads no further than who made it gets.
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
# Without a name: of what schedules builds by messages and by the clock (roles/messages, roles/timetable).
MESSAGES = 604
# Without a name: of the repositories of tests and their releases. It owns nothing else.
TESTS = 605
# Without a name: of the administrator's key. Whoever posts jobs can have openQA show what its own user
# may read: a job says where its tests are, a build names a file.
ADMINISTRATOR = 606


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Does what a user may, and no more; a process that is not root's goes on as it is.

    Raises:
        HostError: the system refused something.
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
    """Makes a folder, or gives a user the one that is there; follows no link, and replaces those on its way.

    Args:
        base: a folder in which root alone writes; made where missing.
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
    """Gives a user a file, or a folder with all in it: links themselves, not what they lead to."""
    if os.geteuid() == 0:
        run(["chown", "--no-dereference", "--recursive", f"{user}:{user}", str(path)])


def _make(name: str, above: int) -> None:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            os.mkdir(name, dir_fd=above)
