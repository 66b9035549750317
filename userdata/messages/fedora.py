"""What Fedora's consumer missed: ``python3 -m userdata.messages.fedora ARCHIVE STATE``, in its container.

Its queue ends with its connection; what is published after that, or while openQA is down, never reaches it.
From time to time this asks the archive, and the consumer's own class handles what it did not schedule.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from userdata.messages import archive, rules
from userdata.messages.archive import ArchiveError
from userdata.messages.memory import OVERLAP_SECONDS, Memory
from userdata.messages.rules import Message, RuleError

log = logging.getLogger(__name__)

# Younger messages are left to the consumer, which may be at work on them.
YOUNG_SECONDS = 900.0
# How long to retry messages that fedora_openqa fails with; meanwhile the others go on.
TRY_SECONDS = 86400.0
# Locked exclusively while openQA's templates are loaded.
TEMPLATES_LOCK = Path("/run/openqa-on-aws/templates.lock")


class Scheduler:
    """fedora_openqa's own, but waits while openQA's templates change: half of them would make half the jobs.

    fedora-messaging makes one and calls it, in a thread of its own, with each message.
    """

    def __init__(self) -> None:
        self._schedule: Any = importlib.import_module("fedora_openqa.consumer").OpenQAScheduler()

    def __call__(self, message: Any) -> None:
        """Schedules what a message, of fedora-messaging's own class, is about."""
        with TEMPLATES_LOCK.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._schedule(message)


def catch_up(
    memory: Memory,
    url: str,
    *,
    topics: tuple[str, ...],
    has_jobs: Callable[[str], bool],
    consume: Callable[[Message], None],
    now: float,
) -> None:
    """Handle what was published since the last time.

    Args:
        memory: What was handled, and up to when.
        url: The archive.
        topics: The consumer's topics.
        has_jobs: Tells whether openQA has jobs of a build.
        consume: Handles a message as the consumer does.
        now: Seconds since the epoch.

    Raises:
        ArchiveError: The archive does not answer, or not as it should.
    """
    start, end, failed = memory.since - OVERLAP_SECONDS, now - YOUNG_SECONDS, False
    if end <= memory.since:
        return
    for found in archive.read(url, topics=topics, start=start, end=end):
        try:
            message = rules.of(found.get("topic"), found.get("id"), found.get("body"))
        except RuleError as error:
            log.warning("skipping a message of the archive: %s", error)
            continue
        if memory.knows(message.id):
            continue
        build = build_of(message)
        try:
            # fedora_openqa itself would reschedule updates, and the parts of composes that have no ISO.
            if build is None or not has_jobs(build):
                consume(message)
        except Exception as error:  # whatever fedora_openqa raises; some of it on purpose
            log.error("message %s on %s: %r", message.id, message.topic, error)
            failed = True
            continue
        memory.add(message.id, now=now)
    memory.all_done(now=max(memory.since, end - TRY_SECONDS) if failed else end)


def build_of(message: Message) -> str | None:
    """Return the build of the update or compose that a message is about; None if it is about neither."""
    alias, compose = (rules.find(message.body, field) for field in ("update.alias", "compose_id"))
    if isinstance(alias, str):
        return f"Update-{alias}"
    return compose if isinstance(compose, str) else None


def main(arguments: list[str] | None = None) -> int:
    """Catches up once; returns the exit code.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python3 -m userdata.messages.fedora", description=__doc__)
    parser.add_argument("archive", help="the archive's search address")
    parser.add_argument("state", type=Path, help="the file that records what was handled")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings: Any = importlib.import_module("fedora_messaging.config").conf
    messages: Any = importlib.import_module("fedora_messaging.message")
    openqa: Any = importlib.import_module("openqa_client.client")
    scheduler = Scheduler()
    api = openqa.OpenQA_Client(settings["consumer_config"]["openqa_hostname"])
    try:
        catch_up(
            Memory(options.state, now=time.time()),
            options.archive,
            topics=tuple(settings["bindings"][0]["routing_keys"]),
            has_jobs=lambda build: bool(api.openqa_request("GET", "jobs", {"build": build})["jobs"]),
            consume=lambda message: scheduler(messages.Message(topic=message.topic, body=message.body)),
            now=time.time(),
        )
    except ArchiveError as error:
        log.error("cannot tell yet what was missed: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
