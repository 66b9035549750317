"""Builds that the clock schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from settings.messages import Build, Parameter, build_problems
from settings.problem import Problem, shown
from userdata.messages import rules, sources, timetable
from userdata.messages.rules import Message

# Long enough for days and months to recur.
_YEARS = tuple(datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2024, 2026))
_FIELDS = ", ".join(f"{{{name}}}" for name in timetable.FIELDS)


class Entry(Build):
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
            description="a table: openQA's settings in capitals and their values, in quotes, which may hold "
            f"these fields of the time in UTC: {_FIELDS}"
        ),
    ]
    # Schedule nothing if the files that openQA would fetch are those of the last build.
    only_new: bool = False


def problems(entries: tuple[Entry, ...]) -> Iterator[Problem]:
    """Find what no single field shows.

    Args:
        entries: The timetable.
    """
    found = [problem for number, entry in enumerate(entries, 1) for problem in _entry_problems(number, entry)]
    yield from found or _twice(entries)


def _entry_problems(number: int, entry: Entry) -> Iterator[Problem]:
    key = f"timetable.{number}"
    found = [*build_problems(key, entry, fields=_FIELDS)]
    yield from found
    if found:
        return
    for post in entry.posts if entry.only_new else ():
        if not any(sources.FETCHED.fullmatch(name) for name in post):
            wrong, allowed = (
                "the build fetches nothing that could be new",
                "false, or ISO_URL or the like in post",
            )
            yield Problem(f"{key}.only_new", True, wrong, allowed)
            break
    said = dict.fromkeys(pair for post in entry.posts for pair in post.items())
    for name, template in said:
        if unknown := rules.fields(template) - timetable.FIELDS.keys():
            wrong = f"a time has no field {shown(min(unknown))}"
            yield Problem(f"{key}.{entry.place(name)}", template, wrong, _FIELDS)


def _twice(entries: tuple[Entry, ...]) -> Iterator[Problem]:
    """Find builds with the identity of an earlier one, which openQA would take for that one."""
    scheduled: dict[tuple[str, ...], Message] = {}
    for number, entry in enumerate(entries, 1):
        for post in entry.posts:
            timed = timetable.Entry(at=entry.at, post=post)
            for message in timetable.due([timed], after=_YEARS[0], until=_YEARS[1]):
                parameters = timed.rule.parameters(message)
                build = tuple(parameters[name] for name in rules.IDENTITY)
                if other := scheduled.get(build):
                    key, days = f"timetable.{number}", f"{_said(other)} and {_said(message)}"
                    wrong = f"{' '.join(build)} for both {days}, so only the first would be scheduled"
                    yield Problem(
                        f"{key}.{entry.place('BUILD')}",
                        post["BUILD"],
                        wrong,
                        "{date} in it, {time} if need be, or other names",
                    )
                    break
                scheduled[build] = message


def _said(message: Message) -> str:
    return message.id.partition("@")[2]
