"""``python3 -m userdata.messages FOLDER STATE``: the consumer, as a service of the web UI's host."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from userdata.messages import consumer, rules
from userdata.messages.consumer import Consumer
from userdata.messages.memory import Memory
from userdata.messages.openqa import OpenQa
from userdata.messages.rules import Rule
from userdata.messages.scheduler import Scheduler

log = logging.getLogger("userdata.messages")

SETTINGS = "settings.json"
STATE = "state.json"


def main(arguments: list[str] | None = None) -> int:
    """Runs the consumer; returns the exit code where it cannot.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python3 -m userdata.messages", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the host has put settings and TLS files")
    parser.add_argument("state", type=Path, help="a folder for what must outlive the consumer")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        data = json.loads((options.folder / SETTINGS).read_text(encoding="utf-8"))
        memory = Memory(options.state / STATE, now=time.time())
    except OSError as error:
        log.error("%s: %s", error.filename, error.strerror)
        return 1
    if memory.lost:
        log.warning("%s was not readable: what came before now is not known", options.state / STATE)
    followed = tuple(Rule(**rule) for rule in data["rules"])
    lock = options.folder / data["templates_lock"]
    scheduler = Scheduler(followed, OpenQa(**data["openqa"]), memory, templates_lock=lock)
    listening = Consumer(
        consumer.read(data["listen"], options.folder),
        topics=tuple(rules.topics(followed)),
        scheduler=scheduler,
        memory=memory,
    )
    listening.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
