"""PostgreSQL that AWS runs: RDS in two availability zones."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import RemovalPolicy, SecretValue
from aws_cdk import aws_rds as rds
from constructs import Construct
from constructs.acknowledged import acknowledge
from constructs.alarm import MINUTE, add_alarm

from settings import Environment, Rds
from settings.naming import prefix

# The version of userdata/containers/database, so that its dumps load.
POSTGRES = "17"
_FULL = 0.1  # the share of the volume that is left


class ManagedDatabase(Construct):
    """The instance, with openQA's database and role, and alarms for a full volume and a busy processor.

    Attributes:
        endpoint: its server's name, which is in its certificate.
    """

    endpoint: str

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        settings: Rds,
        subnets: Sequence[str],
        security_group: str,
        password: str,
    ) -> None:
        """Makes the instance and what belongs to it.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            settings: the instance's settings.
            subnets: the ids of private subnets in two zones or more.
            security_group: the id of the group that says who may talk to it.
            password: the ARN of the secret with the role's password.
        """
        super().__init__(scope, id)
        name = f"{prefix(environment)}-database"
        group = rds.CfnDBSubnetGroup(
            self, "Subnets", db_subnet_group_description=f"{name}: private", subnet_ids=list(subnets)
        )
        parameters = rds.CfnDBParameterGroup(
            self,
            "Parameters",
            description=f"{name}: TLS only",
            family=f"postgres{POSTGRES}",
            parameters={
                "rds.force_ssl": "1",
                "log_min_duration_statement": "5000",
                "log_parameter_max_length": "0",  # openQA's API key is such a parameter
                "log_lock_waits": "1",
            },
        )
        instance = rds.CfnDBInstance(
            self,
            "Instance",
            engine="postgres",
            engine_version=POSTGRES,
            db_instance_class=settings.instance_class,
            multi_az=True,
            db_name="openqa",
            master_username="openqa",
            # A reference that CloudFormation resolves: the template contains no password.
            master_user_password=SecretValue.secrets_manager(password).unsafe_unwrap(),
            allocated_storage=str(settings.volume_gib),
            storage_type="gp3",
            storage_encrypted=True,
            db_subnet_group_name=group.ref,
            vpc_security_groups=[security_group],
            publicly_accessible=False,
            db_parameter_group_name=parameters.ref,
            ca_certificate_identifier="rds-ca-rsa2048-g1",
            auto_minor_version_upgrade=True,
            backup_retention_period=environment.backups.keep_days,
            delete_automated_backups=environment.disposable,
            copy_tags_to_snapshot=True,
            deletion_protection=not environment.disposable,
            # Into a log group that RDS creates, which keeps everything (docs/backups.md): one of ours would
            # have to exist first, under the instance's name, and naming the instance later would replace it.
            enable_cloudwatch_logs_exports=["postgresql"],
            tags=[{"key": "Name", "value": name}],
        )
        instance.apply_removal_policy(
            RemovalPolicy.DESTROY if environment.disposable else RemovalPolicy.SNAPSHOT
        )
        self.endpoint = instance.attr_endpoint_address
        acknowledge(
            instance,
            "AwsSolutions::AwsSolutions-RDS11",
            reason="Another port would hide nothing: one security group reaches it, and TLS is required.",
        )
        if environment.disposable:
            acknowledge(
                instance,
                "AwsSolutions::AwsSolutions-RDS10",
                reason="This kind of environment lets its state be destroyed together with its stacks.",
            )
        self._add_alarms(environment, instance.ref, volume_gib=settings.volume_gib)

    def _add_alarms(self, environment: Environment, instance: str, *, volume_gib: int) -> None:
        watched = {"DBInstanceIdentifier": instance}
        add_alarm(
            self,
            "FreeStorageSpace",
            environment=environment,
            name="database-FreeStorageSpace",
            meaning="the database's volume is nine tenths full (docs/backups.md)",
            namespace="AWS/RDS",
            metric="FreeStorageSpace",
            dimensions=watched,
            statistic="Average",
            threshold=_FULL * volume_gib * 1024**3,
            below=True,
            period=5 * MINUTE,
            periods=3,
        )
        add_alarm(
            self,
            "CPUUtilization",
            environment=environment,
            name="database-CPUUtilization",
            meaning="the database's CPU has been busy for 15 minutes (docs/backups.md)",
            namespace="AWS/RDS",
            metric="CPUUtilization",
            dimensions=watched,
            statistic="Average",
            threshold=90,
            period=5 * MINUTE,
            periods=3,
        )
