"""Builds that the clock schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from settings.fields import Settings
from settings.messages import Parameter, post_problems
from settings.problem import Problem, shown
from userdata.messages import rules, timetable

_FIELDS = ", ".join(f"{{{name}}}" for name in timetable.FIELDS)


class Entry(Settings):
    """What openQA is told at some times of the week."""

    at: Annotated[
        tuple[Annotated[str, Field(pattern=f"^{timetable.AT}$")], ...],
        Field(
            min_length=1,
            description='a list of days and times in UTC, such as ["mon-fri 05:30", "sun 12:00"]',
        ),
    ]
    post: Annotated[
        Mapping[Parameter, str],
        Field(
            description="a table: openQA's settings in capitals and their values, in quotes; of the time, in "
            f"UTC, they may have {_FIELDS}"
        ),
    ]


def problems(entries: tuple[Entry, ...]) -> Iterator[Problem]:
    """Find what no single field shows.

    Args:
        entries: The timetable.
    """
    for number, entry in enumerate(entries, 1):
        key = f"timetable.{number}.post"
        yield from post_problems(key, entry.post)
        for name, template in entry.post.items():
            if unknown := rules.fields(template) - timetable.FIELDS.keys():
                wrong = f"times have no field {shown(min(unknown))}"
                yield Problem(f"{key}.{name}", template, wrong, _FIELDS)
        if (build := entry.post.get("BUILD")) and (lacking := _lacking(build, entry.at)):
            yield Problem(f"{key}.BUILD", build, lacking[0], lacking[1])
        if first := next(
            (i for i, other in enumerate(entries[: number - 1], 1) if other.post == entry.post), 0
        ):
            wrong = f"the same as of entry {first}"
            yield Problem(key, dict(entry.post), wrong, "one entry for a build, with all its times")


def _lacking(build: str, at: tuple[str, ...]) -> tuple[str, str] | None:
    """What is wrong with a build's name, and what is allowed: openQA makes a build of a name once."""
    fields = rules.fields(build)
    if "date" not in fields and not {"year", "month", "day"} <= fields:
        return "the same on several days, so only the first would be scheduled", "a value with {date} in it"
    if "time" not in fields and any(len(times) > 1 for times in timetable.times_of_day(at).values()):
        return "the same several times a day, so only the first would be scheduled", "{date} and {time} in it"
    return None
