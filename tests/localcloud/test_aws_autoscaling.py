"""The state machine of a group, with machines that only remember."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from localcloud.aws.autoscaling.model import (
    LAUNCHING,
    TERMINATING,
    Group,
    Hook,
    Launched,
    LaunchError,
    Member,
    Template,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Machines:
    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.registered: dict[str, list[str]] = {}
        self.spots: list[bool] = []
        self.refusal: str | None = None
        self.refused: set[str] = set()

    def state(self, instance: str) -> str:
        return self.states.get(instance, "terminated")

    def launch(self, group: Group, subnet: str, type: str | None, *, spot: bool) -> Launched:
        if self.refusal:
            raise LaunchError(self.refusal)
        for refused in {subnet, type} & self.refused:
            raise LaunchError(f"none in {refused}" if refused == subnet else f"no {refused}")
        name = f"i-{len(self.states)}"
        self.states[name] = "running"
        self.spots.append(spot)
        return Launched(id=name, subnet=subnet, zone=subnet, type=type or "t", template=group.template)

    def terminate(self, instance: str) -> None:
        self.states[instance] = "terminated"

    def register(self, target_group: str, instance: str) -> None:
        self.registered.setdefault(target_group, []).append(instance)

    def deregister(self, target_group: str, instance: str) -> None:
        self.registered[target_group].remove(instance)


@pytest.fixture
def machines() -> Machines:
    return Machines()


def hook(transition: str, default: str) -> Hook:
    name = "ready" if transition == LAUNCHING else "drain"
    return Hook(name=name, transition=transition, heartbeat=MINUTE, default=default)


def make(*hooks: Hook, desired: int = 1, subnets: tuple[str, ...] = ("a",)) -> Group:
    return Group(
        name="g",
        arn="arn",
        created=START,
        template=Template(id="lt-1", name="lt", version="1"),
        subnets=list(subnets),
        minimum=0,
        maximum=10,
        desired=desired,
        hooks={entry.name: entry for entry in hooks},
        target_groups=["tg"],
    )


READY = hook(LAUNCHING, "ABANDON")
DRAIN = hook(TERMINATING, "CONTINUE")


def states(group: Group) -> dict[str, str]:
    return {member.id: member.state for member in group.members.values()}


def launch(group: Group, machines: Machines, now: datetime = START) -> None:
    """Launches what is wanted, and sees that it runs."""
    group.step(machines, now)
    group.step(machines, now)


def in_service(machines: Machines, *hooks: Hook, desired: int = 1) -> tuple[Group, Member]:
    group = make(*hooks, desired=desired)
    launch(group, machines)
    for member in group.members.values():
        for wait in list(member.waiting.values()):
            group.complete(member, wait, "CONTINUE", START)
    group.step(machines, START)
    return group, group.members["i-0"]


def test_without_hooks_an_instance_serves_once_it_runs(machines: Machines) -> None:
    group = make()
    group.step(machines, START)
    machines.states["i-0"] = "pending"
    group.step(machines, START)
    assert states(group) == {"i-0": "Pending"}
    machines.states["i-0"] = "running"
    assert group.step(machines, START)
    assert states(group) == {"i-0": "InService"}
    assert machines.registered == {"tg": ["i-0"]}
    assert not group.step(machines, START)


def test_a_launching_hook_waits_for_no_instance_that_is_pending(machines: Machines) -> None:
    group = make(READY)
    group.step(machines, START)
    machines.states["i-0"] = "pending"
    group.step(machines, START + MINUTE)
    assert not group.members["i-0"].waiting
    machines.states["i-0"] = "running"
    group.step(machines, START + MINUTE)
    assert group.members["i-0"].waiting["ready"].deadline == START + 2 * MINUTE


def test_a_launching_hook_holds_until_it_is_completed(machines: Machines) -> None:
    group = make(READY)
    launch(group, machines)
    member = group.members["i-0"]
    assert member.state == "Pending:Wait"
    group.complete(member, member.waiting["ready"], "CONTINUE", START)
    group.step(machines, START)
    assert member.state == "InService"
    assert group.activities[0].status == "Successful"


def test_an_abandoned_launch_is_terminated_and_replaced(machines: Machines) -> None:
    group = make(READY, DRAIN)
    launch(group, machines)
    member = group.members["i-0"]
    group.complete(member, member.waiting["ready"], "ABANDON", START)
    launch(group, machines)
    assert machines.state("i-0") == "terminated"
    assert states(group) == {"i-1": "Pending:Wait"}


def test_a_silent_launch_takes_the_hooks_default(machines: Machines) -> None:
    group = make(READY)
    launch(group, machines)
    group.step(machines, START + MINUTE)
    assert list(group.members) == ["i-1"]


def test_scale_in_waits_for_the_terminating_hook(machines: Machines) -> None:
    group, member = in_service(machines, DRAIN)
    group.desired = 0
    group.step(machines, START)
    assert member.state == "Terminating:Wait"
    assert machines.state("i-0") == "running"
    assert machines.registered == {"tg": []}
    group.complete(member, member.waiting["drain"], "CONTINUE", START)
    group.step(machines, START)
    assert not group.members
    assert machines.state("i-0") == "terminated"


def test_heartbeats_prolong_a_wait_but_not_for_ever(machines: Machines) -> None:
    group, member = in_service(machines, DRAIN)
    group.desired = 0
    group.step(machines, START)
    now = START
    for _ in range(99):
        now += MINUTE
        member.waiting["drain"].deadline = now + MINUTE
        group.step(machines, now)
    assert member.state == "Terminating:Wait"
    group.step(machines, START + 100 * MINUTE)
    assert not group.members


def test_no_wait_is_longer_than_two_days(machines: Machines) -> None:
    slow = Hook(name="drain", transition=TERMINATING, heartbeat=timedelta(hours=2), default="CONTINUE")
    group, member = in_service(machines, slow)
    group.desired = 0
    group.step(machines, START)
    member.waiting["drain"].deadline = START + timedelta(days=3)
    group.step(machines, START + timedelta(hours=48) - MINUTE)
    assert member.state == "Terminating:Wait"
    group.step(machines, START + timedelta(hours=48))
    assert not group.members


@pytest.mark.parametrize(("result", "left"), [("CONTINUE", {"i-0": "Terminating:Wait"}), ("ABANDON", {})])
def test_an_abandoned_hook_ends_the_wait_for_the_others(
    machines: Machines, result: str, left: dict[str, str]
) -> None:
    other = Hook(name="other", transition=TERMINATING, heartbeat=MINUTE, default="CONTINUE")
    group, member = in_service(machines, DRAIN, other)
    group.desired = 0
    group.step(machines, START)
    group.complete(member, member.waiting["drain"], result, START)
    group.step(machines, START)
    assert states(group) == left


def test_protected_instances_stay(machines: Machines) -> None:
    group, member = in_service(machines)
    member.protected = True
    group.desired = 0
    group.step(machines, START)
    assert states(group) == {"i-0": "InService"}
    member.protected = False
    group.step(machines, START)
    assert not group.members


def test_an_unhealthy_instance_is_replaced_through_its_hook(machines: Machines) -> None:
    group, member = in_service(machines, DRAIN)
    member.healthy = False
    group.step(machines, START)
    assert states(group)["i-0"] == "Terminating:Wait"
    assert "i-1" in group.members
    assert "user health-check" in group.activities[1].cause


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_a_stopped_instance_is_unhealthy(machines: Machines, state: str) -> None:
    group, _ = in_service(machines, DRAIN)
    machines.states["i-0"] = state
    group.step(machines, START)
    assert states(group)["i-0"] == "Terminating:Wait"


def test_one_terminated_outside_is_replaced_at_once(machines: Machines) -> None:
    group, _ = in_service(machines, DRAIN)
    machines.states["i-0"] = "terminated"
    group.step(machines, START)
    assert list(group.members) == ["i-1"]


def test_suspended_processes_do_nothing(machines: Machines) -> None:
    group, member = in_service(machines)
    group.suspended = {"ReplaceUnhealthy": "", "Launch": "", "Terminate": ""}
    member.healthy = False
    group.desired = 0
    group.step(machines, START)
    assert states(group) == {"i-0": "InService"}
    group.desired = 5
    group.step(machines, START)
    assert len(group.members) == 1


def test_a_failed_launch_is_told_and_tried_again(machines: Machines) -> None:
    group = make()
    machines.refusal = "no such image"
    group.step(machines, START)
    group.step(machines, START)
    assert [(a.status, a.message) for a in group.activities] == [("Failed", "no such image")]
    machines.refusal = None
    group.step(machines, START + MINUTE)
    assert states(group) == {"i-0": "Pending"}


def test_instances_are_spread_over_the_subnets(machines: Machines) -> None:
    group = make(desired=4, subnets=("a", "b"))
    group.step(machines, START)
    assert sorted(m.launched.subnet for m in group.members.values()) == ["a", "a", "b", "b"]


def test_where_a_zone_has_none_another_gives_all(machines: Machines) -> None:
    group = make(desired=2, subnets=("a", "b"))
    machines.refused = {"a"}
    group.step(machines, START)
    assert [m.launched.subnet for m in group.members.values()] == ["b", "b"]
    assert [activity.message for activity in group.activities if activity.end] == ["none in a"] * 2
    machines.refused = {"a", "b"}
    group.desired = 3
    group.step(machines, START)
    assert len(group.members) == 2


def test_the_first_of_its_types_that_there_is(machines: Machines) -> None:
    group = make()
    group.types = ("t1", "t2", "t3")
    machines.refused = {"t1"}
    group.step(machines, START)
    assert [member.launched.type for member in group.members.values()] == ["t2"]
    group = make()
    group.types = ("t1", "t2")
    machines.refused = {"t1", "t2"}
    group.step(machines, START)
    assert [activity.message for activity in group.activities] == ["no t2"]


@pytest.mark.parametrize(
    ("base", "share", "spots"),
    [(0, 100, 0), (0, 0, 4), (1, 0, 3), (0, 50, 2), (0, 25, 3)],
)
def test_the_share_of_spot(machines: Machines, base: int, share: int, spots: int) -> None:
    group = make(desired=4)
    group.on_demand_base, group.on_demand_share = base, share
    group.step(machines, START)
    assert sum(machines.spots) == spots


def test_the_oldest_template_goes_first(machines: Machines) -> None:
    group, _ = in_service(machines)
    group.template = Template(id="lt-1", name="lt", version="2")
    group.desired = 2
    group.step(machines, START)
    group.step(machines, START)
    group.desired = 1
    group.step(machines, START)
    assert list(group.members) == ["i-1"]
