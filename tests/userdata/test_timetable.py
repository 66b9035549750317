"""Builds by the clock: which times are due, and that each is dealt with once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.userdata import machine
from userdata.host import roles
from userdata.messages import sources
from userdata.messages.memory import Memory
from userdata.messages.openqa import Posted, RefusedError, UnavailableError
from userdata.messages.scheduler import Scheduler
from userdata.messages.timetable import (
    AGAIN_SECONDS,
    FIELDS,
    MISSED_SECONDS,
    Entry,
    Timetable,
    due,
    times_of_day,
)
from userdata.week import DAYS

POST = {"DISTRI": "a", "VERSION": "1", "FLAVOR": "cd", "ARCH": "x86_64", "BUILD": "{date}-{time}"}
MONDAY = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0
TIMES = st.builds(
    "{} {:02}:{:02}".format,
    st.one_of(st.sampled_from(DAYS), st.builds("{}-{}".format, st.sampled_from(DAYS), st.sampled_from(DAYS))),
    st.integers(0, 23),
    st.integers(0, 59),
)


class FakeOpenQa:
    """openQA that remembers what it was told, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.builds: list[str] = []
        self.away = 0
        self.refuses = False

    def job_of(self, parameters: Mapping[str, str]) -> int | None:
        return 1 if parameters["BUILD"] in self.builds else None

    def post(self, parameters: Mapping[str, str]) -> Posted:
        if self.refuses:
            raise RefusedError("HTTP 400")
        if self.away:
            self.away -= 1
            raise UnavailableError("HTTP 502")
        self.builds.append(parameters["BUILD"])
        return Posted(ids=(len(self.builds),), failed=())


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def timetable(tmp_path: Path, openqa: FakeOpenQa, clock: Clock, *entries: Entry) -> Timetable:
    lock = tmp_path / "templates.lock"
    lock.touch()
    memory = Memory(tmp_path / "state.json", now=clock.now)
    rules = [entry.rule for entry in entries]
    scheduler = Scheduler(rules, openqa, memory, templates_lock=lock, clock=clock)
    return Timetable(entries, scheduler=scheduler, memory=memory, clock=clock)


def moments(*at: str, after: float, until: float) -> list[str]:
    found = due([Entry(at=at, post=POST)], after=after, until=until)
    return [f"{message.body['date']} {message.body['time']}" for message in found]


def test_times_of_the_week() -> None:
    week = {"after": MONDAY - 1, "until": MONDAY + 7 * DAY - 1}
    assert moments("wed 05:30", **week) == ["20260304 0530"]
    assert moments("sat-sun 00:00", **week) == ["20260307 0000", "20260308 0000"]
    assert moments("sun-mon 23:59", **week) == ["20260302 2359", "20260308 2359"]
    assert moments("thu 12:00", "tue 06:00", **week) == ["20260303 0600", "20260305 1200"]
    # Said twice, it is one time.
    assert moments("mon 01:00", "mon-tue 01:00", **week) == ["20260302 0100", "20260303 0100"]
    together = [Entry(at=("mon 01:00",), post=POST | {"BUILD": build}) for build in ("a", "b")]
    assert len(due(together, **week)) == 2


def test_a_span_has_its_end_and_not_its_begin() -> None:
    assert moments("mon 01:00", after=MONDAY, until=MONDAY + HOUR) == ["20260302 0100"]
    assert moments("mon 01:00", after=MONDAY + HOUR, until=MONDAY + 2 * HOUR) == []
    assert moments("mon 01:00", after=MONDAY + 2 * HOUR, until=MONDAY) == []


@given(at=st.lists(TIMES, min_size=1, max_size=4), cuts=st.lists(st.floats(0, 14 * DAY), max_size=6))
def test_spans_that_meet_have_each_time_once(at: list[str], cuts: list[float]) -> None:
    begin, end = MONDAY - 1, MONDAY + 14 * DAY - 1
    borders = [begin, *sorted(MONDAY + cut for cut in cuts if MONDAY + cut < end), end]
    pieces = [
        moment for after, until in pairwise(borders) for moment in moments(*at, after=after, until=until)
    ]
    assert pieces == moments(*at, after=begin, until=end)
    assert len(set(pieces)) == len(pieces) == 2 * sum(map(len, times_of_day(at).values()))


