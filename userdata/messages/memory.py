"""What outlives the consumer and its host: which messages were dealt with, and until when all were."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

# An archive may show a message this much later than it was sent.
OVERLAP_SECONDS = 900.0
# Ids are kept for as long as an archive could show their messages again, and well beyond.
KEEP_SECONDS = 3 * 86400.0
SAVE_SECONDS = 30.0


def read_since(path: Path) -> float:
    """Read until when every message was dealt with, in seconds since the epoch.

    Args:
        path: A memory's file.

    Raises:
        OSError: The file cannot be read.
        ValueError, KeyError, TypeError: It is of no use.
    """
    return float(json.loads(path.read_text(encoding="utf-8"))["since"])


class Memory:
    """A small JSON file, replaced in one step.

    Args:
        path: The file.
        now: Seconds since the epoch; where nothing is remembered, nothing before it is asked for.

    Attributes:
        since: Until then every message was dealt with, in seconds since the epoch.
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
                log.warning("%s was of no use: what came before now is not known: %r", path, error)
            # At once: who looks now and then would begin anew each time.
            self._save()
        self._saved = self.since

    def knows(self, message: str) -> bool:
        """Tell whether a message, by its id, was dealt with."""
        return message in self._ids

    def add(self, message: str, *, now: float) -> None:
        """Remember that a message was dealt with, at once."""
        self._ids[message] = now
        self._save()

    def last(self, topic: str) -> str | None:
        """Return the stamp of a topic's last build; None where there is none."""
        return self._last.get(topic)

    def note(self, topic: str, stamp: str) -> None:
        """Remember the stamp of a topic's last build, at once."""
        self._last[topic] = stamp
        self._save()

    def all_done(self, *, now: float) -> None:
        """Note that no message is left; the disk hears of it every half minute."""
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
