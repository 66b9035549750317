"""The bucket of the backups, and that of access logs."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct
from constructs.names import LOAD_BALANCER_LOGS, arn

from settings import Environment

BACKUP_DAYS = 35
LOG_DAYS = 90


class BackupBucket(Construct):
    """Where backups go: versioned, so that nothing that a host can do destroys one before its time.

    Attributes:
        bucket: the bucket.
        name: the bucket's name.
        logs: the name of the bucket of access logs: its own, and the load balancer's.
    """

    name: str
    logs: str

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, removal_policy: RemovalPolicy
    ) -> None:
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
        balancers = arn(environment, "elasticloadbalancing", "loadbalancer/*")
        logs.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("logdelivery.elasticloadbalancing.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[logs.arn_for_objects(f"{LOAD_BALANCER_LOGS}/AWSLogs/{environment.account}/*")],
                conditions={"ArnLike": {"aws:SourceArn": balancers}},
            )
        )
        self.logs = logs.bucket_name
        self.name = s3.Bucket(
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
        ).bucket_name
