"""The Auto Scaling API."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from localcloud.aws.autoscaling.machines import Ec2Machines
from localcloud.aws.autoscaling.model import (
    LAUNCHING,
    TERMINATING,
    Activity,
    Group,
    Hook,
    Machines,
    Member,
    Template,
    Wait,
)
from localcloud.aws.autoscaling.schedule import Action, following
from localcloud.aws.service import Refusal
from localcloud.aws.world import World

Parameters = dict[str, Any]
Found = TypeVar("Found")
_PROCESSES = (
    "Launch",
    "Terminate",
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "ScheduledActions",
)
_PROPERTIES = {
    "AutoScalingGroupName",
    "Cooldown",
    "DefaultCooldown",
    "DesiredCapacity",
    "HealthCheckGracePeriod",
    "HealthCheckType",
    "InstanceMaintenancePolicy",
    "LaunchTemplate",
    "LifecycleHookSpecificationList",
    "MaxSize",
    "MinSize",
    "MixedInstancesPolicy",
    "NewInstancesProtectedFromScaleIn",
    "Tags",
    "TargetGroupARNs",
    "TerminationPolicies",
    "VPCZoneIdentifier",
}


def _invalid(message: str) -> Refusal:
    return Refusal("ValidationError", message)


def _page_size(p: Parameters, default: int) -> int:
    size = int(p.get("MaxRecords", default))
    if not 1 <= size <= 100:
        raise _invalid(f"Value '{size}' at 'maxRecords' must be between 1 and 100")
    return size


def _page(p: Parameters, found: list[Found], default: int) -> tuple[list[Found], str | None]:
    """A page of what was found, and the token with which the next is asked for."""
    start = int(p.get("NextToken") or 0)
    end = start + _page_size(p, default)
    return found[start:end], str(end) if end < len(found) else None


class AutoScaling:
    """One method per action; parameters and answers as boto3 has them."""

    def __init__(self, world: World, machines: Machines | None = None) -> None:
        self.world = world
        self.machines: Machines = machines or Ec2Machines(world)
        self.groups: dict[str, Group] = {}

    def step(self, now: datetime) -> None:
        """Move all groups as far as they can go, and tell if anything changed."""
        with self.world.changed:
            for group in self.groups.values():
                self._act(group, now)
            moved = [group.step(self.machines, now) for group in self.groups.values()]
            if any(moved):
                self.world.touch()

    def _moved(self) -> None:
        self.step(self.world.clock())
        self.world.touch()

    # -- finding

    def group(self, name: str) -> Group:
        """The group of this name.

        Raises:
            Refusal: There is none.
        """
        if name not in self.groups:
            raise _invalid(f"AutoScalingGroup name not found - no such group: {name}")
        return self.groups[name]

    def member(self, instance: str) -> tuple[Group, Member] | None:
        """The group that an instance is in; None if it is in none."""
        for group in self.groups.values():
            if instance in group.members:
                return group, group.members[instance]
        return None

    def _member(self, instance: str) -> tuple[Group, Member]:
        found = self.member(instance)
        if found is None:
            raise _invalid(f"Instance Id not found - No managed instance found for instance ID {instance}")
        return found

    # -- groups

    def create_auto_scaling_group(self, p: Parameters) -> None:
        """Create a group; its instances are launched at once."""
        name = p["AutoScalingGroupName"]
        if name in self.groups:
            raise Refusal("AlreadyExists", f"AutoScalingGroup by this name already exists - {name}")
        if unknown := sorted(p.keys() - _PROPERTIES):
            raise _invalid(f"The local cloud does not support {', '.join(unknown)} of Auto Scaling groups")
        if not p.get("VPCZoneIdentifier"):
            raise _invalid("VPCZoneIdentifier is required by the local cloud")
        arn = (
            f"arn:aws:autoscaling:{self.world.region}:{self.world.account}:autoScalingGroup:{uuid.uuid4()}"
            f":autoScalingGroupName/{name}"
        )
        minimum = int(p["MinSize"])
        group = Group(
            name=name,
            arn=arn,
            created=self.world.clock(),
            template=Template(id="", name="", version=""),
            subnets=[],
            minimum=minimum,
            maximum=int(p["MaxSize"]),
            desired=int(p.get("DesiredCapacity", minimum)),
        )
        group.hooks = {
            entry["LifecycleHookName"]: _hook(entry) for entry in p.get("LifecycleHookSpecificationList", [])
        }
        self._configure(group, p)
        self._set_tags(group, p.get("Tags", []))
        self.groups[name] = group
        self._moved()

    def _configure(self, group: Group, p: Parameters) -> None:
        minimum = int(p.get("MinSize", group.minimum))
        maximum = int(p.get("MaxSize", group.maximum))
        desired = int(p.get("DesiredCapacity", min(max(group.desired, minimum), maximum)))
        if not minimum <= desired <= maximum:
            raise _invalid(
                f"Desired capacity:{desired} must be between the specified min size:{minimum} and "
                f"max size:{maximum}"
            )
        if p.get("HealthCheckType", "EC2") != "EC2":
            raise _invalid("The local cloud knows no HealthCheckType but EC2")
        if "InstanceMaintenancePolicy" in p:
            group.maintenance = _maintenance(p["InstanceMaintenancePolicy"])
        if "VPCZoneIdentifier" in p:
            subnets = [subnet.strip() for subnet in p["VPCZoneIdentifier"].split(",")]
            try:
                self.world.client("ec2").describe_subnets(SubnetIds=subnets)
            except ClientError as error:
                raise _invalid(str(error.response["Error"]["Message"])) from error
            group.subnets = subnets
        if "LaunchTemplate" in p:
            group.template, group.mixed, group.types = self._template(p["LaunchTemplate"]), None, ()
            group.on_demand_base, group.on_demand_share = 0, 100
        elif "MixedInstancesPolicy" in p:
            self._mix(group, p["MixedInstancesPolicy"])
        elif not group.template.id:
            raise _invalid("A launch template is required by the local cloud")
        if desired != group.desired:
            group.changed = (
                f" (a user request changed the desired capacity from {group.desired} to {desired})"
            )
        group.minimum, group.maximum, group.desired = minimum, maximum, desired
        group.retry = None
        self._balance(group, p.get("TargetGroupARNs", group.target_groups))
        group.protect_new = bool(p.get("NewInstancesProtectedFromScaleIn", group.protect_new))
        group.cooldown = int(p.get("DefaultCooldown", group.cooldown))
        group.termination_policies = p.get("TerminationPolicies", group.termination_policies)
        if "HealthCheckGracePeriod" in p:
            group.grace = timedelta(seconds=int(p["HealthCheckGracePeriod"]))

    def _balance(self, group: Group, target_groups: list[str]) -> None:
        before, group.target_groups = group.target_groups, list(target_groups)
        for member in group.members.values():
            if member.state == "InService":
                for arn in set(target_groups) - set(before):
                    self.machines.register(arn, member.id)
                for arn in set(before) - set(target_groups):
                    self.machines.deregister(arn, member.id)

    def _mix(self, group: Group, policy: Parameters) -> None:
        group.template = self._template(policy["LaunchTemplate"]["LaunchTemplateSpecification"])
        overrides = policy["LaunchTemplate"].get("Overrides", [])
        for override in overrides:
            if unknown := sorted(override.keys() - {"InstanceType", "WeightedCapacity"}):
                raise _invalid(f"The local cloud does not support {', '.join(unknown)} of overrides")
        distribution = policy.get("InstancesDistribution", {})
        group.mixed = policy
        group.types = tuple(override["InstanceType"] for override in overrides)
        group.on_demand_base = int(distribution.get("OnDemandBaseCapacity", 0))
        group.on_demand_share = int(distribution.get("OnDemandPercentageAboveBaseCapacity", 100))

    def _template(self, specification: Parameters) -> Template:
        by = {
            key: [specification[name]]
            for key, name in (
                ("LaunchTemplateIds", "LaunchTemplateId"),
                ("LaunchTemplateNames", "LaunchTemplateName"),
            )
            if name in specification
        }
        version = str(specification.get("Version", "$Default"))
        client = self.world.client("ec2")
        try:
            template = client.describe_launch_templates(**by)["LaunchTemplates"][0]
            client.describe_launch_template_versions(
                LaunchTemplateId=template["LaunchTemplateId"], Versions=[version]
            )
        except (ClientError, IndexError) as error:
            raise _invalid(f"You must use a valid fully-formed launch template. {error}") from error
        return Template(id=template["LaunchTemplateId"], name=template["LaunchTemplateName"], version=version)

    def update_auto_scaling_group(self, p: Parameters) -> None:
        """Change a group; this replaces no instance."""
        group = self.group(p["AutoScalingGroupName"])
        if unknown := sorted(p.keys() - _PROPERTIES):
            raise _invalid(f"The local cloud does not support {', '.join(unknown)} of Auto Scaling groups")
        self._configure(group, p)
        self._moved()

    def delete_auto_scaling_group(self, p: Parameters) -> None:
        """Delete a group; with instances only by force, which bypasses their hooks."""
        group = self.group(p["AutoScalingGroupName"])
        if group.members and not p.get("ForceDelete"):
            raise Refusal(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance "
                "request(s) still in the group.",
            )
        for member in group.members.values():
            for target_group in group.target_groups:
                self.machines.deregister(target_group, member.id)
            self.machines.terminate(member.id)
        del self.groups[group.name]
        self.world.touch()

    def describe_auto_scaling_groups(self, p: Parameters) -> Parameters:
        """Describe groups by name or tag; all without either."""
        names = p.get("AutoScalingGroupNames", [])
        if len(names) > (most := _page_size(p, 50)):
            raise _invalid(
                f"With MaxRecords {most} no more than {most} AutoScalingGroupNames may be specified"
            )
        groups = [group for group in self.groups.values() if not names or group.name in names]
        for entry in p.get("Filters", []):
            groups = [group for group in groups if _matches(group, entry["Name"], entry["Values"])]
        shown, more = _page(p, groups, 50)
        return {"AutoScalingGroups": [self._describe(group) for group in shown], "NextToken": more}

    def _describe(self, group: Group) -> Parameters:
        subnets = self.world.client("ec2").describe_subnets(SubnetIds=group.subnets)["Subnets"]
        return {
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            **_launch_source(group),
            "MinSize": group.minimum,
            "MaxSize": group.maximum,
            "DesiredCapacity": group.desired,
            "DefaultCooldown": group.cooldown,
            "AvailabilityZones": sorted({subnet["AvailabilityZone"] for subnet in subnets}),
            "LoadBalancerNames": [],
            "TargetGroupARNs": group.target_groups,
            "HealthCheckType": group.health_check,
            "HealthCheckGracePeriod": int(group.grace.total_seconds()),
            "InstanceMaintenancePolicy": group.maintenance,
            "Instances": [_described(member) for member in group.members.values()],
            "CreatedTime": group.created,
            "SuspendedProcesses": [
                {"ProcessName": name, "SuspensionReason": why} for name, why in group.suspended.items()
            ],
            "VPCZoneIdentifier": ",".join(group.subnets),
            "EnabledMetrics": [],
            "Tags": _tags(group),
            "TerminationPolicies": group.termination_policies,
            "NewInstancesProtectedFromScaleIn": group.protect_new,
            "TrafficSources": [],
        }

    def describe_scaling_activities(self, p: Parameters) -> Parameters:
        """What groups did, the newest first."""
        name = p.get("AutoScalingGroupName")
        groups = [self.group(name)] if name else list(self.groups.values())
        wanted = p.get("ActivityIds")
        found = [
            (group, activity)
            for group in groups
            for activity in group.activities
            if not wanted or activity.id in wanted
        ]
        shown, more = _page(p, found, 100)
        return {"Activities": [_described_activity(*entry) for entry in shown], "NextToken": more}

    def set_desired_capacity(self, p: Parameters) -> None:
        """Set the desired capacity."""
        group = self.group(p["AutoScalingGroupName"])
        desired = int(p["DesiredCapacity"])
        if desired > group.maximum:
            raise _invalid(
                f"New SetDesiredCapacity value {desired} is above max value {group.maximum} for the "
                "AutoScalingGroup."
            )
        if desired < group.minimum:
            raise _invalid(
                f"New SetDesiredCapacity value {desired} is below min value {group.minimum} for the "
                "AutoScalingGroup."
            )
        group.changed = f" (a user request changed the desired capacity from {group.desired} to {desired})"
        group.desired, group.retry = desired, None
        self._moved()

    # -- instances

    def terminate_instance_in_auto_scaling_group(self, p: Parameters) -> Parameters:
        """Take an instance out, through its hooks."""
        group, member = self._member(p["InstanceId"])
        decrement = bool(p["ShouldDecrementDesiredCapacity"])
        if member.leaving:
            return {"Activity": _described_activity(group, member.activity)}
        if decrement and group.desired - 1 < group.minimum:
            raise _invalid(
                f"Currently, desiredSize equals minSize ({group.minimum}). Terminating instance without "
                "replacement will violate group's min size constraint."
            )
        activity = group.terminate(member, self.machines, self.world.clock(), decrement=decrement)
        self._moved()
        return {"Activity": _described_activity(group, activity)}

    def set_instance_health(self, p: Parameters) -> None:
        """Report an instance's health; an unhealthy one is replaced."""
        if p["HealthStatus"] not in ("Healthy", "Unhealthy"):
            raise _invalid("Valid instance health states are: [Healthy, Unhealthy].")
        group, member = self._member(p["InstanceId"])
        now = self.world.clock()
        fresh = member.in_service is not None and now - member.in_service < group.grace
        if not (fresh and p.get("ShouldRespectGracePeriod", True)):
            member.healthy = p["HealthStatus"] == "Healthy"
        self._moved()

    def set_instance_protection(self, p: Parameters) -> None:
        """Protect instances from scale-in, or no longer."""
        group = self.group(p["AutoScalingGroupName"])
        members = []
        for instance in p["InstanceIds"]:
            if instance not in group.members:
                raise _invalid(f"The instance {instance} is not part of Auto Scaling group {group.name}.")
            if group.members[instance].state != "InService":
                raise _invalid(f"The instance {instance} is not in InService or EnteringStandby or Standby.")
            members.append(group.members[instance])
        for member in members:
            member.protected = bool(p["ProtectedFromScaleIn"])
        self._moved()

    # -- processes

    def suspend_processes(self, p: Parameters) -> None:
        """Suspend processes, all if none is named."""
        group = self.group(p["AutoScalingGroupName"])
        for name in _processes(p):
            group.suspended[name] = f"User suspended at {self.world.clock():%Y-%m-%dT%H:%M:%SZ}"
        self._moved()

    def resume_processes(self, p: Parameters) -> None:
        """Resume processes, all if none is named."""
        group = self.group(p["AutoScalingGroupName"])
        for name in _processes(p):
            group.suspended.pop(name, None)
        self._moved()

    # -- scheduled actions

    def put_scheduled_update_group_action(self, p: Parameters) -> None:
        """Add or change a scheduled action."""
        group = self.group(p["AutoScalingGroupName"])
        if unknown := sorted({"StartTime", "EndTime", "Time"} & p.keys()):
            raise _invalid(f"The local cloud does not support {', '.join(unknown)} of scheduled actions")
        if p.get("TimeZone", "Etc/UTC") not in ("Etc/UTC", "UTC"):
            raise _invalid("The local cloud knows no TimeZone of scheduled actions but Etc/UTC")
        sizes = {name: p.get(name) for name in ("MinSize", "MaxSize", "DesiredCapacity")}
        if all(value is None for value in sizes.values()):
            raise _invalid("At least one of min/max/desired capacity should be provided")
        recurrence = p.get("Recurrence", "")
        try:
            coming = following(recurrence, self.world.clock())
        except ValueError as error:
            raise _invalid(f"Given recurrence string:{recurrence} is invalid") from error
        group.actions[p["ScheduledActionName"]] = Action(
            name=p["ScheduledActionName"],
            recurrence=recurrence,
            minimum=sizes["MinSize"],
            maximum=sizes["MaxSize"],
            desired=sizes["DesiredCapacity"],
            next=coming,
        )
        self.world.touch()

    def delete_scheduled_action(self, p: Parameters) -> None:
        """Delete a scheduled action."""
        group = self.group(p["AutoScalingGroupName"])
        if group.actions.pop(p["ScheduledActionName"], None) is None:
            raise _invalid("Scheduled action name not found")
        self.world.touch()

    def describe_scheduled_actions(self, p: Parameters) -> Parameters:
        """Describe the scheduled actions of a group, or of all."""
        name = p.get("AutoScalingGroupName")
        groups = [self.group(name)] if name else list(self.groups.values())
        wanted = p.get("ScheduledActionNames")
        return {
            "ScheduledUpdateGroupActions": [
                {
                    "AutoScalingGroupName": group.name,
                    "ScheduledActionName": action.name,
                    "ScheduledActionARN": (
                        f"arn:aws:autoscaling:{self.world.region}:{self.world.account}"
                        f":scheduledUpdateGroupAction:{uuid.uuid5(uuid.NAMESPACE_OID, group.arn)}"
                        f":autoScalingGroupName/{group.name}:scheduledActionName/{action.name}"
                    ),
                    "StartTime": action.next,
                    "Recurrence": action.recurrence,
                    "MinSize": action.minimum,
                    "MaxSize": action.maximum,
                    "DesiredCapacity": action.desired,
                    "TimeZone": "Etc/UTC",
                }
                for group in groups
                for action in group.actions.values()
                if not wanted or action.name in wanted
            ]
        }

    def _act(self, group: Group, now: datetime) -> None:
        for action in group.actions.values():
            if now < action.next:
                continue
            action.next = following(action.recurrence, now)
            if "ScheduledActions" in group.suspended:
                continue
            if action.minimum is not None:
                group.minimum = action.minimum
            if action.maximum is not None:
                group.maximum = action.maximum
            desired = group.desired if action.desired is None else action.desired
            group.desired = min(max(desired, group.minimum), group.maximum)
            group.changed = f" (the scheduled action {action.name} was executed)"
            group.retry = None

    # -- lifecycle hooks

    def put_lifecycle_hook(self, p: Parameters) -> None:
        """Add or change a hook."""
        group = self.group(p["AutoScalingGroupName"])
        group.hooks[p["LifecycleHookName"]] = _hook(p, group.hooks.get(p["LifecycleHookName"]))
        self.world.touch()

    def delete_lifecycle_hook(self, p: Parameters) -> None:
        """Delete a hook; instances that wait for it go on."""
        group = self.group(p["AutoScalingGroupName"])
        hook = group.hooks.pop(p["LifecycleHookName"], None)
        if hook is None:
            raise _invalid("Lifecycle hook not found")
        for member in group.members.values():
            if hook.name in member.waiting:
                group.complete(member, member.waiting[hook.name], "CONTINUE", self.world.clock())
        self._moved()

    def complete_lifecycle_action(self, p: Parameters) -> Parameters:
        """End an instance's wait."""
        result = p["LifecycleActionResult"]
        if result not in ("CONTINUE", "ABANDON"):
            raise _invalid("The lifecycle action result must be either CONTINUE or ABANDON")
        group, member, wait = self._wait(p)
        group.complete(member, wait, result, self.world.clock())
        self._moved()
        return {}

    def record_lifecycle_action_heartbeat(self, p: Parameters) -> Parameters:
        """Restart an instance's wait, which lasts at most a hundred heartbeats in all."""
        _, _, wait = self._wait(p)
        wait.deadline = self.world.clock() + wait.hook.heartbeat
        return {}

    def _wait(self, p: Parameters) -> tuple[Group, Member, Wait]:
        group = self.group(p["AutoScalingGroupName"])
        name, token, instance = p["LifecycleHookName"], p.get("LifecycleActionToken"), p.get("InstanceId")
        for member in group.members.values():
            wait = member.waiting.get(name)
            if wait is not None and (wait.token == token if token else member.id == instance):
                return group, member, wait
        what = f"token {token}" if token else f"instance ID {instance}"
        raise _invalid(f"No active Lifecycle Action found with {what}")

    # -- tags

    def create_or_update_tags(self, p: Parameters) -> None:
        """Set tags of groups."""
        for tag in p["Tags"]:
            self._set_tags(self.group(tag["ResourceId"]), [tag])
        self.world.touch()

    def delete_tags(self, p: Parameters) -> None:
        """Delete tags of groups."""
        for tag in p["Tags"]:
            group = self.group(tag["ResourceId"])
            group.tags = [entry for entry in group.tags if entry["Key"] != tag["Key"]]
        self.world.touch()

    def _set_tags(self, group: Group, tags: list[dict[str, Any]]) -> None:
        for tag in tags:
            entry = {
                "Key": tag["Key"],
                "Value": tag.get("Value", ""),
                "PropagateAtLaunch": bool(tag.get("PropagateAtLaunch")),
            }
            group.tags = [*(old for old in group.tags if old["Key"] != tag["Key"]), entry]


