"""The bucket of disk images, and the alarms about its content."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_s3 as s3
from constructs import Construct
from constructs.alarm import DAY, HOUR, MINUTE, add_alarm

from settings import Environment

# Builders renew objects at a third of this age, so that only those that no manifest names expire:
# userdata/host/disk_images/build.py.
KEEP_DAYS = 90


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
            removal_policy: what happens to it when its stack goes.
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
    """Two alarms for each builder."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        for builder in environment.builders:
            add_alarm(
                self,
                f"Failed-{builder.architecture}",
                environment=environment,
                name=f"ImagesFailed-{builder.architecture}",
                meaning=f"{builder.architecture} disk images: the last run of the builder failed "
                "(docs/content.md)",
                metric="ImagesFailed",
                dimensions={"Architecture": builder.architecture},
                statistic="Maximum",
                threshold=0,
                period=HOUR,
                # Runs are rare: the last one's result stands until the next.
                missing="ignore",
            )
            add_alarm(
                self,
                f"Overdue-{builder.architecture}",
                environment=environment,
                name=f"ImagesOverdue-{builder.architecture}",
                meaning=f"{builder.architecture} disk images: not found or made current for "
                f"{builder.overdue_days} days, or no figure arrives (docs/content.md)",
                metric="ImagesAgeSeconds",
                dimensions={"Architecture": builder.architecture},
                statistic="Minimum",
                threshold=builder.overdue_days * DAY,
                # The host sends no figures while it fetches images.
                period=15 * MINUTE,
                periods=4,
            )
