"""The bucket of disk images, and who may do what in it."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_s3 as s3
from constructs import Construct
from constructs.names import metric_namespace, prefix

from settings import Environment

# Builders copy what is a third as old, so that only what no manifest names expires:
# userdata/host/disk_images/build.py.
KEEP_DAYS = 90
_HOUR = 3600
_DAY = 24 * _HOUR


class DiskImages(Construct):
    """Where builders put disk images and the web UI's host finds them.

    Attributes:
        name: the bucket's name.
    """

    name: str

    def __init__(self, scope: Construct, id: str, *, logs: s3.IBucket, removal_policy: RemovalPolicy) -> None:
        """Makes the bucket.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            logs: the bucket of access logs.
            removal_policy: what becomes of it with its stack.
        """
        super().__init__(scope, id)
        bucket = s3.Bucket(
            self,
            "Images",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            server_access_logs_bucket=logs,
            server_access_logs_prefix="disk-images/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=Duration.days(KEEP_DAYS),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
            ],
            removal_policy=removal_policy,
        )
        self.name = bucket.bucket_name


class DiskImageAlarms(Construct):
    """Two alarms for each builder; none of them acts, they are there to be seen."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        for builder in environment.builders:
            of = [cloudwatch.CfnAlarm.DimensionProperty(name="Architecture", value=builder.architecture)]
            begin = f"{prefix(environment)}: {builder.architecture} disk images: "
            cloudwatch.CfnAlarm(
                self,
                f"Failed-{builder.architecture}",
                alarm_name=f"{prefix(environment)}-ImagesFailed-{builder.architecture}",
                alarm_description=f"{begin}the last run of the builder failed",
                namespace=metric_namespace(environment),
                metric_name="ImagesFailed",
                dimensions=of,
                statistic="Maximum",
                period=_HOUR,
                evaluation_periods=1,
                comparison_operator="GreaterThanThreshold",
                threshold=0,
                # Runs are rare: what the last one said stays said.
                treat_missing_data="ignore",
            )
            cloudwatch.CfnAlarm(
                self,
                f"Overdue-{builder.architecture}",
                alarm_name=f"{prefix(environment)}-ImagesOverdue-{builder.architecture}",
                alarm_description=(
                    f"{begin}not found or made current for {builder.overdue_days} days, or nothing is known"
                ),
                namespace=metric_namespace(environment),
                metric_name="ImagesAgeSeconds",
                dimensions=of,
                statistic="Minimum",
                period=_HOUR,
                evaluation_periods=1,
                comparison_operator="GreaterThanThreshold",
                threshold=builder.overdue_days * _DAY,
                treat_missing_data="breaching",
            )
