"""Times at which hosts are wanted beforehand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fleet import warm

MONDAY = 5  # of January 2026


def at(day: int, hour: int, minute: int = 0) -> float:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment", "hosts"),
    [
        ("mon-fri 06:00-20:00 2", at(MONDAY, 6), 2),
        ("mon-fri 06:00-20:00 2", at(MONDAY, 5, 59), 0),
        ("mon-fri 06:00-20:00 2", at(MONDAY, 20), 0),
        ("mon-fri 06:00-20:00 2", at(MONDAY + 4, 19, 59), 2),
        ("mon-fri 06:00-20:00 2", at(MONDAY + 5, 12), 0),
        ("wed 22:00-02:00 3", at(MONDAY + 2, 23), 3),
        ("wed 22:00-02:00 3", at(MONDAY + 3, 1, 59), 3),
        ("wed 22:00-02:00 3", at(MONDAY + 2, 1), 0),
        ("sat-mon 00:00-00:00 1", at(MONDAY, 13), 1),
        ("sat-mon 00:00-00:00 1", at(MONDAY + 6, 13), 1),
        ("sat-mon 00:00-00:00 1", at(MONDAY + 2, 13), 0),
    ],
)
def test_when(text: str, moment: float, hosts: int) -> None:
    assert warm.hosts([warm.parse(text)], moment) == hosts


def test_the_most_of_all_times_counts() -> None:
    times = [warm.parse("mon-sun 00:00-00:00 1"), warm.parse("mon 06:00-07:00 4")]
    assert warm.hosts(times, at(MONDAY, 6)) == 4
    assert warm.hosts(times, at(MONDAY, 8)) == 1
    assert warm.hosts([], at(MONDAY, 8)) == 0


@pytest.mark.parametrize(
    ("hour", "minute", "hosts"), [(5, 39, 0), (5, 40, 2), (5, 50, 2), (6, 4, 2), (6, 5, 0), (6, 30, 0)]
)
def test_hosts_are_wanted_as_much_earlier_as_they_boot(hour: int, minute: int, hosts: int) -> None:
    times = [warm.parse("mon 06:00-06:05 2")]
    assert warm.hosts(times, at(MONDAY, hour, minute), ahead=1200.0) == hosts


@pytest.mark.parametrize("text", ["", "mon 6:00-7:00 1", "mon 06:00-24:00 1", "mon 06:00-07:00 0", "day 1"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        warm.parse(text)
