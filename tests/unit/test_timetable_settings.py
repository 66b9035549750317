"""``[[timetable]]`` in an environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
from settings import SettingsError
from settings.timetable import Entry

LOCAL = (settings.ENVIRONMENTS / "local.toml").read_text()
AT = 'at = ["mon-fri 05:30", "sun 12:00"]\n'
POST = 'DISTRI = "a"\nVERSION = "1"\nFLAVOR = "b"\nARCH = "x86_64"\nBUILD = "{date}"\n'
ENTRY = f"[[timetable]]\n{AT}[timetable.post]\n{POST}"


def load(directory: Path, text: str) -> tuple[Entry, ...]:
    before, fleets, after = LOCAL.partition("[[fleets]]")
    (directory / "x.toml").write_text(f"{before}{text}\n{fleets}{after}")
    return settings.load("x", directory).timetable


def test_a_timetable(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY)
    assert entry.at == ("mon-fri 05:30", "sun 12:00")
    assert entry.post["BUILD"] == "{date}"
    assert load(tmp_path, "") == ()


@pytest.mark.parametrize(
    "build", ["{date}", "{year}-{month}-{day}", "{date}-{time}", "{year}.{month}.{day}.{time}"]
)
def test_builds_of_every_time_have_names_of_their_own(tmp_path: Path, build: str) -> None:
    assert load(tmp_path, ENTRY.replace("{date}", build))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENTRY.replace(AT, ""), "timetable.1.at is missing"),
        (ENTRY.replace(AT, "at = []\n"), "a list of days and times in UTC"),
        (ENTRY.replace("05:30", "5:30"), 'timetable.1.at.1 = "mon-fri 5:30"'),
        (ENTRY.replace("05:30", "24:00"), "a list of days and times in UTC"),
        (ENTRY.replace("sun", "sunday"), 'timetable.1.at.2 = "sunday 12:00"'),
        (ENTRY.replace('FLAVOR = "b"\n', ""), "timetable.1.post.FLAVOR is missing"),
        (ENTRY.replace("{date}", "1"), "the same on several days"),
        (ENTRY.replace("{date}", "{year}{day}"), "the same on several days"),
        (ENTRY.replace("sun 12:00", "fri 12:00"), "the same several times a day"),
        (ENTRY.replace('"b"', '"{week}"'), 'times have no field "week"'),
        (ENTRY.replace('"b"', '"{week"'), 'no field in braces at "{week"'),
        (ENTRY.replace("at =", "when ="), "unknown key; allowed: at, post"),
        (ENTRY + 'iso = "a"\n', "openQA's settings in capitals"),
        (ENTRY + ENTRY, "timetable.2.post"),
        (ENTRY + f'ISO = "{"x" * 10_000}"\n', "bytes, which user data has no room for"),
    ],
)
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, text)
    assert reason in str(refusal.value)


def test_fetches_that_openqa_refuses_are_told(tmp_path: Path) -> None:
    load(tmp_path, ENTRY + 'ISO_URL = "https://example.org/{date}.iso"\n')
    (line,) = settings.warnings(settings.load("x", tmp_path))
    assert line == (
        'x: timetable.1.post.ISO_URL = "https://example.org/{date}.iso": openQA may fetch from nowhere, and '
        "refuses the whole build; wanted: content.download_domains"
    )
