"""The fleets' Auto Scaling groups: their state, how launches went, and the four things done to them."""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

# The process by which a group evens out its zones: it launches a host in one before it ends one in another;
# where all are protected it ends none. The EC2 Auto Scaling user guide, "Rebalancing activities".
EVENING_OUT = "AZRebalance"
# How many of the last launches tell how long a launch takes.
LAUNCHES = 8
_NAMED = 50  # the most names that one call takes, where it asks for no larger pages
_ACTIVITIES = 100  # the most that one call returns
# How EC2 and Auto Scaling say that no host is available for now: the EC2 API's error codes, which groups with
# several instance types show, and the sentences that other groups show ("We currently do not have sufficient
# m5.metal capacity", "There is no Spot capacity available", "You have requested more vCPU capacity than your
# current vCPU limit of 384 allows", "There are not enough free addresses in subnet"). The same for a zone
# that never has the type, by its sentence, as its code, "Unsupported", has other causes too; and for a spot
# host that was taken back before it was up, by EC2's reason for the instance's state.
_NO_CAPACITY = re.compile(
    r"Insufficient\w*Capacity|sufficient \S+ capacity|no Spot capacity|UnfulfillableCapacity"
    r"|VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded"
    r"|than your current (vCPU|instance) limit|InsufficientFreeAddresses|not enough free addresses"
    r"|not supported in your requested Availability Zone|SpotInstance(Termination|Shutdown)"
)
# "Launching a new EC2 instance: i-0a01. Status Reason: Instance failed to complete …"
_INSTANCE = re.compile(r"\bi-\w+")
# A launch hook that ended in ABANDON or timed out. Launches cancelled in other ways are not failures.
_GIVEN_UP = re.compile(r"abandoned", re.IGNORECASE)


class AwsError(Exception):
    """AWS does not answer, or refuses; the message is one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A launch template's version."""

    template: str
    number: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An instance of a group.

    Attributes:
        id: Its id.
        state: Its lifecycle state, such as ``Pending:Wait``.
        healthy: The group does not mean to replace it.
        type: Its instance type.
        version: What it was launched from.
        launched: Seconds since the epoch; None until EC2 tells.
        gone: EC2 has ended it; its group may not know that yet, or still wait for its hook in vain.
    """

    id: str
    state: str
    healthy: bool
    type: str
    version: Version | None
    launched: float | None = None
    gone: bool = False

    @property
    def pending(self) -> bool:
        """It boots."""
        return self.state.startswith("Pending")

    @property
    def counts(self) -> bool:
        """It is part of the group's capacity."""
        return self.pending or self.state == "InService"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """An Auto Scaling group.

    Attributes:
        name: Its name.
        min: The fewest hosts it may have.
        max: The most hosts it may have.
        desired: How many hosts it shall have.
        version: What it launches from now.
        members: Its instances.
        evens_out: When hosts have left a zone, it launches others there to even out its zones.
        subnets: Where it launches hosts now.
    """

    name: str
    min: int
    max: int
    desired: int
    version: Version | None
    members: tuple[Member, ...]
    evens_out: bool = False
    subnets: frozenset[str] = frozenset()

    def outdated(self, member: Member) -> bool:
        """Tell whether a member was launched from another version than the group launches now."""
        return None not in (member.version, self.version) and member.version != self.version


@dataclass(frozen=True, kw_only=True, slots=True)
class Launches:
    """How a group's last launches went.

    Attributes:
        failures: Launches in a row whose host did not come up.
        last_failure: When the last of them ended, seconds since the epoch.
        no_capacity_at: When the last launch for which AWS had no capacity began; None if AWS has given a host
            since.
        boot_seconds: The median from launch to service; None if none came up yet.
    """

    failures: int = 0
    last_failure: float | None = None
    no_capacity_at: float | None = None
    boot_seconds: float | None = None


