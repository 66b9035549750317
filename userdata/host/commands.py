"""Running programs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from userdata.host.errors import HostError


def run(arguments: Sequence[str], *, stdin: str | None = None, seconds: float = 300) -> str:
    """Runs a program and returns what it wrote to its standard output.

    Args:
        arguments: the program and its arguments; never a secret, as every user can read them.
        stdin: what the program reads; the place for secrets.
        seconds: when to give up.

    Raises:
        HostError: the program is missing, failed or took too long; with its last line of error.
    """
    try:
        result = subprocess.run(
            list(arguments), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise HostError(f"{arguments[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{' '.join(arguments)}: no end after {seconds:.0f} s") from error
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()
        raise HostError(f"{' '.join(arguments)}: exit code {result.returncode}: {lines[-1]}")
    return result.stdout
