"""Everything that is kept: volumes, fixed addresses, backups, secrets."""

from __future__ import annotations

from aws_cdk import CfnOutput
from constructs import Construct
from constructs.access_logs import AccessLogs
from constructs.backup_bucket import BackupBucket
from constructs.disk_images import DiskImages
from constructs.generated_secrets import GeneratedSecrets
from constructs.host_events import HostEvents
from constructs.retained_state import RetainedState
from constructs.snapshots import Snapshots

from settings import Environment
from stacks.environment_stack import EnvironmentStack, state_policy
from stacks.network import NetworkStack


class StorageStack(EnvironmentStack):
    """The state of an environment: every other stack can be destroyed and created again.

    Attributes:
        database: the database host's volume and interface; None: there is no such host.
        webui: the web UI host's volume and interface.
        backups: the name of the backup bucket.
        logs: the name of the bucket of access logs.
        secrets: the secrets.
        disk_images: the name of the bucket of disk images; None: the environment has no builders.
    """

    database: RetainedState | None
    webui: RetainedState
    backups: str
    logs: str
    secrets: GeneratedSecrets
    disk_images: str | None

    def __init__(self, scope: Construct, *, environment: Environment, network: NetworkStack) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            environment: the settings.
            network: the network's stack.
        """
        super().__init__(
            scope,
            "storage",
            environment=environment,
            description="volumes, addresses, backups, secrets",
            holds_state=True,
        )
        policy = state_policy(environment)
        subnet = network.private_subnets[environment.network.zone]
        self.database = None
        if host := environment.database.host:
            self.database = RetainedState(
                self,
                "Database",
                environment=environment,
                role="database",
                address=host.address,
                volume_gib=host.volume_gib,
                subnet=subnet,
                security_group=network.security_groups.database,
                private_zone_id=network.private_zone_id,
                removal_policy=policy,
            )
            # A database host that is being removed still imports them while this stack is deployed.
            self.export_value(self.database.volume)
            self.export_value(self.database.interface)
        self.webui = RetainedState(
            self,
            "WebUi",
            environment=environment,
            role="webui",
            address=environment.webui.address,
            volume_gib=environment.webui.volume_gib,
            volume_mibps=environment.webui.volume_mibps,
            subnet=subnet,
            security_group=network.security_groups.webui,
            private_zone_id=network.private_zone_id,
            removal_policy=policy,
        )
        self.secrets = GeneratedSecrets(self, "Secrets", environment=environment, removal_policy=policy)
        # Both logical ids include this scope ("Default" adds nothing to them) and must not change.
        buckets = Construct(self, "Backups")
        logs = AccessLogs(buckets, "Logs", environment=environment, removal_policy=policy)
        backups = BackupBucket(
            buckets, "Default", environment=environment, logs=logs.bucket, removal_policy=policy
        )
        # As an export, whose name the security rules report about a host's role (HostRole).
        self.backups = self.export_value(backups.name)
        self.logs = logs.name
        if environment.backups.snapshots:
            Snapshots(self, "Snapshots", environment=environment, role="webui", volume=self.webui.volume)
        HostEvents(self, "HostEvents", environment=environment)
        CfnOutput(self, "BackupBucket", value=backups.name)
        self.disk_images = None
        if environment.builders:
            images = DiskImages(self, "DiskImages", logs=logs.bucket, removal_policy=policy)
            self.disk_images = self.export_value(images.name)
            CfnOutput(self, "DiskImagesBucket", value=images.name)