class Groups:
    """Auto Scaling and EC2, as far as the controller needs them.

    Args:
        client: Makes a client for a service's name.
        clock: Seconds since the epoch.
    """

    def __init__(self, client: Callable[[str], Any], clock: Callable[[], float] = time.time) -> None:
        self._autoscaling = client("autoscaling")
        self._ec2 = client("ec2")
        self._clock = clock
        self._excused: deque[str] = deque(maxlen=1000)

    def read(self, names: Sequence[str]) -> tuple[float, dict[str, Group]]:
        """Read the groups of these names; those that do not exist are not in the answer.

        Returns:
            When the reading began, in seconds since the epoch, and the groups by name.

        Raises:
            AwsError: AWS does not answer.
        """
        at = self._clock()
        described: list[Mapping[str, Any]] = []
        for chunk in _chunks(names):
            asked = {"AutoScalingGroupNames": chunk}
            described += _pages(
                self._autoscaling, "describe_auto_scaling_groups", "AutoScalingGroups", **asked
            )
        ids = [instance["InstanceId"] for group in described for instance in group["Instances"]]
        facts: dict[str, Mapping[str, Any]] = {}
        for chunk in _chunks(ids):
            # A filter and not ids: with ids, an instance that is gone already would fail the whole call.
            filters = [{"Name": "instance-id", "Values": chunk}]
            for reservation in _pages(self._ec2, "describe_instances", "Reservations", Filters=filters):
                facts |= {instance["InstanceId"]: instance for instance in reservation["Instances"]}
        groups = {group["AutoScalingGroupName"]: _group(group, facts) for group in described}
        self._excuse(_old_launches(groups.values()))
        return at, groups

    def launches(self, name: str) -> Launches:
        """Tell how a group's last launches went.

        Raises:
            AwsError: AWS does not answer.
        """
        answer = _call(
            "describe_scaling_activities",
            self._autoscaling.describe_scaling_activities,
            AutoScalingGroupName=name,
            MaxRecords=_ACTIVITIES,
        )
        return judge(answer["Activities"], excused=self._excused)

    def terminate(self, instance: str, *, decrement: bool) -> None:
        """Terminate a host through its group's hook, which waits for its jobs.

        Args:
            instance: Its id.
            decrement: No other host takes its place.

        Raises:
            AwsError: AWS does not answer, or refuses.
        """
        self._excuse([instance])
        _call(
            f"terminate {instance}",
            self._autoscaling.terminate_instance_in_auto_scaling_group,
            InstanceId=instance,
            ShouldDecrementDesiredCapacity=decrement,
        )

    def set_desired(self, name: str, desired: int) -> None:
        """Set how many hosts a group shall have.

        Raises:
            AwsError: AWS does not answer, or refuses.
        """
        _call(
            f"set the desired capacity of {name}",
            self._autoscaling.set_desired_capacity,
            AutoScalingGroupName=name,
            DesiredCapacity=desired,
            HonorCooldown=False,
        )

    def keep_uneven(self, name: str) -> None:
        """Have a group leave its hosts in the zones where they are.

        Raises:
            AwsError: AWS does not answer, or refuses.
        """
        _call(
            f"suspend {EVENING_OUT} of {name}",
            self._autoscaling.suspend_processes,
            AutoScalingGroupName=name,
            ScalingProcesses=[EVENING_OUT],
        )

    def use_subnets(self, name: str, subnets: Sequence[str]) -> None:
        """Have a group launch hosts in these subnets from now on; its present hosts stay where they are.

        Raises:
            AwsError: AWS does not answer, or refuses.
        """
        _call(
            f"set the subnets of {name}",
            self._autoscaling.update_auto_scaling_group,
            AutoScalingGroupName=name,
            VPCZoneIdentifier=",".join(subnets),
        )

    def _excuse(self, instances: Iterable[str]) -> None:
        """Remember hosts that need not come up: their failures are not those of the present template."""
        self._excused.extend(instance for instance in instances if instance not in self._excused)