@pytest.mark.parametrize(
    "text", ["", "mon", "mon 5:30", "mon 24:00", "mon-xyz 05:30", "mon 05:30 1", "mon,tue 05:30"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        times_of_day([text])


def test_what_parameters_may_name_of_a_time() -> None:
    (message,) = due([Entry(at=["tue 05:07"], post=POST)], after=MONDAY, until=MONDAY + 2 * DAY)
    assert message.body == {"date": "20260303", "time": "0507", "year": "2026", "month": "03", "day": "03"}
    assert message.body.keys() == FIELDS.keys()


def test_a_build_is_scheduled_at_its_time_and_once(tmp_path: Path) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY + 100)
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon-sun 00:02"], post=POST))
    assert made.look() == 20  # at the next whole minute
    assert openqa.builds == []
    for now in (MONDAY + 120, MONDAY + 180, MONDAY + 240):
        clock.now = now
        assert made.look() == 60
    assert openqa.builds == ["20260302-0002"]
    clock.now = MONDAY + DAY + 121
    made.look()
    assert openqa.builds == ["20260302-0002", "20260303-0002"]


def test_times_before_the_first_start_are_none_of_ours(tmp_path: Path) -> None:
    openqa = FakeOpenQa()
    timetable(tmp_path, openqa, Clock(MONDAY + HOUR), Entry(at=["mon-sun 00:30"], post=POST)).look()
    assert openqa.builds == []


def test_what_a_host_missed_its_next_one_makes_up_for_within_a_day(tmp_path: Path) -> None:
    openqa, entry = FakeOpenQa(), Entry(at=["mon-sun 00:30", "mon-sun 12:30"], post=POST)
    timetable(tmp_path, openqa, Clock(MONDAY), entry).look()
    later = Clock(MONDAY + 3 * DAY + HOUR)
    timetable(tmp_path, openqa, later, entry).look()
    assert openqa.builds == ["20260304-1230", "20260305-0030"]
    assert timedelta(seconds=MISSED_SECONDS) == timedelta(days=1)


def test_what_openqa_does_not_take_waits_and_keeps_nobody_else(tmp_path: Path) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    other = Entry(at=["mon 00:01"], post=POST | {"BUILD": "other-{date}"})
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon 00:02"], post=POST), other)
    clock.now += 180
    openqa.away = 3
    # The earlier first, whatever the order of the file.
    assert [made.look(), made.look()] == [AGAIN_SECONDS] * 2
    assert openqa.builds == ["20260302-0002"]
    assert json.loads((tmp_path / "state.json").read_text())["since"] == MONDAY
    assert made.look() == 60
    assert openqa.builds == ["20260302-0002", "other-20260302"]
    assert json.loads((tmp_path / "state.json").read_text())["since"] == clock.now


def test_what_waits_for_a_day_is_given_up_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon-tue 00:02"], post=POST))
    openqa.away = 100
    for now in (180, MISSED_SECONDS + 150, MISSED_SECONDS + 180):
        clock.now = MONDAY + now
        assert made.look() == AGAIN_SECONDS
    openqa.away = 0
    assert made.look() == 60
    assert openqa.builds == ["20260303-0002"]
    assert [line for line in caplog.messages if "more than a day old" in line] == [
        f"message {Entry(at=[], post=POST).rule.topic}@2026-03-02T00:02Z: nothing is scheduled: "
        "it is more than a day old"
    ]


def test_what_openqa_refuses_is_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon 00:02"], post=POST))
    openqa.refuses = True
    clock.now += 180
    assert made.look() == 60
    assert "nothing is scheduled: HTTP 400" in caplog.text
    openqa.refuses = False
    assert made.look() == 60
    assert openqa.builds == []


def test_a_clock_that_is_put_back_schedules_nothing_twice(tmp_path: Path) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon 00:02"], post=POST))
    for now in (180, 60, 180):
        clock.now = MONDAY + now
        made.look()
    assert openqa.builds == ["20260302-0002"]
    # A later host hears of the time as it is.
    assert Memory(tmp_path / "state.json", now=0).since == MONDAY + 180


def test_a_clock_that_was_ahead_is_forgotten_on_disk(tmp_path: Path) -> None:
    clock = Clock(MONDAY)
    made = timetable(tmp_path, FakeOpenQa(), clock, Entry(at=["mon 00:02"], post=POST))
    for now in (5 * DAY, 60):
        clock.now = MONDAY + now
        made.look()
    assert Memory(tmp_path / "state.json", now=0).since == MONDAY + 60


class Files:
    """What the servers of a build's files say of them."""

    stamp: str | None = "old"
    away = False

    def __call__(self, parameters: Mapping[str, str]) -> str | None:
        assert parameters["BUILD"].startswith("2026")
        if self.away:
            raise UnavailableError("HTTP 404")
        return self.stamp


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    made = Files()
    monkeypatch.setattr(sources, "stamp", made)
    return made


NIGHTLY = Entry(at=["mon-sun 00:02"], post=POST, only_new=True)


def test_only_what_is_new_is_scheduled(tmp_path: Path, files: Files) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY + 100)
    made = timetable(tmp_path, openqa, clock, NIGHTLY)
    for stamp in ("old", "old", "new", "new"):
        clock.now += DAY
        files.stamp = stamp
        made.look()
    assert openqa.builds == ["20260302-0002", "20260304-0002"]


