"""What the controller does about a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import create_autospec

from hypothesis import given
from hypothesis import strategies as st

from fleet.acts import Act, KeepUneven, LetGo, SetDesired, UseSubnets, acts, closings
from fleet.groups import Groups, Launches, Member
from fleet.model import Decision
from fleet.policy import decide
from fleet.view import View
from tests.fleet.moments import FACTS, NOW, group, job, look, member, worker


def moment(**changes: Any) -> View:
    empty = look().seen
    made = View(
        seen=empty,
        given_up=(),
        lost=frozenset(),
        told=frozenset(),
        hourly={},
        workers={},
        wide=frozenset(),
    )
    return replace(made, **changes)


def asked(decision: Decision, *members: Member, at: View | None = None, **changes: Any) -> list[Act]:
    return acts(decision, at or moment(), {"group": group(*members, **changes)}, [FACTS])


def brief(found: list[Act]) -> list[tuple[str, bool] | int]:
    """A host and whether its place goes with it, or the desired capacity."""
    return [
        (act.instance, act.decrement) if isinstance(act, LetGo) else act.desired
        for act in found
        if isinstance(act, LetGo | SetDesired)
    ]


def test_launches_are_a_desired_capacity() -> None:
    assert brief(asked(Decision(desired={"small": 3}), member("i-1"))) == [3]


def test_acts_say_what_they_do_and_why() -> None:
    acted = asked(Decision(desired={"small": 2}, release=("i-1",)), member("i-1"))
    assert [act.text for act in acted] == [
        "small: i-1 drains and goes (idle)",
        "small: 2 hosts wanted (1 before)",
    ]


def test_nothing_to_do_is_nothing_done() -> None:
    assert asked(Decision(desired={"small": 1}), member("i-1")) == []


def test_a_release_takes_the_host_and_its_place() -> None:
    decision = Decision(desired={"small": 1}, release=("i-2",))
    assert brief(asked(decision, member("i-1"), member("i-2"))) == [("i-2", True)]


def test_an_old_host_is_replaced_where_the_fleet_shall_not_shrink() -> None:
    decision = Decision(desired={"small": 1}, drain=("i-1",))
    (act,) = asked(decision, member("i-1"))
    groups = create_autospec(Groups)
    act.carry_out(groups)
    groups.terminate.assert_called_once_with("i-1", decrement=False)


def test_never_below_the_groups_minimum_or_above_its_maximum() -> None:
    assert brief(asked(Decision(desired={"small": 0}, release=("i-1",)), member("i-1"), min=1)) == [
        ("i-1", False)
    ]
    assert brief(asked(Decision(desired={"small": 50}), member("i-1"))) == [9]


def test_launches_that_nobody_needs_any_more_are_called_off_while_there_is_no_host_yet() -> None:
    assert brief(asked(Decision(desired={"small": 1}), member("i-1"), desired=4)) == [1]


def test_a_group_is_told_once_to_leave_its_zones_uneven() -> None:
    (act,) = asked(Decision(desired={"small": 1}), member("i-1"), evens_out=True)
    assert isinstance(act, KeepUneven)
    assert act.text == "small: zones are not evened out (which would launch hosts without work)"
    assert asked(Decision(desired={"small": 1}), member("i-1"), evens_out=False) == []


def test_a_group_is_told_where_hosts_shall_boot() -> None:
    stay = Decision(desired={"small": 1})
    (act,) = asked(stay, member("i-1"), at=moment(wide=frozenset({"group"})))
    assert isinstance(act, UseSubnets)
    assert act.subnets == ("near", "far")
    assert act.text == "small: hosts boot in near, far (the web UI's zone has none)"
    spread = frozenset({"far", "near"})
    assert asked(stay, member("i-1"), at=moment(wide=frozenset({"group"})), subnets=spread) == []
    (act,) = asked(stay, member("i-1"), subnets=spread)
    assert act.text == "small: hosts boot in near (the web UI's zone, again)"
    assert asked(stay, member("i-1")) == []


def test_a_group_whose_subnets_are_not_told_keeps_those_it_has() -> None:
    untold = replace(FACTS, subnets=())
    short = Launches(no_capacity_at=NOW - 20)
    for subnets in (("near",), ("far", "near")):
        found = look(member("i-1"), launches=short, facts=untold, subnets=subnets)
        groups = {"group": group(member("i-1"), subnets=frozenset(subnets))}
        assert acts(Decision(desired={"small": 1}), found, groups, [untold]) == []
        (fleet,) = found.seen.fleets
        assert fleet.no_capacity_at == NOW - 20


def test_no_host_is_left_to_the_groups_choice() -> None:
    assert asked(Decision(desired={"small": 0}), member("i-1"), member("i-2")) == []


def test_a_host_that_was_told_to_go_is_not_replaced_by_accident() -> None:
    at = moment(told=frozenset({"i-1"}))
    assert asked(Decision(desired={"small": 0}), member("i-1"), at=at, desired=0) == []


def test_a_lost_host_still_is_capacity_to_its_group() -> None:
    at = moment(lost=frozenset({"i-1"}))
    assert brief(asked(Decision(desired={"small": 1}), member("i-1"), at=at)) == [2]


def test_a_lost_host_that_is_given_up_goes() -> None:
    at = moment(lost=frozenset({"i-1"}), given_up=("i-1",))
    assert brief(asked(Decision(desired={"small": 0}), member("i-1"), at=at)) == [("i-1", True)]


def test_a_host_that_goes_already_is_left_alone() -> None:
    decision = Decision(desired={"small": 0}, release=("i-1",))
    assert asked(decision, member("i-1", "Terminating:Wait"), desired=0) == []


def test_a_fleet_whose_hosts_do_not_come_up_has_none_that_its_group_would_replace() -> None:
    booting = (member("i-1"), member("i-2", "Pending:Wait"), member("i-3", "Pending"))
    at = moment(seen=look(*booting, launches=Launches(failures=3, last_failure=NOW)).seen)
    decision = Decision(desired={"small": 3}, held={"small": "3 hosts in a row did not come up."})
    assert brief(asked(decision, *booting, at=at)) == [("i-2", True), ("i-3", True)]
    # The minimum is the group's own affair: to call off what it must launch again would never end.
    assert brief(asked(decision, *booting, at=at, min=2)) == [("i-2", True)]
    assert asked(decision, *booting, at=at, min=3) == []
    assert brief(asked(decision, *booting, at=at, min=4)) == [4]
    # After its rest it is tried again.
    assert asked(Decision(desired={"small": 3}), *booting, at=at) == []


def test_hosts_that_boot_are_not_called_off_where_aws_has_no_more() -> None:
    at = moment(seen=look(launches=Launches(failures=2, last_failure=NOW, no_capacity_at=NOW)).seen)
    decision = Decision(desired={"small": 1}, held={"small": "AWS has no capacity for it."})
    assert asked(decision, member("i-1", "Pending:Wait"), at=at) == []


def test_a_host_that_boots_and_has_a_job_already_is_not_called_off() -> None:
    booting = member("i-1", "Pending:Wait", launched=NOW - 100)
    held = Launches(failures=3, last_failure=NOW - 10)
    found = look(booting, workers=(worker(1, job=7),), jobs=(job(8),), launches=held)
    assert acts(decide(found.seen), found, {"group": group(booting)}, [FACTS]) == []


def test_what_cannot_be_used_changes_nothing() -> None:
    decision = Decision(desired={"small": 9}, release=("i-1",), unusable="It is too old.")
    assert asked(decision, member("i-1")) == []


@given(
    states=st.lists(st.sampled_from(["Pending:Wait", "InService", "Terminating:Wait"]), max_size=6),
    desired=st.integers(min_value=0, max_value=9),
    least=st.integers(min_value=0, max_value=3),
    wanted=st.integers(min_value=0, max_value=9),
    going=st.sets(st.integers(min_value=0, max_value=5)),
)
def test_a_group_never_has_to_choose_a_host(
    states: list[str], desired: int, least: int, wanted: int, going: set[int]
) -> None:
    members = [member(f"i-{n}", state) for n, state in enumerate(states)]
    decision = Decision(desired={"small": wanted}, release=tuple(f"i-{n}" for n in going))
    left, capacity = [found for found in members if found.counts], max(desired, least)
    for act in asked(decision, *members, min=least, desired=capacity):
        if isinstance(act, LetGo):
            left = [found for found in left if found.id != act.instance]
            capacity -= act.decrement
        if isinstance(act, SetDesired):
            capacity = act.desired
        assert least <= capacity <= 9
    assert capacity >= len(left)


# -- closings


def test_idle_workers_are_closed_before_busy_ones_and_closed_ones_stay_so() -> None:
    rows = tuple(
        replace(worker(number), number=number, connected=number != 2, job=7 if number == 4 else None)
        for number in (1, 2, 3, 4)
    )
    found = look(member("i-1"), workers=rows)

    def closed(workers: int) -> set[int]:
        return set(closings(Decision(desired={}, open={"i-1": workers}), found).get("i-1", ()))

    assert [closed(workers) for workers in (4, 3, 2, 1, 0)] == [set(), {2}, {2, 3}, {1, 2, 3}, {1, 2, 3, 4}]
    assert closed(5) == set(), "openQA does not know all of them yet"
    assert closings(Decision(desired={}), found) == {}
    for going in (Decision(desired={}, drain=("i-1",)), Decision(desired={}, release=("i-1",))):
        assert closings(going, found) == {"i-1": {1, 2, 3, 4}}, "it starts none on the way"
    assert closings(Decision(desired={}), replace(found, given_up=("i-1",))) == {"i-1": {1, 2, 3, 4}}


def test_a_host_that_goes_before_openqa_knows_it_has_no_workers_to_close() -> None:
    found = look(member("i-1", "Pending:Wait"))
    assert closings(Decision(desired={}, release=("i-1",)), found) == {}


def test_a_broken_worker_is_not_the_one_that_is_opened() -> None:
    rows = tuple(
        replace(worker(number), number=number, connected=number == 3, broken=number == 1, job=None)
        for number in (1, 2, 3)
    )
    found = look(member("i-1"), workers=rows)
    assert closings(Decision(desired={}, open={"i-1": 2}), found) == {"i-1": {1}}


def test_a_host_that_ec2_has_ended_is_still_capacity_to_its_group() -> None:
    """As long as its group counts it, a host more must be desired for the job that waits."""
    ended = member("i-1", gone=True)
    found = look(ended, jobs=(job(1),))
    decision = decide(found.seen)
    assert brief(acts(decision, found, {"group": group(ended)}, [FACTS])) == [decision.desired["small"] + 1]
