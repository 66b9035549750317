"""Snapshots of a volume on a schedule."""

from __future__ import annotations

from aws_cdk import aws_dlm as dlm
from aws_cdk import aws_iam as iam
from constructs import Construct
from constructs.acknowledged import acknowledge_patterns
from constructs.policy_documents import allow, assumed_by, inline_policy

from settings import Environment
from settings.naming import SNAPSHOTS, Role, arn, partition, stateful_group

_FIRST = "03:00"  # UTC


class Snapshots(Construct):
    """A policy of the Data Lifecycle Manager, and the role that it acts with."""

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, role: Role, volume: str
    ) -> None:
        """Makes the policy and its role.

        Args:
            scope: the construct that they belong to.
            id: their name there.
            environment: the settings.
            role: whose volume it is.
            volume: the volume's id.
        """
        super().__init__(scope, id)
        asked = environment.backups
        name = stateful_group(environment, role)
        snapshots = f"arn:{partition(environment)}:ec2:{environment.region}::snapshot/*"
        # DLM tags what it creates, so that it can delete that and nothing else.
        own = {"StringEquals": {f"aws:ResourceTag/{SNAPSHOTS}": name}}
        acting = iam.CfnRole(
            self,
            "Role",
            description=f"{name}: takes snapshots of the volume and deletes them when they are old",
            assume_role_policy_document=assumed_by(
                "dlm.amazonaws.com", source=arn(environment, "dlm", "policy/*")
            ),
            policies=[
                inline_policy(
                    "Snapshots",
                    [
                        allow(["ec2:CreateSnapshot"], [arn(environment, "ec2", f"volume/{volume}")]),
                        allow(["ec2:CreateSnapshot", "ec2:CreateTags"], [snapshots]),
                        allow(["ec2:DeleteSnapshot"], [snapshots], own),
                        allow(
                            ["ec2:DescribeInstances", "ec2:DescribeSnapshots", "ec2:DescribeVolumes"],
                            ["*"],
                            {"StringEquals": {"aws:RequestedRegion": environment.region}},
                        ),
                    ],
                )
            ],
        )
        acknowledge_patterns(
            acting,
            snapshots,
            "*",
            reason="Snapshot ids are not known beforehand, and EC2's Describe actions support no resources.",
        )
        dlm.CfnLifecyclePolicy(
            self,
            "Policy",
            description=f"{name} volume",
            state="ENABLED",
            execution_role_arn=acting.attr_arn,
            policy_details=dlm.CfnLifecyclePolicy.PolicyDetailsProperty(
                policy_type="EBS_SNAPSHOT_MANAGEMENT",
                resource_types=["VOLUME"],
                target_tags=[{"key": SNAPSHOTS, "value": name}],
                schedules=[
                    dlm.CfnLifecyclePolicy.ScheduleProperty(
                        # Always the same: DLM no longer deletes what a schedule took under another name.
                        name="regular",
                        create_rule=dlm.CfnLifecyclePolicy.CreateRuleProperty(
                            interval=asked.snapshot_hours, interval_unit="HOURS", times=[_FIRST]
                        ),
                        retain_rule=dlm.CfnLifecyclePolicy.RetainRuleProperty(count=asked.snapshots),
                        copy_tags=True,
                    )
                ],
            ),
        )
