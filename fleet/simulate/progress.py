"""Reports on standard error how far a long run is, and ends it. Only results go to standard output."""

from __future__ import annotations

import signal
import sys
import time

from fleet.simulate.workload import DAY

EVERY_SECONDS = 5.0


def end_by_signals() -> None:
    """Has Ctrl-C, or a reader that goes away, end the program at once: it leaves nothing behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


class Progress:
    """Tells every few seconds which day a run has reached; a run that is done sooner tells nothing.

    Args:
        what: What runs.
        days: For how many days jobs are scheduled; those that still wait then may take longer.
    """

    def __init__(self, what: str, days: float) -> None:
        self._what, self._days = what, days
        self._told = time.monotonic()

    def __call__(self, now: float, step: str = "") -> None:
        """Tell it, if the last time was long enough ago.

        Args:
            now: Seconds since the first day began.
            step: Which step of the run this is, if it has several.
        """
        if time.monotonic() - self._told >= EVERY_SECONDS:
            self._told = time.monotonic()
            print(f"{self._what}: {step}day {now / DAY:.1f} of {self._days:g}", file=sys.stderr, flush=True)
