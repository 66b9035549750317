"""Auto Scaling groups as a state machine: :meth:`Group.step` looks at the machines and moves on."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from localcloud.aws.autoscaling.schedule import Action

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
RETRY = timedelta(seconds=10)
LONGEST = timedelta(hours=48)


class LaunchError(Exception):
    """An instance could not be launched; the message becomes the activity's."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """The launch template of a group, with its version as given: a number, $Latest or $Default."""

    id: str
    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A new instance."""

    id: str
    subnet: str
    zone: str
    type: str
    template: Template  # its version a number


class Machines(Protocol):
    """What a group needs of EC2 and the load balancers."""

    def state(self, instance: str) -> str:
        """The instance's state; ``terminated`` if it is unknown."""

    def launch(self, group: Group, subnet: str, type: str | None, *, spot: bool) -> Launched:
        """Launch an instance.

        Raises:
            LaunchError: It could not be launched.
        """

    def terminate(self, instance: str) -> None:
        """Terminate an instance."""

    def register(self, target_group: str, instance: str) -> None:
        """Add an instance to a target group."""

    def deregister(self, target_group: str, instance: str) -> None:
        """Take an instance from a target group."""


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A lifecycle hook."""

    name: str
    transition: str
    heartbeat: timedelta
    default: str  # CONTINUE or ABANDON

    @property
    def longest(self) -> timedelta:
        """How long the instance may wait in all, whatever heartbeats come."""
        return min(LONGEST, 100 * self.heartbeat)


@dataclass(kw_only=True)
class Wait:
    """An instance waits for a hook."""

    hook: Hook
    token: str
    deadline: datetime
    latest: datetime


@dataclass(kw_only=True)
class Activity:
    """What the group did, and why."""

    id: str
    description: str
    cause: str
    start: datetime
    end: datetime | None = None
    status: str = "InProgress"
    message: str | None = None

    def finish(self, now: datetime, status: str, message: str | None = None) -> None:
        """Note the outcome."""
        self.end, self.status, self.message = now, status, message


@dataclass(kw_only=True)
class Member:
    """An instance of a group."""

    launched: Launched
    activity: Activity
    state: str = "Pending"
    healthy: bool = True
    protected: bool = False
    in_service: datetime | None = None
    waiting: dict[str, Wait] = field(default_factory=dict)
    notice: str | None = None  # why it is unhealthy

    @property
    def id(self) -> str:
        """The instance."""
        return self.launched.id

    @property
    def leaving(self) -> bool:
        """It is on its way out, and no longer counts."""
        return self.state.startswith("Terminating")


@dataclass(kw_only=True)
class Group:
    """An Auto Scaling group.

    Attributes:
        types: The instance types that override the launch template's, the preferred first.
        on_demand_base: The number of instances that are never spot.
        on_demand_share: The share beyond that which is not spot, in percent.
        maintenance: The instance maintenance policy; None: none.
    """

    name: str
    arn: str
    created: datetime
    template: Template
    subnets: list[str]
    minimum: int
    maximum: int
    desired: int
    mixed: dict[str, Any] | None = None
    types: tuple[str, ...] = ()
    on_demand_base: int = 0
    on_demand_share: int = 100
    hooks: dict[str, Hook] = field(default_factory=dict)
    tags: list[dict[str, Any]] = field(default_factory=list)
    target_groups: list[str] = field(default_factory=list)
    protect_new: bool = False
    health_check: str = "EC2"
    grace: timedelta = timedelta(0)
    maintenance: dict[str, int] | None = None
    cooldown: int = 300
    termination_policies: list[str] = field(default_factory=lambda: ["Default"])
    suspended: dict[str, str] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    activities: list[Activity] = field(default_factory=list)
    retry: datetime | None = None
    changed: str = ""  # why the desired capacity is what it is

    def step(self, machines: Machines, now: datetime) -> bool:
        """Look at the machines, let time pass, and move every instance as far as it can go.

        Args:
            machines: EC2 and the load balancers.
            now: The time.

        Returns:
            Whether anything changed.
        """
        before = self._picture()
        for member in list(self.members.values()):
            self._observe(member, machines, now)
        for member in list(self.members.values()):
            self._expire(member, now)
        self._shrink(machines, now)
        for member in list(self.members.values()):
            self._advance(member, machines, now)
        self._grow(machines, now)
        return self._picture() != before

    def _picture(self) -> list[Any]:
        return [
            len(self.activities),
            *((m.id, m.state, m.healthy, m.protected, tuple(m.waiting)) for m in self.members.values()),
        ]

    # -- the moves, each of one instance

    def _observe(self, member: Member, machines: Machines, now: datetime) -> None:
        state = machines.state(member.id)
        if state in ("shutting-down", "terminated") and not member.leaving:
            # Nothing is left to run hooks on.
            if member.state != "InService":
                member.activity.finish(now, "Cancelled", f"Instance {member.id} was terminated outside.")
            self._leave(
                member, machines, now, "an EC2 health check indicating it has been terminated or stopped"
            )
            member.state = "Terminating:Proceed"
            member.waiting.clear()
        elif state == "terminated" and member.waiting:
            member.state = "Terminating:Proceed"
            member.waiting.clear()
        elif (
            state in ("stopping", "stopped")
            and member.state == "InService"
            and "HealthCheck" not in self.suspended
        ):
            member.healthy = False
            member.notice = "an EC2 health check indicating it has been terminated or stopped"
        if not member.healthy and member.state == "InService" and "ReplaceUnhealthy" not in self.suspended:
            self._leave(member, machines, now, member.notice or "a user health-check")

    def _expire(self, member: Member, now: datetime) -> None:
        for wait in list(member.waiting.values()):
            if now >= min(wait.deadline, wait.latest):
                self.complete(member, wait, wait.hook.default, now)

    def complete(self, member: Member, wait: Wait, result: str, now: datetime) -> None:
        """End an instance's wait for a hook.

        Args:
            member: The instance.
            wait: The wait.
            result: CONTINUE or ABANDON.
            now: The time.
        """
        member.waiting.pop(wait.hook.name, None)
        if result == "ABANDON" and not member.leaving:
            member.activity.finish(
                now, "Cancelled", f"Lifecycle hook {wait.hook.name} was abandoned for {member.id}."
            )
            self._begin_termination(member, now, "A lifecycle hook was abandoned or timed out.")
            # It never served: there is nothing to drain.
            member.waiting.clear()
            member.state = "Terminating:Proceed"
        elif result == "ABANDON":
            member.waiting.clear()
            member.state = "Terminating:Proceed"
        elif not member.waiting:
            member.state = "Terminating:Proceed" if member.leaving else "Pending:Proceed"

    def _advance(self, member: Member, machines: Machines, now: datetime) -> None:
        # A hook begins only once the instance runs: until then it cannot be completed.
        if member.state == "Pending" and machines.state(member.id) == "running":
            self._await(member, LAUNCHING, now)
        if member.state == "Pending:Proceed":
            member.state = "InService"
            member.in_service = now
            member.protected = self.protect_new
            member.activity.finish(now, "Successful")
            for target_group in self.target_groups:
                machines.register(target_group, member.id)
        if member.state == "Terminating:Proceed" and "Terminate" not in self.suspended:
            if machines.state(member.id) not in ("shutting-down", "terminated"):
                machines.terminate(member.id)
            if machines.state(member.id) == "terminated":
                member.activity.finish(now, "Successful")
                del self.members[member.id]

    def _leave(self, member: Member, machines: Machines, now: datetime, why: str) -> None:
        for target_group in self.target_groups:
            machines.deregister(target_group, member.id)
        cause = f"At {_text(now)} an instance was taken out of service in response to {why}."
        self._begin_termination(member, now, cause)

    def _begin_termination(self, member: Member, now: datetime, cause: str) -> None:
        member.protected = False
        member.activity = self._activity(f"Terminating EC2 instance: {member.id}", cause, now)
        self._await(member, TERMINATING, now)

    def _await(self, member: Member, transition: str, now: datetime) -> None:
        stem = "Terminating" if transition == TERMINATING else "Pending"
        member.waiting = {
            hook.name: Wait(
                hook=hook,
                token=str(uuid.uuid4()),
                deadline=now + hook.heartbeat,
                latest=now + hook.longest,
            )
            for hook in self.hooks.values()
            if hook.transition == transition
        }
        member.state = f"{stem}:Wait" if member.waiting else f"{stem}:Proceed"
        if member.waiting:
            member.activity.status = "MidLifecycleAction"

    # -- the moves of the group

    def counting(self) -> list[Member]:
        """The instances that count as capacity."""
        return [member for member in self.members.values() if not member.leaving]

    def _shrink(self, machines: Machines, now: datetime) -> None:
        if "Terminate" in self.suspended:
            return
        excess = len(self.counting()) - self.desired
        candidates = [m for m in self.counting() if m.state == "InService" and not m.protected]
        for member in _oldest(candidates, self)[: max(0, excess)]:
            size = len(self.counting())
            self._leave(
                member,
                machines,
                now,
                f"a difference between desired and actual capacity, shrinking the capacity from {size} to "
                f"{size - 1}{self.changed}",
            )

    def _grow(self, machines: Machines, now: datetime) -> None:
        if "Launch" in self.suspended or (self.retry is not None and now < self.retry):
            return
        while len(self.counting()) < self.desired:
            # Where one zone has no host, another may.
            if not any(self._launch(subnet, machines, now) for subnet in self._emptiest()):
                self.retry = now + RETRY
                return

    def _launch(self, subnet: str, machines: Machines, now: datetime) -> bool:
        size = len(self.counting())
        cause = (
            f"At {_text(now)} an instance was started in response to a difference between desired and actual "
            f"capacity, increasing the capacity from {size} to {size + 1}{self.changed}."
        )
        activity = self._activity("Launching a new EC2 instance.", cause, now)
        refusals = []
        for kind in self.types or (None,):
            try:
                launched = machines.launch(self, subnet, kind, spot=self._spot(size))
                break
            except LaunchError as error:
                refusals.append(str(error))
        else:
            activity.description += " Status Reason: Launching EC2 instance failed."
            activity.finish(now, "Failed", refusals[-1])
            return False
        activity.description = f"Launching a new EC2 instance: {launched.id}"
        member = Member(launched=launched, activity=activity)
        self.members[member.id] = member
        return True

    def _spot(self, size: int) -> bool:
        beyond = size - self.on_demand_base
        if beyond < 0:
            return False
        # As many on-demand instances as the share says, rounded up.
        return -(-(beyond + 1) * self.on_demand_share // 100) == -(-beyond * self.on_demand_share // 100)

    def _emptiest(self) -> list[str]:
        """The subnets, those with the fewest instances first."""
        used = [member.launched.subnet for member in self.counting()]
        return sorted(self.subnets, key=used.count)

    def terminate(self, member: Member, machines: Machines, now: datetime, *, decrement: bool) -> Activity:
        """Take an instance out by order, through its hooks.

        Args:
            member: The instance.
            machines: EC2 and the load balancers.
            now: The time.
            decrement: Do not replace it.

        Returns:
            The activity.
        """
        if decrement:
            self.desired -= 1
        replaced = "" if decrement else ", and is replaced"
        served = member.state == "InService"
        if not served:
            member.activity.finish(now, "Cancelled", "Terminated by a user request.")
        self._leave(member, machines, now, f"a user request{replaced}")
        if not served:
            member.waiting.clear()
            member.state = "Terminating:Proceed"
        return member.activity

    def _activity(self, description: str, cause: str, now: datetime) -> Activity:
        activity = Activity(id=str(uuid.uuid4()), description=description, cause=cause, start=now)
        self.activities.insert(0, activity)
        return activity


def _oldest(members: Iterable[Member], group: Group) -> list[Member]:
    """Those to go first: in the fullest zone, with the oldest launch template, the oldest."""
    counting = [m.launched.zone for m in group.counting()]

    def rank(member: Member) -> tuple[int, int, datetime]:
        template = member.launched.template
        current = 1 if template.id == group.template.id else 0
        version = int(template.version) if current else 0
        return (-counting.count(member.launched.zone), version, member.activity.start)

    return sorted(members, key=rank)


def _text(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
