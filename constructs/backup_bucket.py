"""The bucket of the backups, and that of access logs."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_s3 as s3
from constructs import Construct

BACKUP_DAYS = 35
LOG_DAYS = 90


class BackupBucket(Construct):
    """Where backups go: versioned, so that nothing that a host can do destroys one before its time.

    Attributes:
        bucket: the bucket.
        logs: the bucket of access logs: its own, and others'.
    """

    bucket: s3.IBucket
    logs: s3.IBucket

    def __init__(self, scope: Construct, id: str, *, removal_policy: RemovalPolicy) -> None:
        super().__init__(scope, id)
        logs = s3.Bucket(
            self,
            "Logs",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(LOG_DAYS))],
            removal_policy=removal_policy,
        )
        self.logs = logs
        self.bucket = s3.Bucket(
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
                    expiration=Duration.days(BACKUP_DAYS),
                    noncurrent_version_expiration=Duration.days(BACKUP_DAYS),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
            ],
            removal_policy=removal_policy,
        )
