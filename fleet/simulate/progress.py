"""How far a long run is, told on standard error, and its end. What it finds out has standard output alone."""

from __future__ import annotations

import signal
import sys
import time

from fleet.simulate.workload import DAY

EVERY_SECONDS = 5.0


def end_by_signals() -> None:
    """Has Ctrl-C, or a reader that wants no more, end the program at once: it leaves nothing behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


class Progress:
    """Tells every few seconds which day a run has come to; what is done sooner tells nothing.

    Args:
        what: What runs.
        days: For how many days jobs are scheduled; what waits then may take longer.
    """

    def __init__(self, what: str, days: float) -> None:
        self._what, self._days = what, days
        self._told = time.monotonic()

    def __call__(self, now: float, step: str = "") -> None:
        """Tell it, if the last time is long enough ago.

        Args:
            now: Seconds since the first day began.
            step: What of the run this is, where it has several.
        """
        if time.monotonic() - self._told >= EVERY_SECONDS:
            self._told = time.monotonic()
            print(f"{self._what}: {step}day {now / DAY:.1f} of {self._days:g}", file=sys.stderr, flush=True)
