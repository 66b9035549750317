"""The bucket for access logs: the other buckets' and the load balancer's."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from settings import Environment
from settings.naming import LOAD_BALANCER_LOGS, arn


class AccessLogs(Construct):
    """The bucket to which S3 and Elastic Load Balancing deliver.

    Attributes:
        bucket: the bucket, for buckets that log to it.
        name: its name.
    """

    bucket: s3.IBucket
    name: str

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, removal_policy: RemovalPolicy
    ) -> None:
        """Makes the bucket.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            removal_policy: what happens to it when its stack goes.
        """
        super().__init__(scope, id)
        bucket = s3.Bucket(
            self,
            "Default",  # adds nothing to the logical id, which must not change
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(environment.log_days))],
            removal_policy=removal_policy,
        )
        balancers = arn(environment, "elasticloadbalancing", "loadbalancer/*")
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("logdelivery.elasticloadbalancing.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"{LOAD_BALANCER_LOGS}/AWSLogs/{environment.account}/*")],
                conditions={"ArnLike": {"aws:SourceArn": balancers}},
            )
        )
        self.bucket = bucket
        self.name = bucket.bucket_name