def _hook(p: Parameters, before: Hook | None = None) -> Hook:
    transition = p.get("LifecycleTransition") or (before and before.transition)
    if transition not in (LAUNCHING, TERMINATING):
        raise _invalid(f"LifecycleTransition must be {LAUNCHING} or {TERMINATING}")
    heartbeat = int(p.get("HeartbeatTimeout") or (before.heartbeat.total_seconds() if before else 3600))
    if not 30 <= heartbeat <= 7200:
        raise _invalid("HeartbeatTimeout must be between 30 and 7200 seconds")
    default = p.get("DefaultResult") or (before.default if before else "ABANDON")
    if default not in ("CONTINUE", "ABANDON"):
        raise _invalid("DefaultResult must be either CONTINUE or ABANDON")
    return Hook(
        name=p["LifecycleHookName"],
        transition=str(transition),
        heartbeat=timedelta(seconds=heartbeat),
        default=default,
    )


def _processes(p: Parameters) -> list[str]:
    names = p.get("ScalingProcesses") or list(_PROCESSES)
    if unknown := [name for name in names if name not in _PROCESSES]:
        raise _invalid(f"No such scaling process: {', '.join(unknown)}")
    return list(names)


def _matches(group: Group, name: str, values: list[str]) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in group.tags}
    if name.startswith("tag:"):
        return tags.get(name[4:]) in values
    if name == "tag-key":
        return bool(tags.keys() & set(values))
    if name == "tag-value":
        return bool(set(tags.values()) & set(values))
    raise _invalid(
        f"Filter type {name} is not correct. Allowed Filter types are: tag-key, tag-value, tag:<key>"
    )


