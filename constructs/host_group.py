"""An Auto Scaling group of hosts that come and go: of one or several instance types, some of them spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import aws_autoscaling as autoscaling
from constructs import Construct
from constructs.acknowledged import acknowledge
from constructs.host_launch_template import HostLaunchTemplate
from constructs.lifecycle_hooks import lifecycle_hooks
from constructs.replacement import old_host_first

_Group = autoscaling.CfnAutoScalingGroup


def host_group(
    scope: Construct,
    *,
    name: str,
    sizes: tuple[int, int],
    subnets: Sequence[str],
    template: HostLaunchTemplate,
    instance_types: Sequence[str],
    ready_seconds: int,
    drain_seconds: int,
    tags: Mapping[str, str],
    why_no_notifications: str,
    on_demand_percent: int = 100,
    protected: bool | None = None,
) -> _Group:
    """Makes the group, under the id ``Group``.

    Args:
        scope: the construct that it belongs to.
        name: its name.
        sizes: its minimum and maximum number of hosts.
        subnets: the ids of the subnets that hosts boot in.
        template: what hosts are.
        instance_types: the types that hosts may be, the preferred one first.
        ready_seconds: how long a host may take to get ready.
        drain_seconds: how long the group waits for a sign of life from a draining host.
        tags: the hosts' tags besides their name.
        why_no_notifications: why the group needs no notifications, for AwsSolutions-AS3.
        on_demand_percent: the percentage of hosts that are not spot.
        protected: whether new hosts are protected from scale-in; None: not set.

    Returns:
        The group.
    """
    mixed = len(instance_types) > 1 or on_demand_percent < 100
    group = _Group(
        scope,
        "Group",
        auto_scaling_group_name=name,
        min_size=str(sizes[0]),
        max_size=str(sizes[1]),
        vpc_zone_identifier=list(subnets),
        launch_template=None if mixed else template.specification,
        mixed_instances_policy=_mixed(template, instance_types, on_demand_percent) if mixed else None,
        new_instances_protected_from_scale_in=protected,
        instance_maintenance_policy=old_host_first(),
        lifecycle_hook_specification_list=lifecycle_hooks(
            ready_seconds=ready_seconds, drain_seconds=drain_seconds
        ),
        tags=[
            {"key": key, "value": value, "propagateAtLaunch": True}
            for key, value in {"Name": name, **tags}.items()
        ],
    )
    acknowledge(group, "AwsSolutions::AwsSolutions-AS3", reason=why_no_notifications)
    if mixed:
        acknowledge(
            group,
            "AwsSolutions::AwsSolutions-EC26",
            reason="The rule cannot handle mixed instances; the launch template's volume is encrypted.",
        )
    return group


def _mixed(
    template: HostLaunchTemplate, instance_types: Sequence[str], on_demand_percent: int
) -> _Group.MixedInstancesPolicyProperty:
    return _Group.MixedInstancesPolicyProperty(
        launch_template=_Group.LaunchTemplateProperty(
            launch_template_specification=template.specification,
            overrides=[_Group.LaunchTemplateOverridesProperty(instance_type=name) for name in instance_types],
        ),
        instances_distribution=_Group.InstancesDistributionProperty(
            on_demand_allocation_strategy="prioritized",
            on_demand_base_capacity=0,
            on_demand_percentage_above_base_capacity=on_demand_percent,
            spot_allocation_strategy="price-capacity-optimized",
        ),
    )
