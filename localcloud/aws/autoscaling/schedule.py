"""Scheduled actions: when a recurrence in crontab's form comes next, in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# First and last value of minutes, hours, days of the month, months, days of the week.
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_DAYS = 366 * 8 + 1  # a 29 February comes within eight years


@dataclass(kw_only=True)
class Action:
    """A scheduled action of a group; sizes that it leaves alone are None."""

    name: str
    recurrence: str
    minimum: int | None
    maximum: int | None
    desired: int | None
    next: datetime


def following(recurrence: str, now: datetime) -> datetime:
    """Returns the first moment after ``now`` that a recurrence names.

    Raises:
        ValueError: it is not a recurrence, or never comes.
    """
    fields = recurrence.split()
    if len(fields) != len(_RANGES):
        raise ValueError(f"{recurrence!r} does not have five fields")
    minutes, hours, days, months, weekdays = (
        _values(field, first, last) for field, (first, last) in zip(fields, _RANGES, strict=True)
    )
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(_DAYS):
        day = start + timedelta(days=offset)
        of_month = day.day in days
        of_week = bool({day.isoweekday(), day.isoweekday() % 7} & set(weekdays))
        # Crontab's rule: where both are restricted, either will do.
        fits = (of_month or of_week) if "*" not in (fields[2][0], fields[4][0]) else (of_month and of_week)
        if day.month not in months or not fits:
            continue
        for hour in hours:
            for minute in minutes:
                if (moment := day.replace(hour=hour, minute=minute)) > now:
                    return moment
    raise ValueError(f"{recurrence!r} never comes")


def _values(field: str, first: int, last: int) -> Sequence[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        begin, _, end = (f"{first}-{last}" if span == "*" else span).partition("-")
        values = range(int(begin), int(end or begin) + 1, int(step or 1))
        if not values or values[0] < first or values[-1] > last:
            raise ValueError(f"{part!r} is not within {first} to {last}")
        found.update(values)
    return sorted(found)
