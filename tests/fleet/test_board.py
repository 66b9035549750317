"""The board: which slots a job is planned on, and when none is found."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest

from fleet.board import Board, Place
from fleet.openqa_scheduler import Job, Unit

NOW = 1_000_000.0
PLAIN = frozenset({"qemu_x86_64"})
TAP = frozenset({"qemu_x86_64", "tap"})
ARM = frozenset({"qemu_aarch64"})
MINUTE = 60.0


def place(host: str, *free: float, **changes: Any) -> Place:
    """A host whose slots are free so many minutes from now, and which is empty when the last of them is."""
    facts = {"classes": PLAIN, "price": 1.0, "end": NOW + MINUTE * max(free), **changes}
    return Place(host=host, free_at=[NOW + MINUTE * minutes for minutes in free], **facts)


def board(*places: Place, thrift: float = 0.0) -> Board:
    made = Board(thrift=thrift)
    for one in places:
        made.add(one)
    return made


def take(
    board: Board,
    *minutes: float,
    ready: float = 0.0,
    limit: float = math.inf,
    classes: frozenset[str] = PLAIN,
    anew: float = math.inf,
    impatient: bool = False,
) -> tuple[float, str] | None:
    """Plan jobs that take so many minutes; tells in how many minutes they start, and where."""
    unit = Unit(tuple(Job(id=number, classes=classes) for number, _ in enumerate(minutes)))
    taken = board.take(
        unit,
        [MINUTE * each for each in minutes],
        ready=NOW + MINUTE * ready,
        limit=NOW + MINUTE * limit,
        anew=anew,
        impatient=impatient,
    )
    return taken and ((taken[0] - NOW) / MINUTE, taken[1].host)


def test_a_job_takes_the_slot_that_is_free_first_and_holds_it() -> None:
    planned = board(place("late", 5), place("soon", 9, 3))
    assert [take(planned, 4) for _ in range(3)] == [(3, "soon"), (5, "late"), (7, "soon")]
    assert [one.used for one in planned.places] == [1, 2]


def test_a_job_starts_no_earlier_than_it_is_ready() -> None:
    assert take(board(place("soon", 3)), 4, ready=5) == (5, "soon")


def test_a_job_starts_by_its_limit_or_is_not_planned() -> None:
    planned = board(place("only", 5))
    assert take(planned, 4, limit=4.9) is None
    assert planned.places[0].used == 0
    assert take(planned, 4, limit=5) == (5, "only")


def test_a_cluster_starts_on_one_host_when_enough_of_its_slots_are_free() -> None:
    planned = board(place("small", 0), place("large", 9, 2, 4))
    assert take(planned, 10, 20) == (4, "large")
    assert sorted(planned.places[1].free_at) == [NOW + MINUTE * minutes for minutes in (9, 14, 24)]
    assert take(planned, 1, 1, 1, 1) is None


def empty(minutes: float) -> float:
    """When a host is empty that is so in so many minutes."""
    return NOW + MINUTE * minutes


@pytest.mark.parametrize(
    ("best", "other", "jobs"),
    [
        (place("best", 0, price=1.0), place("other", 0, price=2.0), (10,)),
        (place("best", 0, end=empty(9)), place("other", 0), (10,)),
        (place("best", 0, 0, end=empty(90)), place("other", 0, 0, end=empty(15)), (10, 60)),
        (place("best", 0, end=empty(20)), place("other", 0, end=empty(20), classes=TAP), (10,)),
        (place("best", 0, end=empty(15), price=2.0), place("other", 0, end=empty(90)), (10,)),
        (place("best", 0, end=empty(15)), place("other", 0, end=empty(90), price=2.0), (10,)),
    ],
    ids=[
        "the cheaper one",
        "the one that is there anyway",
        "the one that is there for the longest of a cluster",
        "the one with fewer classes",
        "the one that it fits though dear",
        "the one that it fits",
    ],
)
def test_of_hosts_that_are_free_at_once_a_job_takes(
    best: Place, other: Place, jobs: tuple[float, ...]
) -> None:
    for places in ((best, other), (other, best)):
        assert take(board(*map(deepcopy, places)), *jobs) == (0, "best")


def test_a_job_that_is_not_ready_yet_takes_the_host_that_waits_for_it_least() -> None:
    for places in ((place("first", 1), place("second", 4)), (place("second", 4), place("first", 1))):
        assert take(board(*places), 10, ready=5) == (5, "second")


def test_a_job_that_ends_before_others_of_its_host_keeps_it_no_longer() -> None:
    planned = board(place("host", 0, end=empty(20)))
    take(planned, 10)
    assert planned.places[0].end == empty(20)


def test_a_job_takes_only_workers_with_all_its_classes() -> None:
    planned = board(place("plain", 0), place("tap", 7, classes=TAP))
    assert take(planned, 4, classes=TAP) == (7, "tap")


@pytest.mark.parametrize(
    ("thrifty", "anew", "taken"),
    [(True, 0.49, None), (True, 0.51, (0, "host")), (False, 0.49, (0, "host"))],
)
def test_a_thrifty_host_is_not_kept_where_a_new_one_costs_less(
    thrifty: bool, anew: float, taken: tuple[float, str] | None
) -> None:
    """Half an hour of it, of which the first ten minutes are paid, times the thrift: 50 cents."""
    host = place("host", 0, price=3.0, end=empty(10), thrifty=thrifty)
    assert take(board(host, thrift=0.5), 30, anew=anew) == taken


def test_who_is_impatient_waits_for_hosts_that_boot_and_for_no_busy_worker() -> None:
    places = (place("busy", 1), place("boots", 3, boots=True), place("free", 0))
    assert take(board(*places), 4, impatient=True) == (0, "free")
    assert take(board(*places[:2]), 4, impatient=True) == (3, "boots")
    assert take(board(places[0]), 4, impatient=True) is None


def test_who_found_no_place_looks_again_when_it_may_wait_longer_or_a_host_has_come() -> None:
    planned = board(place("only", 5))
    assert take(planned, 4, limit=4) is None
    assert take(planned, 4, limit=5) == (5, "only")
    assert take(planned, 4, limit=4) is None
    planned.add(place("unfit", 1, classes=ARM))
    assert take(planned, 4, limit=4) is None
    planned.add(place("other", 2))
    assert take(planned, 4, limit=4) == (2, "other")


def test_who_found_no_place_speaks_for_none_that_is_of_another_kind() -> None:
    planned = board(
        place("busy", 1, price=6.0, thrifty=True), place("pair", 9, 9), place("arm", 2, classes=ARM), thrift=1
    )
    assert take(planned, 60, limit=5, anew=1.0) is None
    assert take(planned, 60, limit=5, classes=ARM) == (2, "arm")
    assert take(planned, 5, limit=5, anew=1.0) == (1, "busy"), "it is shorter"
    assert take(planned, 5, 5, 5) is None
    assert take(planned, 5, 5, impatient=True) is None
    assert take(planned, 5, 5) == (9, "pair")


def test_a_new_host_holds_the_jobs_that_it_is_for_and_has_room_for_others() -> None:
    planned = board(place("there", 30))
    assert take(planned, 4, limit=10) is None
    planned.start(place("", 3, 3, 3, 3), [[MINUTE * 10], [MINUTE * 20, MINUTE * 30]])
    new = planned.places[1]
    assert (new.free_at, new.used) == ([NOW + MINUTE * minutes for minutes in (13, 23, 33, 3)], 3)
    assert new.end == NOW + 33 * MINUTE
    assert take(planned, 4, limit=10) == (3, "")
