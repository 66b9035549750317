"""What CloudWatch is told, number by number."""

from __future__ import annotations

from typing import Any

import pytest

from fleet import metrics
from fleet.model import Decision, Fleet, Host, Running, Seen, State
from fleet.openqa_scheduler import Job
from fleet.view import View

NOW = 1_000_000.0
PLAIN, TAP = frozenset({"qemu_x86_64"}), frozenset({"qemu_x86_64", "tap"})
FLEETS = (
    Fleet(name="small", classes=PLAIN, slots=4, price=0.4, boot_seconds=180, max=9),
    Fleet(name="dry", classes=TAP, slots=4, price=0.4, boot_seconds=180, max=9),
    Fleet(name="ill", classes=PLAIN, slots=4, price=0.4, boot_seconds=180, max=9, failures=3),
)


def host(name: str, state: State, *, jobs: int = 0, **more: Any) -> Host:
    running = tuple(Running(job=100 * int(name[1:]) + number, since=NOW) for number in range(jobs))
    return Host(id=name, fleet="small", state=state, launched=NOW - 60, running=running, **more)


def told(*more: Job) -> dict[tuple[str, str], float]:
    """What is told, by the metric's name and its dimension's value."""
    seen = Seen(
        now=NOW,
        jobs_at=NOW,
        hosts_at=NOW,
        jobs=[
            Job(id=1, classes=PLAIN, since=NOW - 30),
            Job(id=2, classes=PLAIN, since=NOW - 90),
            Job(id=3, classes=TAP, since=NOW - 10),
            Job(id=4, classes=TAP, since=NOW - 500, after=(3,)),
            *more,
        ],
        hosts=[
            host("h1", State.READY, jobs=2, unfit=1),
            host("h2", State.READY),
            host("h3", State.DRAINING, jobs=1),
            host("h4", State.BOOTING),
        ],
        fleets=FLEETS,
    )
    view = View(
        seen=seen,
        given_up=(),
        lost=frozenset({"h3"}),
        told=frozenset(),
        hourly={"small": 1.6, "dry": 0.0, "ill": 0.4},
        workers={},
        wide=frozenset(),
    )
    decision = Decision(desired={"small": 3, "dry": 0, "ill": 1}, held={"dry": "none", "ill": "rests"})
    data = metrics.of_view(view, decision)
    found = {
        (datum["MetricName"], "".join(entry["Value"] for entry in datum["Dimensions"])): datum["Value"]
        for datum in data
    }
    assert len(found) == len(data)
    units = {"OldestWait": "Seconds", "CostPerHour": "None"}
    assert all(datum["Unit"] == units.get(datum["MetricName"], "Count") for datum in data)
    return found


def test_the_queue() -> None:
    found = told()
    assert (found["JobsWaiting", ""], found["JobsBlocked", ""], found["OldestWait", ""]) == (3, 1, 90)
    assert found["JobsWaiting", "qemu_x86_64"] == 2
    assert found["JobsWaiting", "qemu_x86_64+tap"] == 1


def test_a_fleet() -> None:
    found = {name: value for (name, fleet), value in told().items() if fleet == "small"}
    assert found == {
        "SlotsBusy": 3,
        "SlotsIdle": 1 + 4,
        "SlotsUnfit": 1,
        "HostsBooting": 1,
        "HostsReady": 2,
        "HostsDraining": 1,
        "HostsWanted": 3,
        "BreakerOpen": 0,
        "NoCapacity": 0,
        "CostPerHour": 1.6,
    }


def test_a_fleet_has_no_hosts_of_another() -> None:
    found = told()
    for name in ("SlotsBusy", "SlotsIdle", "SlotsUnfit", "HostsBooting", "HostsReady", "HostsDraining"):
        assert found[name, "dry"] == 0


@pytest.mark.parametrize("classes", [(), (" ",)])
def test_jobs_without_a_class_have_a_name_as_cloudwatch_takes_none_that_is_blank(
    classes: tuple[str, ...],
) -> None:
    assert told(Job(id=8, classes=frozenset(classes), since=NOW))["JobsWaiting", "none"] == 1


def test_jobs_that_no_fleet_can_run() -> None:
    assert told()["JobsUnserved", ""] == 0
    others = (Job(id=number, classes=frozenset({"qemu_ppc64le"})) for number in (8, 9))
    assert told(*others)["JobsUnserved", ""] == 2


def test_what_is_wrong() -> None:
    found = told()
    assert (found["HostsLost", ""], found["BreakersOpen", ""], found["CostPerHour", ""]) == (1, 1, 2.0)
    assert found["FleetsWithoutCapacity", ""] == 1
    assert (found["NoCapacity", "dry"], found["BreakerOpen", "dry"]) == (1, 0)
    assert (found["NoCapacity", "ill"], found["BreakerOpen", "ill"]) == (0, 1)


def test_the_controller_itself() -> None:
    def told(blind: int, acted: int, failed: int) -> dict[str, float]:
        data = metrics.of_rounds(rounds=30, blind=blind, acted=acted, failed=failed)
        return {datum["MetricName"]: datum["Value"] for datum in data}

    assert told(29, 2, 1) == {
        "Rounds": 30,
        "RoundsBlind": 29,
        "Blind": 0,
        "Acts": 2,
        "ActsFailed": 1,
        "Refused": 0,
    }
    assert told(30, 0, 0)["Blind"] == 1
    assert told(0, 0, 1)["Refused"] == 1
    assert told(0, 0, 0)["Refused"] == 0
