"""A builder of disk images: an Auto Scaling group that is empty except while it builds."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_autoscaling as autoscaling
from constructs import Construct
from constructs.host_document import builder_document, host_document
from constructs.host_group import host_group
from constructs.host_launch_template import HostLaunchTemplate
from constructs.host_role import HostRole
from constructs.published_files import PublishedBundle

from settings import Builder, Environment
from settings.naming import builder_group, host_tags, images_prefix

READY_SECONDS = 1800  # createhdds' packages
METAL_READY_SECONDS = 3600  # also, a metal type may take over 20 minutes before it boots anything
STOP_SECONDS = 300


class ImageBuilder(Construct):
    """The builder for an architecture.

    A schedule or an operator sets the group's size to one; the host itself sets it back to zero.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        builder: Builder,
        subnets: Sequence[str],
        security_group: str,
        machine_image: str,
        bucket: str,
        bundle: PublishedBundle,
    ) -> None:
        """Makes the builder.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            builder: the builder's settings.
            subnets: the ids of the subnets that it may boot in.
            security_group: the id of the group that says who may talk to it.
            machine_image: the id of the AMI that it boots.
            bucket: the name of the bucket of disk images.
            bundle: what instances run.
        """
        super().__init__(scope, id)
        name = builder_group(environment, builder.architecture)
        role = HostRole(self, "Role", environment=environment, description=f"{name}: builds disk images")
        role.allow_own_group(name)
        role.allow_empty_own_group(name)
        role.allow_publish_images(bucket=bucket, prefix=images_prefix(builder.architecture))
        role.allow_publish_metrics()
        role.allow_read_files([bundle])
        tags = host_tags(environment, "builder")
        template = HostLaunchTemplate(
            self,
            "Launch",
            environment=environment,
            name=name,
            instance_type=builder.instance_types[0],
            image=machine_image,
            role=role,
            security_groups=[security_group],
            document={
                **host_document(
                    environment,
                    role="builder",
                    group=name,
                    architecture=builder.architecture,
                    images={},
                    secrets={},
                    os=environment.os_of(builder),
                ),
                **builder_document(builder, bucket=bucket),
            },
            bundle=bundle,
            root_gib=builder.volume_gib,
            nested_virtualization=builder.virtualization == "nested",
            tags=tags,
        )
        group = host_group(
            self,
            name=name,
            sizes=(0, 1),
            subnets=subnets,
            template=template,
            instance_types=builder.instance_types,
            ready_seconds=METAL_READY_SECONDS if builder.virtualization == "metal" else READY_SECONDS,
            drain_seconds=STOP_SECONDS,
            tags=tags,
            why_no_notifications="Hosts report through lifecycle hooks, builders by a metric with an alarm.",
        )
        if builder.schedule:
            autoscaling.CfnScheduledAction(
                self,
                "Schedule",
                auto_scaling_group_name=group.ref,
                desired_capacity=1,
                recurrence=builder.schedule,
                time_zone="Etc/UTC",
            )
