"""When an operator wants hosts to be ready beforehand: ``mon-fri 06:00-20:00 2`` keeps two."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from userdata import week

EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
PATTERN = rf"^{week.PATTERN} (?P<begin>{_TIME})-(?P<end>{_TIME}) (?P<hosts>[1-9][0-9]{{0,2}})$"


@dataclass(frozen=True, kw_only=True)
class Warm:
    """Hosts to keep at some times of the week, in UTC.

    Attributes:
        days: Days of the week, 0 for Monday, on which it begins; it may end on the next day.
        begin: Minutes since midnight.
        end: Minutes since midnight; of the next day unless after ``begin``.
        hosts: How many.
    """

    days: frozenset[int]
    begin: int
    end: int
    hosts: int

    def holds(self, now: float) -> bool:
        """Tell whether a moment, in seconds since the epoch, is among its times."""
        day, minute = (int(now // 86400) + EPOCH_WEEKDAY) % 7, int(now % 86400) // 60
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or (
            (day - 1) % 7 in self.days and minute < self.end
        )


def parse(text: str) -> Warm:
    """Read one time.

    Raises:
        ValueError: The text is not a time.
    """
    found = re.fullmatch(PATTERN, text)
    if found is None:
        raise ValueError(f"{text!r} is not a time such as 'mon-fri 06:00-20:00 2'")
    return Warm(
        days=week.days(found),
        begin=_minutes(found["begin"]),
        end=_minutes(found["end"]),
        hosts=int(found["hosts"]),
    )


def hosts(times: Iterable[Warm], now: float, *, ahead: float = 0.0) -> int:
    """Tell how many hosts are wanted: the most of any time.

    Args:
        times: When hosts are wanted.
        now: In seconds since the epoch.
        ahead: How long a host boots, in seconds: hosts wanted within that time must be launched now.
    """
    moments = [now + seconds for seconds in (*range(0, int(ahead), 60), ahead)]
    return max((time.hosts for time in times if any(map(time.holds, moments))), default=0)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)
