"""A host that comes back by itself: an Auto Scaling group of exactly one, which keeps volume and address.

An alarm rings when its root disk, on which nothing is kept, fills up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import (
    CfnAutoScalingRollingUpdate,
    CfnCreationPolicy,
    CfnResourceSignal,
    CfnUpdatePolicy,
    Stack,
)
from aws_cdk import aws_autoscaling as autoscaling
from constructs import Construct
from constructs.acknowledged import acknowledge
from constructs.alarm import MINUTE, add_alarm
from constructs.host_document import Document, backup_document, host_document, state_document
from constructs.host_launch_template import HostLaunchTemplate
from constructs.host_role import HostRole
from constructs.lifecycle_hooks import lifecycle_hooks
from constructs.machine_image import machine_image
from constructs.published_files import PublishedBundle, PublishedFile
from constructs.replacement import old_host_first
from constructs.retained_state import RetainedState

from fleet import catalogue
from settings import Environment, StatefulHost
from settings.naming import Role, backup_prefix, host_tags, stateful_group

# It boots, waits for what its predecessor holds (userdata/host/volume.py), then for its service to work
# (userdata/host/ready.py), and reports what did not come in time.
READY_SECONDS = 1800
READY = f"PT{READY_SECONDS // 60}M"
DRAIN_SECONDS = 300  # stop, unmount, detach: within two minutes
# Of the root disk.
FREE_PERCENT = 10


class SelfHealingHost(Construct):
    """The database's or the web UI's host.

    Attributes:
        role: what it may do; the stack adds what is specific to it.
        group: the Auto Scaling group.
    """

    role: HostRole
    group: autoscaling.CfnAutoScalingGroup

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        role: Role,
        host: StatefulHost,
        subnet: str,
        security_group: str,
        state: RetainedState,
        backups: str,
        images: Mapping[str, PublishedFile | None],
        secrets: Mapping[str, str | None],
        bundle: PublishedBundle,
        document: Document,
        target_groups: Sequence[str] = (),
    ) -> None:
        """Makes the host.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            role: what the host is.
            host: its settings.
            subnet: the id of the subnet that it boots in, in the zone of its volume.
            security_group: the id of the group that says who may talk to it.
            state: its volume and fixed interface.
            backups: the name of the backup bucket.
            images: the container images that it runs, and where they are.
            secrets: the ARNs of the secrets that it reads; None: there is no such secret.
            bundle: what instances run.
            document: what its document holds beyond every host's.
            target_groups: the ARNs of the load balancer's target groups that it is in.
        """
        super().__init__(scope, id)
        stack = Stack.of(self)
        name = stateful_group(environment, role)
        tags = host_tags(environment, role)
        architecture = catalogue.load()[host.instance_type].architecture
        self.role = HostRole(self, "Role", environment=environment, description=f"{name}: the host")
        self.role.allow_own_group(name)
        self.role.allow_signal(stack.stack_name)
        self.role.allow_attach(volume=state.volume, interface=state.interface, group=name)
        self.role.allow_backups(bucket=backups, prefix=backup_prefix(role))
        self.role.allow_read_secrets(filter(None, secrets.values()))
        self.role.allow_read_files([bundle, *filter(None, images.values())])
        self.group = self._group(name, subnet=subnet, target_groups=target_groups, tags=tags)
        template = HostLaunchTemplate(
            self,
            "Launch",
            environment=environment,
            name=name,
            instance_type=host.instance_type,
            image=machine_image(stack, image=environment.image.of(architecture), architecture=architecture),
            role=self.role,
            security_groups=[security_group],
            document={
                **host_document(
                    environment,
                    role=role,
                    group=name,
                    architecture=architecture,
                    images=images,
                    secrets=secrets,
                    stack=stack.stack_name,
                    resource=stack.get_logical_id(self.group),
                ),
                **state_document(state),
                **backup_document(environment, role, backups),
                **document,
            },
            bundle=bundle,
            root_gib=host.root_gib,
            detailed_monitoring=True,
            tags=tags,
        )
        self.group.launch_template = template.specification
        add_alarm(
            self,
            "RootFreePercent",
            environment=environment,
            name="DatabaseRootFreePercent" if role == "database" else "RootFreePercent",
            meaning=f"for an hour, less than {FREE_PERCENT} % of the root disk of {name} has been free, or "
            "no figure arrives (docs/operating.md)",
            # A restore's rehearsal takes room there for a time.
            statistic="Maximum",
            threshold=FREE_PERCENT,
            below=True,
            period=5 * MINUTE,
            periods=12,
        )

    def _group(
        self, name: str, *, subnet: str, target_groups: Sequence[str], tags: Mapping[str, str]
    ) -> autoscaling.CfnAutoScalingGroup:
        """The group of exactly one; for CloudFormation it is created or updated once its host signals so."""
        group = autoscaling.CfnAutoScalingGroup(
            self,
            "Group",
            auto_scaling_group_name=name,
            min_size="1",
            max_size="1",
            vpc_zone_identifier=[subnet],
            target_group_arns=list(target_groups) or None,
            instance_maintenance_policy=old_host_first(),
            lifecycle_hook_specification_list=lifecycle_hooks(
                ready_seconds=READY_SECONDS, drain_seconds=DRAIN_SECONDS
            ),
            tags=[
                {"key": key, "value": value, "propagateAtLaunch": True}
                for key, value in {"Name": name, **tags}.items()
            ],
        )
        group.cfn_options.creation_policy = CfnCreationPolicy(
            resource_signal=CfnResourceSignal(count=1, timeout=READY)
        )
        group.cfn_options.update_policy = CfnUpdatePolicy(
            auto_scaling_rolling_update=CfnAutoScalingRollingUpdate(
                min_instances_in_service=0,
                max_batch_size=1,
                pause_time=READY,
                wait_on_resource_signals=True,
                # If a host fails, the update deals with it by rolling back.
                suspend_processes=["HealthCheck", "ReplaceUnhealthy", "AZRebalance"],
            )
        )
        acknowledge(
            group,
            "AwsSolutions::AwsSolutions-AS3",
            reason="Hosts report through lifecycle hooks and signals; a host that comes back by itself is no "
            "news, and alarms ring if its service does not.",
        )
        return group
