"""What a host may do: an IAM role, built from statements with one purpose each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aws_cdk import aws_iam as iam
from constructs import Construct
from constructs.acknowledged import acknowledge_patterns
from constructs.policy_documents import allow, assumed_by, inline_policy
from constructs.published_files import PublishedFile

from fleet import facts
from settings import Environment
from settings.naming import arn, fleet_group, metric_namespace, partition, tags
from userdata.host import failure

_SESSION_CHANNELS = (
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


class HostRole(Construct):
    """The role of hosts of one kind, with its instance profile.

    Attributes:
        profile_arn: the instance profile's ARN.
    """

    profile_arn: str

    def __init__(self, scope: Construct, id: str, *, environment: Environment, description: str) -> None:
        """Makes the role, which so far may only do what Session Manager needs.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            description: what its hosts are, for IAM's lists.
        """
        super().__init__(scope, id)
        self._environment = environment
        self._statements: list[Mapping[str, Any]] = []
        self._role = iam.CfnRole(
            self,
            "Role",
            description=description,
            assume_role_policy_document=assumed_by("ec2.amazonaws.com"),
        )
        self.profile_arn = iam.CfnInstanceProfile(self, "Profile", roles=[self._role.ref]).attr_arn
        if environment.session_manager:
            self._allow(_SESSION_CHANNELS, ["*"], because="Session Manager's channels have no ARN.")
            self._allow(
                ["ssm:UpdateInstanceInformation"],
                [self._arn("ec2", "instance/*")],
                because="A host reports about itself by its id, which no template knows.",
            )

    def allow_own_group(self, group: str) -> None:
        """Lets a host complete its lifecycle hooks, and report that it is unhealthy and why it failed.

        Args:
            group: the Auto Scaling group's name.
        """
        self._allow(
            [
                "autoscaling:CompleteLifecycleAction",
                "autoscaling:RecordLifecycleActionHeartbeat",
                "autoscaling:SetInstanceHealth",
            ],
            [self._arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{group}")],
            because="A group's ARN contains a random id before the name; only the name is known.",
        )
        self._allow(
            ["events:PutEvents"],
            [self._arn("events", "event-bus/default")],
            conditions={
                "StringEquals": {"events:detail-type": failure.KIND},
                # A request can have several: the EventBridge user guide, "Example policy: Send events to a
                # custom bus in a different account".
                "ForAllValues:StringEquals": {"events:source": [failure.source(self._environment.name)]},
            },
        )

    def allow_see_hosts(self) -> None:
        """Lets a host see the addresses of others."""
        self._allow_describe("EC2", ["ec2:DescribeInstances"])

    def allow_signal(self, stack: str) -> None:
        """Lets a host tell CloudFormation that it is ready.

        Args:
            stack: its stack's name.
        """
        self._allow(
            ["cloudformation:SignalResource"],
            [self._arn("cloudformation", f"stack/{stack}/*")],
            because="A stack's ARN ends in a random id after the name; only the name is known.",
        )

    def allow_attach(self, *, volume: str, interface: str, group: str) -> None:
        """Lets a host attach and detach its volume and its fixed interface.

        Args:
            volume: the volume's id.
            interface: the network interface's id.
            group: the Auto Scaling group to whose instances they may be attached.
        """
        own = {"StringEquals": {"aws:ResourceTag/aws:autoscaling:groupName": group}}
        attach = [
            "ec2:AttachVolume",
            "ec2:DetachVolume",
            "ec2:AttachNetworkInterface",
            "ec2:DetachNetworkInterface",
        ]
        self._allow(attach[:2], [self._arn("ec2", f"volume/{volume}")])
        self._allow(attach[2:], [self._arn("ec2", f"network-interface/{interface}")])
        self._allow(
            attach,
            [self._arn("ec2", "instance/*")],
            conditions=own,
            because="Instances come and go; the condition narrows this to those of the host's own group.",
        )
        self._allow_describe(
            "EC2", ["ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces", "ec2:DescribeVolumes"]
        )

    def allow_lease_names(self, table: str, *, fleet: str) -> None:
        """Lets a host lease a name of its fleet, and see which instances the fleet has.

        Args:
            table: the ARN of the table of names.
            fleet: the fleet, the only partition of the table that the host may touch.
        """
        self._allow(
            ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"],
            [table],
            conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [fleet]}},
        )
        self._allow_describe("Auto Scaling", ["autoscaling:DescribeAutoScalingGroups"])

    def allow_read_secrets(self, arns: Iterable[str]) -> None:
        """Lets a host read the values of secrets."""
        self._allow(["secretsmanager:GetSecretValue"], list(arns))

    def allow_read_files(self, files: Iterable[PublishedFile]) -> None:
        """Lets a host fetch published files: only these objects."""
        begin = f"arn:{partition(self._environment)}:s3:::"
        self._allow(["s3:GetObject"], [f"{begin}{file.bucket}/{file.key}" for file in files])

    def allow_backups(self, *, bucket: str, prefix: str) -> None:
        """Lets a host write and read objects below a prefix of the backup bucket, but never delete them.

        Args:
            bucket: the bucket's name.
            prefix: what its keys begin with.
        """
        begin = f"arn:{partition(self._environment)}:s3:::{bucket}"
        self._allow(["s3:ListBucket"], [begin], conditions={"StringLike": {"s3:prefix": [f"{prefix}*"]}})
        self._allow(
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            [f"{begin}/{prefix}*"],
            because="The objects are not known beforehand; all are the host's own.",
        )

    def allow_publish_images(self, *, bucket: str, prefix: str) -> None:
        """Lets a host publish disk images below a prefix and read them, but never delete them.

        Args:
            bucket: the bucket's name.
            prefix: what its keys begin with.
        """
        begin = f"arn:{partition(self._environment)}:s3:::{bucket}"
        # Without it S3 answers the same for what is missing as for what may not be read.
        self._allow(["s3:ListBucket"], [begin])
        self._allow(
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            [f"{begin}/{prefix}*"],
            because="The images are not known beforehand; all are the host's own.",
        )

    def allow_read_images(self, bucket: str) -> None:
        """Lets a host read published disk images; ``bucket`` is the bucket's name."""
        begin = f"arn:{partition(self._environment)}:s3:::{bucket}"
        # Without it S3 answers the same for what is missing as for what may not be read.
        self._allow(["s3:ListBucket"], [begin])
        self._allow(
            ["s3:GetObject"],
            [f"{begin}/*"],
            because="The images are not known beforehand, and nothing else is in the bucket.",
        )

    def allow_empty_own_group(self, group: str) -> None:
        """Lets a host set the size of its own group, and see which hosts are in it.

        Args:
            group: the Auto Scaling group's name.
        """
        self._allow(
            ["autoscaling:SetDesiredCapacity"],
            [self._arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{group}")],
            because="A group's ARN contains a random id before the name; only the name is known.",
        )
        self._allow_describe("Auto Scaling", ["autoscaling:DescribeAutoScalingGroups"])

    def allow_read_parameter(self, name: str) -> None:
        """Lets a host read an SSM parameter."""
        self._allow(["ssm:GetParameter"], [self._arn("ssm", f"parameter{name}")])

    def allow_control_fleets(self, *, subnets: Sequence[str]) -> None:
        """Lets a host size the environment's fleets: read their facts, change their groups, publish metrics.

        Args:
            subnets: the ids of the subnets that their hosts may boot in.
        """
        # A pattern, because a role's policies have no room for each fleet's name. The tag keeps out other
        # environments whose name begins as the names of this one's fleet groups do.
        groups = self._arn(
            "autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{fleet_group(self._environment, '*')}"
        )
        own = {f"aws:ResourceTag/{key}": value for key, value in tags(self._environment).items()}
        self._allow(
            [
                "autoscaling:SetDesiredCapacity",
                "autoscaling:SuspendProcesses",
                "autoscaling:TerminateInstanceInAutoScalingGroup",
            ],
            [groups],
            conditions={"StringEquals": own},
            because="A group's ARN contains a random id before the name, and fleets come and go; the "
            "condition narrows this to the environment's.",
        )
        # The zones, but not how many hosts there may be, nor what they are. Setting another launch template
        # also takes ec2:RunInstances, which no host has: the user guide of EC2 Auto Scaling, "Control Amazon
        # EC2 launch template usage in Auto Scaling groups".
        self._allow(
            ["autoscaling:UpdateAutoScalingGroup"],
            [groups],
            conditions={
                "StringEquals": own,
                "ForAllValues:StringEquals": {"autoscaling:VPCZoneIdentifiers": list(subnets)},
                "Null": {
                    "autoscaling:VPCZoneIdentifiers": "false",
                    "autoscaling:LaunchConfigurationName": "true",
                    "autoscaling:MaxSize": "true",
                    "autoscaling:MinSize": "true",
                },
            },
        )
        self._allow_describe(
            "Auto Scaling", ["autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeScalingActivities"]
        )
        parameters = facts.parameters(self._environment.name)
        self._allow(
            ["ssm:GetParametersByPath"],
            [self._arn("ssm", f"parameter{parameters}"), self._arn("ssm", f"parameter{parameters}/*")],
            because="Each fleet has a parameter of its own below this path.",
        )
        self.allow_publish_metrics()

    def allow_write_parameter(self, name: str) -> None:
        """Lets a host write an SSM parameter."""
        self._allow(["ssm:PutParameter"], [self._arn("ssm", f"parameter{name}")])

    def allow_publish_metrics(self) -> None:
        """Lets a host put the environment's own CloudWatch metrics."""
        namespace = metric_namespace(self._environment)
        self._allow(
            ["cloudwatch:PutMetricData"],
            ["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": namespace}},
            because="Metrics are not resources; the condition narrows this to the environment's namespace.",
        )

    def _allow_describe(self, service: str, actions: Sequence[str]) -> None:
        self._allow(
            actions,
            ["*"],
            conditions={"StringEquals": {"aws:RequestedRegion": self._environment.region}},
            because=f"{service}'s Describe actions support no resources.",
        )

    def _arn(self, service: str, resource: str) -> str:
        return arn(self._environment, service, resource)

    def _allow(
        self,
        actions: Sequence[str],
        resources: Sequence[str],
        *,
        conditions: Mapping[str, Any] | None = None,
        because: str | None = None,
    ) -> None:
        self._statements.append(allow(actions, resources, conditions))
        # An inline policy exists as soon as the role does: no instance boots without it.
        self._role.policies = [inline_policy("Host", self._statements)]
        if because:
            acknowledge_patterns(self, *resources, reason=because)
