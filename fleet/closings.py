"""Which workers take no jobs for now: the controller says so through the web UI, the hosts' agents do it.

openQA gives a job to any free worker that suits it, and so keeps many hosts half empty. Closed workers direct
jobs to the hosts that cost least to keep. The closings are a file that the web UI's nginx serves inside the
network, with the time at which it was written: a file older than a minute no longer counts, so without a
controller, or without a web UI, all workers are open.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPException
from pathlib import Path

PATH = "/fleet/closings.json"
STALE_SECONDS = 60.0
_SILENCE = 5.0  # seconds without an answer
_MOST_BYTES = 1 << 24

Closings = Mapping[str, frozenset[int]]


def write(file: Path, closings: Mapping[str, Collection[int]], *, at: float) -> None:
    """Replace the file of closings atomically.

    Args:
        file: What nginx serves.
        closings: By instance id, the numbers of the workers that take no jobs.
        at: Seconds since the epoch.

    Raises:
        OSError: It cannot be written.
    """
    said = {"at": at, "closed": {host: sorted(numbers) for host, numbers in closings.items() if numbers}}
    fresh = file.with_name(f".{file.name}")
    fresh.write_text(json.dumps(said), encoding="utf-8")
    fresh.replace(file)


def parse(text: str | bytes) -> tuple[float, Closings]:
    """Read the closings.

    Returns:
        When they were written, and by instance id the numbers of the workers that take no jobs.

    Raises:
        ValueError: They make no sense.
    """
    try:
        said = json.loads(text)
        closed = {str(host): frozenset(map(int, numbers)) for host, numbers in said["closed"].items()}
        return float(said["at"]), closed
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"closings make no sense: {error!r}") from error


def read(file: Path) -> Closings:
    """Read the last closings, however old; there are none if the file is missing or makes no sense."""
    try:
        return parse(file.read_text(encoding="utf-8"))[1]
    except (OSError, ValueError):
        return {}


class Told:
    """What one host is told; it is called in every round.

    Args:
        url: The web UI's address.
        instance: The host's id.
        clock: Seconds since the epoch.
    """

    def __init__(self, url: str, instance: str, *, clock: Callable[[], float] = time.time) -> None:
        self._url = url.rstrip("/") + PATH
        self._instance = instance
        self._clock = clock
        self._at = 0.0
        self._closed: frozenset[int] = frozenset()
        # No proxy, whatever the environment says: the web UI is in this network.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __call__(self) -> frozenset[int]:
        """Ask; the numbers of the workers that shall take no jobs. An answer counts for a minute."""
        try:
            with self._opener.open(self._url, timeout=_SILENCE) as response:
                at, closings = parse(response.read(_MOST_BYTES))
                self._at, self._closed = at, closings.get(self._instance, frozenset())
        except (OSError, HTTPException, ValueError):
            pass  # the last answer counts as long as it is fresh
        return self._closed if abs(self._clock() - self._at) <= STALE_SECONDS else frozenset()