def test_what_was_scheduled_is_known_to_the_next_host(tmp_path: Path, files: Files) -> None:
    openqa = FakeOpenQa()
    for day in range(1, 4):
        timetable(tmp_path, openqa, Clock(MONDAY), NIGHTLY)
        timetable(tmp_path, openqa, Clock(MONDAY + day * DAY), NIGHTLY).look()
    assert openqa.builds == ["20260302-0002"]


def test_other_entries_ask_no_server(tmp_path: Path, files: Files) -> None:
    files.away = True
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, Entry(at=["mon 00:02"], post=POST))
    clock.now += 200
    made.look()
    assert openqa.builds == ["20260302-0002"]


def test_files_whose_age_nobody_knows_are_new(tmp_path: Path, files: Files) -> None:
    files.stamp = None
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, NIGHTLY)
    for _ in range(2):
        clock.now += DAY
        made.look()
    assert len(openqa.builds) == 2


def test_a_build_waits_for_its_files(tmp_path: Path, files: Files) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, NIGHTLY)
    clock.now += 200
    files.away = True
    assert made.look() == AGAIN_SECONDS
    files.away = False
    made.look()
    assert openqa.builds == ["20260302-0002"]


def test_a_build_that_openqa_refused_is_new_the_next_time(tmp_path: Path, files: Files) -> None:
    openqa, clock = FakeOpenQa(), Clock(MONDAY)
    made = timetable(tmp_path, openqa, clock, NIGHTLY)
    openqa.refuses = True
    clock.now += DAY
    made.look()
    openqa.refuses = False
    clock.now += DAY
    made.look()
    assert openqa.builds == ["20260303-0002"]


def test_a_timetable_alone_needs_no_broker(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, {**machine.read("webui-messages"), "schedule": None})
    assert roles.folders(host.document)[-2:] == ("schedule", "timetable")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    machine.keep_sample(host)
    roles.configure(host)
    told = json.loads((host.layout.runtime / "timetable/settings.json").read_text())
    assert set(told) == {"timetable", "openqa", "templates_lock"}
    lock = (host.layout.runtime / "timetable" / told["templates_lock"]).resolve()
    assert lock == host.layout.templates_lock
    assert not (host.layout.runtime / "messages").exists()
    assert (host.layout.data / "timetable").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("name", "none"), [("timetable", []), ("schedule", None)])
def test_what_schedules_and_comes_back_begins_anew(
    tmp_path: Path, aws: None, name: str, none: object
) -> None:
    data = machine.read("webui-messages")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    for timed in (data, data | {name: none}):
        host = machine.host(tmp_path, timed)
        machine.keep_sample(host)
        roles.configure(host)
        state = host.layout.data / name / "state.json"
        if timed[name]:
            Memory(state, now=MONDAY)
    assert not state.exists()
