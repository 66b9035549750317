"""AWS::EC2::LaunchTemplate and AWS::AutoScaling: what launches instances."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import (
    Context,
    Properties,
    ResourceError,
    Type,
    UpdateRefusedError,
    changes,
    duration,
)


class LaunchTemplate(
    Type,
    type="AWS::EC2::LaunchTemplate",
    properties="LaunchTemplateData VersionDescription",
    immutable="LaunchTemplateName TagSpecifications",
):
    """A launch template; each change is a new version."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it with its first version."""
        answer = c.call(
            "ec2",
            "create_launch_template",
            **{"LaunchTemplateName": c.name(128), **p},
        )
        c.created(answer["LaunchTemplate"]["LaunchTemplateId"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Make a new version."""
        c.call(
            "ec2",
            "create_launch_template_version",
            LaunchTemplateId=c.id,
            LaunchTemplateData=new["LaunchTemplateData"],
            VersionDescription=new.get("VersionDescription"),
        )

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it with all its versions."""
        c.call("ec2", "delete_launch_template", LaunchTemplateId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        answer = c.call("ec2", "describe_launch_templates", LaunchTemplateIds=[c.id])
        template = answer["LaunchTemplates"][0]
        return {
            "LaunchTemplateId": c.id,
            "DefaultVersionNumber": str(template["DefaultVersionNumber"]),
            "LatestVersionNumber": str(template["LatestVersionNumber"]),
        }


class ScheduledAction(
    Type,
    type="AWS::AutoScaling::ScheduledAction",
    properties="DesiredCapacity MaxSize MinSize Recurrence TimeZone",
    immutable="AutoScalingGroupName",
):
    """A scheduled action of a group."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        name = c.name(255)
        c.call("autoscaling", "put_scheduled_update_group_action", ScheduledActionName=name, **p)
        c.created(name)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Replace it under its name."""
        c.call("autoscaling", "put_scheduled_update_group_action", ScheduledActionName=c.id, **new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call(
            "autoscaling",
            "delete_scheduled_action",
            AutoScalingGroupName=p["AutoScalingGroupName"],
            ScheduledActionName=c.id,
        )


_SIZES = ("MinSize", "MaxSize", "DesiredCapacity")
_GROUP = (
    "Cooldown DesiredCapacity HealthCheckGracePeriod HealthCheckType InstanceMaintenancePolicy "
    "LaunchTemplate LifecycleHookSpecificationList MaxSize MinSize MixedInstancesPolicy "
    "NewInstancesProtectedFromScaleIn Tags TargetGroupARNs TerminationPolicies VPCZoneIdentifier"
)
_ROLLING = {
    "MaxBatchSize",
    "MinInstancesInService",
    "MinSuccessfulInstancesPercent",
    "PauseTime",
    "SuspendProcesses",
    "WaitOnResourceSignals",
}


class AutoScalingGroup(
    Type, type="AWS::AutoScaling::AutoScalingGroup", properties=_GROUP, immutable="AutoScalingGroupName"
):
    """An Auto Scaling group, with the creation and update policies that wait for instances."""

    def tagged(self, p: Properties, more: dict[str, str]) -> Properties:
        """The stack's tags reach the instances."""
        own = {tag["Key"]: tag for tag in p.get("Tags", [])}
        stack = {key: {"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in more.items()}
        return {**p, "Tags": list({**stack, **own}.values())}

    def create(self, c: Context, p: Properties) -> None:
        """Create it, and wait for its instances or their signals."""
        name = p.get("AutoScalingGroupName") or c.name(255)
        c.call(
            "autoscaling",
            "create_auto_scaling_group",
            **{**_parameters(p), "AutoScalingGroupName": name},
            LifecycleHookSpecificationList=p.get("LifecycleHookSpecificationList"),
            Tags=p["Tags"],
        )
        c.created(name)
        signal = c.policies.get("ResourceSignal")
        if signal is None:
            self._settle(c)
            return
        percent = int(
            c.policies.get("AutoScalingCreationPolicy", {}).get("MinSuccessfulInstancesPercent", 100)
        )
        count = int(signal.get("Count", 1))
        self._signals(c, count, signal.get("Timeout", "PT5M"), percent)

    def _find(self, c: Context) -> dict[str, Any] | None:
        answer = c.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[c.id])
        return next(iter(answer["AutoScalingGroups"]), None)

    def _describe(self, c: Context) -> dict[str, Any]:
        if (found := self._find(c)) is None:
            raise ResourceError(f"AutoScalingGroup {c.id} does not exist")
        return found

    def _settle(self, c: Context) -> None:
        """Wait until the group has launched all that it wants; a failed launch fails the resource."""
        failed: list[str] = []

        def done() -> bool:
            group = self._describe(c)
            if len(group["Instances"]) >= group["DesiredCapacity"]:
                return True
            activities = c.call("autoscaling", "describe_scaling_activities", AutoScalingGroupName=c.id)
            newest = activities["Activities"][:1]
            failed.extend(a.get("StatusMessage", "") for a in newest if a["StatusCode"] == "Failed")
            return bool(failed)

        c.wait(done)
        if failed:
            group = self._describe(c)
            sizes = f"{len(group['Instances'])}/{group['MinSize']}/{group['DesiredCapacity']}"
            raise ResourceError(
                f"Group did not stabilize. {{current/minSize/desiredSize}} group size = {{{sizes}}}. "
                f"Failed Scaling Activity: {failed[0]}"
            )

    def _signals(
        self, c: Context, count: int, timeout: str, percent: int, *, awaited: set[str] | None = None
    ) -> None:
        """Wait for so many signals; too many failures fail the resource at once.

        Args:
            c: The context.
            count: How many signals to wait for.
            timeout: How long to wait, as an ISO 8601 duration.
            percent: How many percent of them must report success.
            awaited: The instances whose signals count; None counts all.
        """
        counted: dict[str, str] = {}
        needed = -(-count * percent // 100)

        def number(status: str) -> int:
            return sum(value == status for value in counted.values())

        def decided() -> bool:
            return number("SUCCESS") >= needed or number("FAILURE") > count - needed

        def done() -> bool:
            # In the order of arrival: signals after the one that decides come too late.
            for unique, status in list(c.resource.signals.items()):
                if decided():
                    break
                if counted.get(unique) != status and (awaited is None or unique in awaited):
                    counted[unique] = status
                    c.progress(f"Received {status} signal with UniqueId {unique}")
            return decided()

        if not c.wait(done, duration(timeout)):
            missing = count - len(counted)
            raise ResourceError(
                f"Failed to receive {missing} resource signal(s) within the specified duration"
            )
        if failures := number("FAILURE") * (number("SUCCESS") < needed):
            raise ResourceError(
                f"Received {failures} FAILURE signal(s) out of {count}. Unable to satisfy {percent}% "
                "MinSuccessfulInstancesPercent requirement"
            )

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change it, and replace its instances if its update policy says so."""
        changed = changes(old, new)
        parameters = _parameters(new)
        scheduled = c.policies.get("AutoScalingScheduledAction", {})
        if scheduled.get("IgnoreUnmodifiedGroupSizeProperties") in (True, "true"):
            for name in _SIZES:
                if name not in changed:
                    parameters.pop(name, None)
        if gone := changed & old.keys() - new.keys() - {
            "DesiredCapacity",
            "LaunchTemplate",
            "LifecycleHookSpecificationList",
            "MixedInstancesPolicy",
            "TargetGroupARNs",
        }:
            raise UpdateRefusedError(f"The local cloud cannot take {', '.join(sorted(gone))} from a group")
        parameters.pop("TargetGroupARNs", None)
        c.call("autoscaling", "update_auto_scaling_group", **{**parameters, "AutoScalingGroupName": c.id})
        self._balance(c, set(old.get("TargetGroupARNs", [])), set(new.get("TargetGroupARNs", [])))
        self._hooks(c, old.get("LifecycleHookSpecificationList", []), new)
        self._tags(c, old["Tags"], new["Tags"])
        rolling = c.policies.get("AutoScalingRollingUpdate")
        if rolling is not None and changed & {"LaunchTemplate", "MixedInstancesPolicy", "VPCZoneIdentifier"}:
            self._roll(c, rolling, everything="VPCZoneIdentifier" in changed)

    def _balance(self, c: Context, before: set[str], after: set[str]) -> None:
        for verb, arns in (("detach", before - after), ("attach", after - before)):
            if arns:
                c.call(
                    "autoscaling",
                    f"{verb}_load_balancer_target_groups",
                    AutoScalingGroupName=c.id,
                    TargetGroupARNs=sorted(arns),
                )

    def _hooks(self, c: Context, before: list[Properties], new: Properties) -> None:
        after = new.get("LifecycleHookSpecificationList", [])
        names = {hook["LifecycleHookName"] for hook in after}
        for hook in before:
            if hook["LifecycleHookName"] not in names:
                name = hook["LifecycleHookName"]
                c.call(
                    "autoscaling", "delete_lifecycle_hook", AutoScalingGroupName=c.id, LifecycleHookName=name
                )
        for hook in after:
            if hook not in before:
                c.call("autoscaling", "put_lifecycle_hook", AutoScalingGroupName=c.id, **hook)

    def _tags(self, c: Context, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        keys = {tag["Key"] for tag in after}
        entry = {"ResourceId": c.id, "ResourceType": "auto-scaling-group"}
        if gone := [{"Key": tag["Key"], **entry} for tag in before if tag["Key"] not in keys]:
            c.call("autoscaling", "delete_tags", Tags=gone)
        if new := [{**tag, **entry} for tag in after if tag not in before]:
            c.call("autoscaling", "create_or_update_tags", Tags=new)

    def _roll(self, c: Context, policy: Properties, *, everything: bool) -> None:
        """Replace the instances batch by batch.

        Args:
            c: The context.
            policy: The ``AutoScalingRollingUpdate``.
            everything: Also replace those that were launched from the current template.
        """
        if unknown := sorted(policy.keys() - _ROLLING):
            raise ResourceError(f"The local cloud's rolling update has no {', '.join(unknown)}")
        group = self._describe(c)
        minimum, desired = int(group["MinSize"]), int(group["DesiredCapacity"])
        current = self._current_template(c, group)
        old = {
            instance["InstanceId"]
            for instance in group["Instances"]
            if everything or _template_of(instance) != current
        }
        kept = int(policy.get("MinInstancesInService", 0))
        size = min(int(policy.get("MaxBatchSize", 1)), desired - kept)
        if old and size < 1:
            raise ResourceError(
                "The local cloud's rolling update needs MinInstancesInService below the group's size, "
                f"which is {desired}"
            )
        c.progress(
            f"Rolling update initiated. Terminating {len(old)} obsolete instance(s) in batches of {size}, "
            f"while keeping at least {kept} instance(s) in service."
        )
        suspended = policy.get("SuspendProcesses", [])
        if suspended:
            self._processes(c, "suspend_processes", suspended)
        try:
            while True:
                if obsolete := self._present(c, old):
                    serving = [i["InstanceId"] for i in obsolete if not _leaving(i)]
                    batch = serving[:size]
                    self._terminate(c, batch, minimum, desired)
                    going = {i["InstanceId"] for i in obsolete if _leaving(i)} | set(batch)
                    self._await_departure(c, going)
                    self._resize(c, minimum, desired)
                self._await_arrival(c, old, policy)
                if not self._present(c, old):
                    break
        finally:
            self._resize(c, minimum, desired)
            if suspended:
                self._processes(c, "resume_processes", suspended)

    def _processes(self, c: Context, operation: str, names: list[str]) -> None:
        c.call("autoscaling", operation, AutoScalingGroupName=c.id, ScalingProcesses=names)

    def _current_template(self, c: Context, group: dict[str, Any]) -> tuple[str, str]:
        """Id and version number of the launch template that the group now has."""
        source = group.get("LaunchTemplate")
        if source is None:
            source = group["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
        version = c.call(
            "ec2",
            "describe_launch_template_versions",
            LaunchTemplateId=source["LaunchTemplateId"],
            Versions=[source["Version"]],
        )["LaunchTemplateVersions"][0]
        return source["LaunchTemplateId"], str(version["VersionNumber"])

    def _present(self, c: Context, wanted: set[str]) -> list[dict[str, Any]]:
        return [i for i in self._describe(c)["Instances"] if i["InstanceId"] in wanted]

    def _terminate(self, c: Context, batch: list[str], minimum: int, desired: int) -> None:
        names = ", ".join(batch)
        # The old ones go before the new ones come, so the group must not replace them yet.
        self._resize(c, min(minimum, desired - len(batch)), desired)
        for instance in batch:
            c.call(
                "autoscaling",
                "terminate_instance_in_auto_scaling_group",
                InstanceId=instance,
                ShouldDecrementDesiredCapacity=True,
            )
        c.progress(f"Terminating instance(s) [{names}]; replacing with {len(batch)} new instance(s).")

    def _await_departure(self, c: Context, instances: set[str]) -> None:
        c.wait(lambda: not self._present(c, instances))
        c.progress(f"Successfully terminated instance(s) [{', '.join(sorted(instances))}].")

    def _await_arrival(self, c: Context, old: set[str], policy: Properties) -> None:
        """Wait for the signals of all that was launched since the update began."""
        fresh = [i for i in self._describe(c)["Instances"] if i["InstanceId"] not in old]
        if not fresh:
            return
        pause = policy.get("PauseTime", "PT5M")
        if policy.get("WaitOnResourceSignals") not in (True, "true"):
            c.wait(lambda: False, duration(policy.get("PauseTime", "PT0S")))
            return
        c.progress(
            f"New instance(s) added to autoscaling group - Waiting on {len(fresh)} resource signal(s) with a "
            f"timeout of {pause}."
        )
        # Others, on their way out, may still signal, such as successors of a host whose update failed.
        awaited = {instance["InstanceId"] for instance in fresh}
        percent = int(policy.get("MinSuccessfulInstancesPercent", 100))
        self._signals(c, len(fresh), pause, percent, awaited=awaited)

    def _resize(self, c: Context, minimum: int, desired: int) -> None:
        c.call(
            "autoscaling",
            "update_auto_scaling_group",
            AutoScalingGroupName=c.id,
            MinSize=minimum,
            DesiredCapacity=desired,
        )

    def delete(self, c: Context, p: Properties) -> None:
        """Let all instances go through their hooks, then delete it, unless somebody has done so by hand."""
        group = self._find(c)
        if group is None:
            return
        protected = [i["InstanceId"] for i in group["Instances"] if i["ProtectedFromScaleIn"]]
        if protected:
            raise ResourceError(
                f"Instances {', '.join(protected)} are protected from scale-in: the group cannot be emptied"
            )
        c.call(
            "autoscaling",
            "update_auto_scaling_group",
            AutoScalingGroupName=c.id,
            MinSize=0,
            MaxSize=0,
            DesiredCapacity=0,
        )
        for instance in group["Instances"]:
            if instance["LifecycleState"].startswith("Pending"):
                c.call(
                    "autoscaling",
                    "terminate_instance_in_auto_scaling_group",
                    InstanceId=instance["InstanceId"],
                    ShouldDecrementDesiredCapacity=False,
                )
        c.wait(lambda: not self._describe(c)["Instances"])
        c.call("autoscaling", "delete_auto_scaling_group", AutoScalingGroupName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"AutoScalingGroupARN": self._describe(c)["AutoScalingGroupARN"]}


def _template_of(instance: dict[str, Any]) -> tuple[str, str]:
    template = instance["LaunchTemplate"]
    return template["LaunchTemplateId"], template["Version"]


def _leaving(instance: dict[str, Any]) -> bool:
    return str(instance["LifecycleState"]).startswith("Terminating")


def _parameters(p: Properties) -> dict[str, Any]:
    """A group's properties as CreateAutoScalingGroup and UpdateAutoScalingGroup both take them."""
    elsewhere = (
        "AutoScalingGroupName",
        "Cooldown",
        "LifecycleHookSpecificationList",
        "Tags",
        "VPCZoneIdentifier",
    )
    parameters = {key: value for key, value in p.items() if key not in elsewhere}
    if "Cooldown" in p:
        parameters["DefaultCooldown"] = p["Cooldown"]
    if "VPCZoneIdentifier" in p:
        parameters["VPCZoneIdentifier"] = ",".join(p["VPCZoneIdentifier"])
    return parameters
