"""What outlives the consumer and its host: which messages were handled, and up to when all were."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

# An archive may show a message this much later than it was sent.
OVERLAP_SECONDS = 900.0
# IDs are kept for well longer than an archive could show their messages again.
KEEP_SECONDS = 3 * 86400.0
SAVE_SECONDS = 30.0


def read_since(path: Path) -> float:
    """Read up to when every message was handled, in seconds since the epoch.

    Args:
        path: A memory's file.

    Raises:
        OSError: The file cannot be read.
        ValueError, KeyError, TypeError: It is unusable.
    """
    return float(json.loads(path.read_text(encoding="utf-8"))["since"])


class Memory:
    """A small JSON file, replaced atomically.

    Args:
        path: The file.
        now: Seconds since the epoch; if nothing is remembered, nothing from before it is asked for.

    Attributes:
        since: Up to when every message was handled, in seconds since the epoch.
    """

    def __init__(self, path: Path, *, now: float) -> None:
        self._path = path
        self.since = now
        self._ids: dict[str, float] = {}
        self._last: dict[str, str] = {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            ids = {str(name): float(at) for name, at in data["ids"].items()}
            last = {str(topic): str(stamp) for topic, stamp in data.get("last", {}).items()}
            self.since, self._ids, self._last = float(data["since"]), ids, last
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("%s is unusable: cannot tell what came before now: %r", path, error)
            # At once: a program that only runs from time to time would start from scratch each time.
            self._save()
        self._saved = self.since

    def knows(self, message: str) -> bool:
        """Tell whether a message, given by its ID, was handled."""
        return message in self._ids

    def add(self, message: str, *, now: float) -> None:
        """Remember at once that a message was handled."""
        self._ids[message] = now
        self._save()

    def last(self, topic: str) -> str | None:
        """Return the stamp of a topic's last build; None if there is none."""
        return self._last.get(topic)

    def note(self, topic: str, stamp: str) -> None:
        """Remember at once the stamp of a topic's last build."""
        self._last[topic] = stamp
        self._save()

    def all_done(self, *, now: float) -> None:
        """Note that no message is left; this is saved every half minute."""
        self.since = now
        if 0 <= now - self._saved < SAVE_SECONDS:  # below 0: the clock was ahead
            return
        oldest = now - KEEP_SECONDS
        self._ids = {name: at for name, at in self._ids.items() if at > oldest}
        self._save()

    def _save(self) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"since": self.since, "ids": self._ids, "last": self._last}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._saved = self.since
