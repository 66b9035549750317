"""Worker hosts of one kind: an Auto Scaling group, whose size is not this app's business."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_autoscaling as autoscaling
from constructs import Construct
from constructs.acknowledged import acknowledge
from constructs.host_launch_template import HostLaunchTemplate
from constructs.host_names import HostNames
from constructs.host_role import HostRole
from constructs.lifecycle_hooks import lifecycle_hooks
from constructs.names import fleet_group
from constructs.published_files import PublishedFile
from constructs.role_document import host_document, worker_document

from images.bundle import Bundle
from settings import Environment, Fleet

READY_SECONDS = 900
METAL_READY_SECONDS = 2700  # a metal type takes over 20 minutes at times, before it boots anything
DRAIN_SECONDS = 1800  # a hundred heartbeats of this reach the 48 hours that a job may take at most

_Group = autoscaling.CfnAutoScalingGroup


class WorkerFleet(Construct):
    """A fleet.

    Its desired capacity is never set here, nor has it an update policy: the fleet's controller sizes it, and
    drains and replaces hosts whose launch template is old.

    Attributes:
        group_name: the Auto Scaling group's name.
    """

    group_name: str

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        fleet: Fleet,
        subnets: Sequence[str],
        security_group: str,
        machine_image: str,
        container_image: PublishedFile | None,
        api_key: str,
        names: HostNames,
        bundle: Bundle,
        published_bundle: PublishedFile,
    ) -> None:
        """Makes the fleet.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            fleet: the fleet's settings.
            subnets: the ids of the subnets that hosts boot in.
            security_group: the id of the group that says who may talk to them.
            machine_image: the id of the AMI that they boot.
            container_image: where the worker's container image is; None: in the AMI.
            api_key: the ARN of the secret with which workers talk to the web UI.
            names: where hosts lease their names.
            bundle: what instances run.
            published_bundle: where it is.
        """
        super().__init__(scope, id)
        name = fleet_group(environment, fleet.name)
        self.group_name = name
        role = HostRole(self, "Role", environment=environment, description=f"{name}: worker hosts")
        role.allow_own_group(name)
        role.allow_lease_names(names.arn, fleet=fleet.name)
        role.allow_read_secrets([api_key])
        role.allow_read_files([published_bundle, *filter(None, [container_image])])
        tags = {
            "openqa:environment": environment.name,
            "openqa:role": "worker",
            "openqa:fleet": fleet.name,
        }
        template = HostLaunchTemplate(
            self,
            "Launch",
            environment=environment,
            name=name,
            instance_type=fleet.instance_types[0],
            image=machine_image,
            role=role,
            security_group=security_group,
            document={
                **host_document(
                    environment,
                    role="worker",
                    group=name,
                    architecture=fleet.architecture,
                    images={"worker": container_image},
                    secrets={"api_key": api_key},
                ),
                **worker_document(fleet, names=names.table),
            },
            bundle=bundle,
            published_bundle=published_bundle,
            root_gib=fleet.volume_size,
            nested_virtualization=fleet.virtualization == "nested",
            tags=tags,
        )
        mixed = len(fleet.instance_types) > 1 or fleet.spot_share > 0
        group = _Group(
            self,
            "Group",
            auto_scaling_group_name=name,
            min_size=str(fleet.min),
            max_size=str(fleet.max),
            vpc_zone_identifier=list(subnets),
            launch_template=None if mixed else template.specification,
            mixed_instances_policy=_mixed(fleet, template.specification) if mixed else None,
            new_instances_protected_from_scale_in=True,
            lifecycle_hook_specification_list=lifecycle_hooks(
                ready_seconds=METAL_READY_SECONDS if fleet.virtualization == "metal" else READY_SECONDS,
                drain_seconds=DRAIN_SECONDS,
            ),
            tags=[
                {"key": key, "value": value, "propagateAtLaunch": True}
                for key, value in {"Name": name, **tags}.items()
            ],
        )
        acknowledge(
            group,
            "AwsSolutions::AwsSolutions-AS3",
            reason="Hosts report through lifecycle hooks; fleets change size all day.",
        )
        if mixed:
            acknowledge(
                group,
                "AwsSolutions::AwsSolutions-EC26",
                reason="The rule breaks off at mixed instances; the launch template's volume is encrypted.",
            )


def _mixed(
    fleet: Fleet, template: _Group.LaunchTemplateSpecificationProperty
) -> _Group.MixedInstancesPolicyProperty:
    return _Group.MixedInstancesPolicyProperty(
        launch_template=_Group.LaunchTemplateProperty(
            launch_template_specification=template,
            overrides=[
                _Group.LaunchTemplateOverridesProperty(instance_type=name) for name in fleet.instance_types
            ],
        ),
        instances_distribution=_Group.InstancesDistributionProperty(
            on_demand_allocation_strategy="prioritized",
            on_demand_base_capacity=0,
            on_demand_percentage_above_base_capacity=round(100 * (1 - fleet.spot_share)),
            spot_allocation_strategy="price-capacity-optimized",
        ),
    )
