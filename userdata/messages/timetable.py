"""Builds at times of the week. A time that has come is a message like any other, handled once."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from userdata import week
from userdata.messages import sources
from userdata.messages.memory import Memory
from userdata.messages.openqa import UnavailableError
from userdata.messages.rules import IDENTITY, Message, Rule
from userdata.messages.scheduler import Scheduler

log = logging.getLogger(__name__)

AT = rf"{week.PATTERN} (?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
# The fields of a time, in UTC, that parameters may use: 20260131, 0530, 2026, 01, 31.
FIELDS: Mapping[str, str] = {"date": "%Y%m%d", "time": "%H%M", "year": "%Y", "month": "%m", "day": "%d"}
# Times missed longer ago are dropped: it would be that day's build with today's files.
MISSED_SECONDS = 86400.0
AGAIN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A build that openQA schedules at certain times of the week.

    Attributes:
        at: Times in UTC, such as ``mon-fri 05:30``.
        post: Parameters of ``isos post``; ``{field}`` stands for one of `FIELDS`.
        only_new: Whether to skip a build whose files are the same as those of the last one.
    """

    at: Sequence[str]
    post: Mapping[str, str]
    only_new: bool = False

    @cached_property
    def rule(self) -> Rule:
        """The rule for its messages."""
        said = json.dumps([self.post, self.only_new], sort_keys=True).encode()
        return Rule(topic=f"timetable.{hashlib.sha256(said).hexdigest()[:8]}", filter={}, post=self.post)

    def message(self, moment: datetime) -> Message:
        """Make the message of a time in UTC."""
        topic = self.rule.topic
        body = {name: moment.strftime(form) for name, form in FIELDS.items()}
        return Message(id=f"{topic}@{moment:%Y-%m-%dT%H:%MZ}", topic=topic, body=body)


def times_of_day(at: Sequence[str]) -> dict[int, set[timedelta]]:
    """Return the times since midnight by day of the week, 0 for Monday.

    Args:
        at: Times of the week.

    Raises:
        ValueError: One of them is malformed.
    """
    found: dict[int, set[timedelta]] = {}
    for text in at:
        parts = re.fullmatch(AT, text)
        if parts is None:
            raise ValueError(f"{text!r} is no time such as 'mon-fri 05:30'")
        moment = timedelta(hours=int(parts["hour"]), minutes=int(parts["minute"]))
        for day in week.days(parts):
            found.setdefault(day, set()).add(moment)
    return found


def due(entries: Sequence[Entry], *, after: float, until: float) -> list[Message]:
    """Return the messages of the times in a span, the earliest first.

    Args:
        entries: The timetable.
        after: The span's start (exclusive), in seconds since the epoch.
        until: Its end (inclusive).
    """
    found = [
        (moment, entry.message(moment))
        for entry in entries
        for moment in _moments(entry, after=after, until=until)
    ]
    return [message for _, message in sorted(found, key=lambda pair: pair[0])]


def _moments(entry: Entry, *, after: float, until: float) -> Iterator[datetime]:
    times = times_of_day(entry.at)
    begin, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (after, until))
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight <= end:
        moments = (midnight + since for since in times.get(midnight.weekday(), ()))
        yield from (moment for moment in moments if begin < moment <= end)
        midnight += timedelta(days=1)


class Timetable:
    """Looks at the clock every minute.

    Args:
        entries: What is scheduled when.
        scheduler: Handles messages, by the entries' rules.
        memory: Remembers which were handled.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        scheduler: Scheduler,
        memory: Memory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._entries = entries
        self._by_topic = {entry.rule.topic: entry for entry in entries}
        self._scheduler = scheduler
        self._memory = memory
        self._clock = clock

    def run(self) -> None:
        """Follow the timetable; does not return."""
        for entry in self._entries:
            build = " ".join(entry.post[name] for name in IDENTITY)
            log.info("%s: %s, at %s", entry.rule.topic, build, ", ".join(entry.at))
        while True:
            time.sleep(self.look())

    def look(self) -> float:
        """Handle what is due; return after how many seconds to look again."""
        now, waits = self._clock(), False
        oldest = max(self._memory.since, now - MISSED_SECONDS)
        for message in self._due(after=self._memory.since, until=oldest):
            log.warning("message %s: nothing is scheduled: it is more than a day old", message.id)
            self._memory.add(message.id, now=now)
        for message in self._due(after=oldest, until=now):
            try:
                self._deal_with(message, now=now)
            except UnavailableError as error:
                log.warning("message %s waits: %s", message.id, error)
                waits = True  # the other messages go on
        if waits:
            return AGAIN_SECONDS
        self._memory.all_done(now=now)
        return 60 - now % 60

    def _deal_with(self, message: Message, *, now: float) -> None:
        entry = self._by_topic[message.topic]
        stamp = sources.stamp(entry.rule.parameters(message)) if entry.only_new else None
        if stamp and stamp == self._memory.last(message.topic):
            log.info("message %s: nothing is scheduled: no file changed since the last build", message.id)
            self._memory.add(message.id, now=now)
        elif self._scheduler.handle(message) and stamp:
            self._memory.note(message.topic, stamp)

    def _due(self, *, after: float, until: float) -> Iterator[Message]:
        for message in due(self._entries, after=after, until=until):
            if not self._memory.knows(message.id):
                yield message
