"""``python3 -m userdata.messages FOLDER STATE``: consumer or timetable, as a service of the web UI's host."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from userdata.messages import consumer, rules
from userdata.messages.consumer import Consumer
from userdata.messages.memory import Memory
from userdata.messages.openqa import OpenQa
from userdata.messages.rules import Rule
from userdata.messages.scheduler import Scheduler
from userdata.messages.timetable import Entry, Timetable

log = logging.getLogger("userdata.messages")

SETTINGS = "settings.json"
STATE = "state.json"


def main(arguments: list[str] | None = None) -> int:
    """Runs the service whose settings are there; returns the exit code if it cannot.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python3 -m userdata.messages", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the settings and TLS files")
    parser.add_argument("state", type=Path, help="the folder for what must outlive the service")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        data = json.loads((options.folder / SETTINGS).read_text(encoding="utf-8"))
        memory = Memory(options.state / STATE, now=time.time())
    except OSError as error:
        log.error("%s: %s", error.filename, error.strerror)
        return 1
    _service(data, options.folder, memory).run()
    return 0


def _service(data: Mapping[str, Any], folder: Path, memory: Memory) -> Consumer | Timetable:
    """Makes the service that the settings are for."""
    entries = tuple(Entry(**entry) for entry in rules.one_by_one(data.get("timetable", ())))
    followed = (
        *(Rule(**rule) for rule in rules.one_by_one(data.get("rules", ()))),
        *(entry.rule for entry in entries),
    )
    lock = folder / data["templates_lock"]
    scheduler = Scheduler(followed, OpenQa(**data["openqa"]), memory, templates_lock=lock)
    if entries:
        return Timetable(entries, scheduler=scheduler, memory=memory)
    return Consumer(
        consumer.read(data["listen"], folder),
        topics=tuple(rules.topics(followed)),
        scheduler=scheduler,
        memory=memory,
    )


if __name__ == "__main__":
    sys.exit(main())
