"""A cloud's way out to the internet: slirp4netns carries what leaves it as connections of this machine's own.

Nothing of this machine's network changes, nothing comes in this way, and it ends with the cloud.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path

LINK = "internet"  # the interface in the cloud's namespace
# slirp4netns's own resolver, in QEMU's user network, which no VPC may overlap.
RESOLVER = IPv4Address("10.0.2.3")

_PROGRAM = "slirp4netns"
_SECONDS = 10


class InternetError(Exception):
    """The way out could not be made; the text is one sentence."""


def connect(pid: int, *, gone: int) -> None:
    """Give a process's network namespace a way out, and wait until it is there.

    Args:
        pid: The process; it may be about to enter its namespace.
        gone: The reading end of a pipe whose writing end the cloud holds: once that closes, the way out ends.

    Raises:
        InternetError: slirp4netns is not installed, or did not start.
    """
    if not shutil.which(_PROGRAM):
        raise InternetError(
            "The way out to the internet needs a package that is not installed: apt-get install slirp4netns."
        )
    _wait_for_namespace(pid)
    ready, telling = os.pipe()
    with os.fdopen(ready, "rb") as answer:
        subprocess.Popen(
            [
                *(_PROGRAM, "--configure", "--disable-host-loopback", "--mtu=1500"),
                *(f"--exit-fd={gone}", f"--ready-fd={telling}", str(pid), LINK),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(gone, telling),
        )
        os.close(telling)
        if not answer.read(1):
            raise InternetError("slirp4netns ended before it had made a way out to the internet.")


def _wait_for_namespace(pid: int) -> None:
    own = Path("/proc/self/ns/net").stat()
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            if not os.path.samestat(own, Path(f"/proc/{pid}/ns/net").stat()):
                return
        except FileNotFoundError:
            break
        time.sleep(0.01)
    raise InternetError("The cloud ended before it had a network.")
