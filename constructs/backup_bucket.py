"""The backup bucket."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct
from constructs.policy_documents import allow, assumed_by, document

from settings import Environment


class BackupBucket(Construct):
    """Where backups go: versioned, so that no host can destroy a backup before its time.

    Attributes:
        name: the bucket's name.
    """

    name: str

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        logs: s3.IBucket,
        removal_policy: RemovalPolicy,
    ) -> None:
        """Makes the bucket.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            logs: the bucket of access logs.
            removal_policy: what happens to it when its stack goes.
        """
        super().__init__(scope, id)
        asked = environment.backups
        lock = asked.object_lock_days
        bucket = s3.Bucket(
            self,
            "Backups",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            versioned=True,
            server_access_logs_bucket=logs,
            server_access_logs_prefix="backups/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=Duration.days(asked.keep_days),
                    noncurrent_version_expiration=Duration.days(asked.keep_days),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                ),
                # An expired object leaves this marker once its versions are gone.
                s3.LifecycleRule(expired_object_delete_marker=True),
            ],
            # Governance: an administrator who may bypass it can still undo a mistake.
            object_lock_default_retention=(
                s3.ObjectLockRetention.governance(Duration.days(lock)) if lock else None
            ),
            removal_policy=removal_policy,
        )
        self.name = bucket.bucket_name
        if asked.replicate_to:
            self._replicate(bucket, asked.replicate_to)

    def _replicate(self, bucket: s3.Bucket, destination: str) -> None:
        """Copies each new object to a bucket elsewhere; deletions are not copied."""
        role = iam.CfnRole(
            self,
            "Replication",
            description="copies backups to another bucket",
            # Without a source: S3 documents none here, and a bucket takes only roles of its own account.
            assume_role_policy_document=assumed_by("s3.amazonaws.com"),
        )
        iam.CfnRolePolicy(
            self,
            "ReplicationPolicy",
            policy_name="Replicate",
            role_name=role.ref,
            policy_document=document(
                [
                    allow(["s3:GetReplicationConfiguration", "s3:ListBucket"], [bucket.bucket_arn]),
                    allow(
                        [
                            "s3:GetObjectVersionForReplication",
                            "s3:GetObjectVersionAcl",
                            "s3:GetObjectVersionTagging",
                            "s3:GetObjectRetention",
                            "s3:GetObjectLegalHold",
                        ],
                        [bucket.arn_for_objects("*")],
                    ),
                    allow(["s3:ReplicateObject", "s3:ReplicateTags"], [f"{destination}/*"]),
                ]
            ),
        )
        made = bucket.node.default_child
        assert isinstance(made, s3.CfnBucket)  # noqa: S101  # always true, but the types do not say so
        made.replication_configuration = s3.CfnBucket.ReplicationConfigurationProperty(
            role=role.attr_arn,
            rules=[
                s3.CfnBucket.ReplicationRuleProperty(
                    id="all",
                    priority=1,
                    status="Enabled",
                    filter=s3.CfnBucket.ReplicationRuleFilterProperty(prefix=""),
                    delete_marker_replication=s3.CfnBucket.DeleteMarkerReplicationProperty(status="Disabled"),
                    destination=s3.CfnBucket.ReplicationDestinationProperty(bucket=destination),
                )
            ],
        )