def _tags(group: Group) -> list[dict[str, Any]]:
    return [
        {"ResourceId": group.name, "ResourceType": "auto-scaling-group", **tag}
        for tag in sorted(group.tags, key=lambda tag: str(tag["Key"]))
    ]


def _specification(template: Template) -> dict[str, str]:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "Version": template.version,
    }


def _launch_source(group: Group) -> dict[str, Any]:
    if group.mixed is None:
        return {"LaunchTemplate": _specification(group.template)}
    launch = {**group.mixed["LaunchTemplate"], "LaunchTemplateSpecification": _specification(group.template)}
    return {"MixedInstancesPolicy": {**group.mixed, "LaunchTemplate": launch}}


def _health(member: Member) -> str:
    return "Healthy" if member.healthy else "Unhealthy"


def _maintenance(policy: Parameters) -> dict[str, int]:
    """A policy by which groups replace instances in the one order that they know here: the old one first."""
    least, most = (int(policy.get(f"{end}HealthyPercentage", -1)) for end in ("Min", "Max"))
    if (least, most) != (0, 100):
        raise _invalid("The local cloud knows no InstanceMaintenancePolicy but one of 0 to 100 percent")
    return {"MinHealthyPercentage": least, "MaxHealthyPercentage": most}


def _described(member: Member) -> dict[str, Any]:
    return {
        "InstanceId": member.id,
        "InstanceType": member.launched.type,
        "AvailabilityZone": member.launched.zone,
        "LifecycleState": member.state,
        "HealthStatus": _health(member),
        "LaunchTemplate": _specification(member.launched.template),
        "ProtectedFromScaleIn": member.protected,
    }


def _described_activity(group: Group, activity: Activity) -> dict[str, Any]:
    return {
        "ActivityId": activity.id,
        "AutoScalingGroupName": group.name,
        "AutoScalingGroupARN": group.arn,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.start,
        "EndTime": activity.end,
        "StatusCode": activity.status,
        "StatusMessage": activity.message,
        "Progress": 100 if activity.end else 50,
        "Details": "{}",
    }
