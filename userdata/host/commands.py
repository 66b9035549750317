"""Running programs, and ending in order when told to."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from userdata.host.errors import HostError

# The last is a terminal's Ctrl-C.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class CommandError(HostError):
    """A program failed.

    Args:
        command: the program, and how it ended.
        reason: its last line of output, or why it did not start or end.
    """

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"{command}: {reason}")
        self.reason = reason


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Makes a signal raise SystemExit, so that cleanup code runs; a second signal is ignored.

    A shell that ends with its session sends one, as does whoever stops the unit, or an operator. Ignoring the
    second one also spares the programs that clean up.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    found = {number: signal.getsignal(number) for number in _ENDING}
    before = {
        number: handler
        for number, handler in found.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(arguments: Sequence[str], *, stdin: str | None = None, seconds: float = 300) -> str:
    """Runs a program and returns what it wrote to its standard output.

    Args:
        arguments: the program and its arguments; never secrets, as every user can read them.
        stdin: what the program reads; the place for secrets.
        seconds: when to give up.

    Raises:
        CommandError: the program is missing, failed or took too long; with its last line of output.
    """
    try:
        result = subprocess.run(
            list(arguments), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise CommandError(arguments[0], str(error.strerror)) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(" ".join(arguments), f"no end after {seconds:.0f} s") from error
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()
        raise CommandError(f"{' '.join(arguments)}: exit code {result.returncode}", lines[-1])
    return result.stdout
