"""The clock schedules a build, once, and makes up for what it missed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.localcloud.content.templates import load_templates
from tests.localcloud.deployed import Deployment, until
from userdata.messages.timetable import MISSED_SECONDS

pytestmark = pytest.mark.schedule

UNIT = "openqa-timetable.service"
VERSION = "clock"
SECONDS = 60
# Has the timetable, which is stopped, think that it was away since this time yesterday: midnight is within.
AWAY = f"""
import json, pathlib
path = pathlib.Path("/srv/data/timetable/state.json")
state = json.loads(path.read_text())
path.write_text(json.dumps({{"since": state["since"] - {MISSED_SECONDS}, "ids": {{}}}}))
"""


class Clock:
    """The timetable of the deployment's web UI host."""

    def __init__(self, made: Deployment) -> None:
        self.made = made
        (self.webui,) = made.serving("webui")

    def miss_a_day(self) -> None:
        """Has it make up for the last 24 hours."""
        self.made.run(self.webui, "systemctl", "stop", UNIT)
        self.made.run(self.webui, "python3", "-c", AWAY)
        self.made.run(self.webui, "systemctl", "start", UNIT)

    def said(self, pattern: str) -> re.Match[str]:
        """Waits until it has said something."""

        def found() -> re.Match[str] | None:
            done = self.made.run(self.webui, "journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager")
            return re.search(pattern, done.stdout)

        return until(f"{UNIT} says {pattern!r}", found, seconds=SECONDS)


@pytest.fixture(scope="module")
def clock(content: Deployment) -> Clock:
    load_templates(content, VERSION)
    return Clock(content)


@pytest.fixture(scope="module")
def scheduled(clock: Clock) -> Iterator[tuple[str, int]]:
    """The build that a time of the timetable made, and its job, for which no test waits."""
    clock.miss_a_day()
    build, job = clock.said(rf"sample {VERSION} cd x86_64 (\d{{8}}): scheduled 1 jobs: (\d+)").groups()
    yield build, int(job)
    clock.made.openqa.request("POST", f"jobs/{job}/cancel")


def test_a_time_schedules_a_build(clock: Clock, scheduled: tuple[str, int]) -> None:
    build, number = scheduled
    job = clock.made.openqa.request("GET", f"jobs/{number}")["job"]
    assert job["settings"]["BUILD"] == build
    assert job["settings"]["AT_TIME"] == "0000"


def test_a_build_of_a_time_is_scheduled_once(clock: Clock, scheduled: tuple[str, int]) -> None:
    """Even by a host that knows nothing of it."""
    build, number = scheduled
    clock.miss_a_day()
    assert clock.said(rf"{build} has jobs already, such as (\d+)")[1] == str(number)
    query = {"distri": "sample", "version": VERSION, "build": build}
    assert [job["id"] for job in clock.made.openqa.request("GET", "jobs", params=query)["jobs"]] == [number]


def test_how_far_it_lags_behind_is_told(clock: Clock, scheduled: tuple[str, int]) -> None:
    def lag() -> float:
        clock.made.run(clock.webui, "systemctl", "start", "schedule-figures.service")
        return min(clock.made.told("TimetableLagSeconds", "Minimum"))

    until("a timetable that keeps up", lambda: lag() < 2 * SECONDS or None, seconds=SECONDS)
