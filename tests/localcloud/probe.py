"""Who reaches whom: a TCP connection, and what becomes of it."""

from __future__ import annotations

# What bash says of it: refused is what a host answers that lets connections come, and has nothing there.
OPEN, REFUSED, SILENCE = 0, 1, 124
PROBE_SECONDS = 2


def probe(host: str, port: int) -> tuple[str, ...]:
    """The command that tries to connect; it exits with one of the above."""
    return ("timeout", str(PROBE_SECONDS), "bash", "-c", f": </dev/tcp/{host}/{port}")
