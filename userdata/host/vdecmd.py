#!/usr/bin/python3
"""One command to a VDE switch: what os-autoinst calls as ``vdecmd -s SOCKET COMMAND ARGUMENT…``.

Debian packages only an example of it. Stands alone, because it is mounted into worker containers. It is no
error if all is as it should be already: os-autoinst removes ports and creates VLANs without asking. It also
moves slirpvde's port into the VLAN when slirpvde may not have connected yet: such a port is created first.
"""

from __future__ import annotations

import errno
import re
import socket
import sys
from collections.abc import Callable

PROMPT = b"vde$ "
SECONDS = 10.0
# The switch's codes: 1000 plus an errno.
DONE, BASE = 1000, 1000
_MISSING, _THERE = BASE + errno.ENXIO, BASE + errno.EEXIST
FINE = {"port/remove": _MISSING, "port/create": _THERE, "vlan/create": _THERE}

_STATUS = re.compile(r"^(1\d{3}) .*$", re.MULTILINE | re.ASCII)


def perform(command: list[str], ask: Callable[[str], str]) -> str | None:
    """Performs a command; returns what went wrong, or None.

    Args:
        command: the command's path and its arguments.
        ask: sends a line to the switch and returns its answer.
    """
    path, *arguments = command
    answer = ask(" ".join(command))
    code = _code(answer)
    if path == "port/setvlan" and code == _MISSING:
        ask(f"port/create {arguments[0]}")
        answer = ask(" ".join(command))
        code = _code(answer)
    if code in (DONE, FINE.get(path)):
        return None
    said = _STATUS.search(answer)
    return f"{' '.join(command)}: {said[0] if said else answer.strip() or 'no answer'}"


def _code(answer: str) -> int | None:
    found = _STATUS.search(answer)
    return int(found[1]) if found else None


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit code."""
    if len(arguments) < 3 or arguments[0] != "-s":
        print("usage: vdecmd -s SOCKET COMMAND ARGUMENT…", file=sys.stderr)
        return 2
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)

        def answer() -> str:
            received = b""
            while not received.endswith(PROMPT):
                part = connection.recv(65536)
                if not part:
                    break
                received += part
            return received.removesuffix(PROMPT).decode()

        def ask(line: str) -> str:
            connection.sendall(f"{line}\n".encode())
            return answer()

        try:
            connection.connect(arguments[1])
            answer()
            wrong = perform(arguments[2:], ask)
        except OSError as error:
            wrong = f"{arguments[1]}: {error}"
    if wrong:
        print(f"vdecmd: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