def judge(activities: Iterable[Mapping[str, Any]], *, excused: Collection[str] = ()) -> Launches:
    """Tell from a group's activities how its launches went.

    Args:
        activities: As Auto Scaling describes them, the newest first.
        excused: Hosts that do not count as failures, as they were told to go or their template is old.
    """
    failures = 0
    last_failure: float | None = None
    no_capacity_at: float | None = None
    boots: list[float] = []
    given = False  # a host that is not up yet
    for activity in activities:
        if not activity["Description"].startswith("Launching"):
            continue
        if "EndTime" not in activity:
            given = given or _INSTANCE.search(activity["Description"]) is not None
            continue
        ended = activity["EndTime"].timestamp()
        message = activity.get("StatusMessage") or ""
        if activity["StatusCode"] == "Successful":
            boots.append(ended - activity["StartTime"].timestamp())
        elif boots or any(id in excused for id in _INSTANCE.findall(activity["Description"])):
            continue  # others came up since, or it was excused
        elif activity["StatusCode"] == "Failed" and _NO_CAPACITY.search(message):
            no_capacity_at = no_capacity_at or (None if given else activity["StartTime"].timestamp())
        elif activity["StatusCode"] == "Failed" or _GIVEN_UP.search(message):
            failures += 1
            last_failure = last_failure or ended
    return Launches(
        failures=failures,
        last_failure=last_failure,
        no_capacity_at=no_capacity_at,
        boot_seconds=statistics.median(boots[:LAUNCHES]) if boots else None,
    )


def _old_launches(groups: Iterable[Group]) -> Iterable[str]:
    """The hosts that boot from an old template: what they read while booting may be gone since a release."""
    return (
        member.id for group in groups for member in group.members if member.pending and group.outdated(member)
    )


def _group(group: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> Group:
    mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    return Group(
        name=group["AutoScalingGroupName"],
        min=group["MinSize"],
        max=group["MaxSize"],
        desired=group["DesiredCapacity"],
        version=_version(group.get("LaunchTemplate") or mixed.get("LaunchTemplateSpecification")),
        members=tuple(
            _member(instance, facts.get(instance["InstanceId"], {})) for instance in group["Instances"]
        ),
        evens_out=all(
            process["ProcessName"] != EVENING_OUT for process in group.get("SuspendedProcesses", ())
        ),
        subnets=frozenset(filter(None, group.get("VPCZoneIdentifier", "").split(","))),
    )


def _member(instance: Mapping[str, Any], facts: Mapping[str, Any]) -> Member:
    return Member(
        id=instance["InstanceId"],
        state=instance["LifecycleState"],
        healthy=instance["HealthStatus"].lower() == "healthy",
        type=instance.get("InstanceType", ""),
        version=_version(instance.get("LaunchTemplate")),
        launched=facts["LaunchTime"].timestamp() if "LaunchTime" in facts else None,
        gone=facts.get("State", {}).get("Name") in ("shutting-down", "terminated"),
    )


def _version(template: Mapping[str, Any] | None) -> Version | None:
    """The version, if it is a number: this app's groups always name one."""
    if not template or not str(template.get("Version", "")).isdecimal():
        return None
    return Version(template=template["LaunchTemplateId"], number=str(template["Version"]))


def _chunks(names: Sequence[str]) -> Iterable[list[str]]:
    return (list(names[i : i + _NAMED]) for i in range(0, len(names), _NAMED))


def _pages(client: Any, action: str, key: str, **asked: Any) -> list[Mapping[str, Any]]:
    pages = client.get_paginator(action).paginate(**asked)
    found: list[Mapping[str, Any]] = _call(action, lambda: [entry for page in pages for entry in page[key]])
    return found


def _call(what: str, function: Callable[..., Any], **arguments: Any) -> Any:
    try:
        return function(**arguments)
    except (ClientError, BotoCoreError) as error:
        raise AwsError(f"{what}: {error}") from error
