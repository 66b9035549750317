"""The database host."""

from __future__ import annotations

from aws_cdk import CfnOutput
from constructs import Construct
from constructs.backup_alarms import BackupAlarms
from constructs.host_commands import BACKUP, PROGRESS, RESTORE, HostCommands
from constructs.names import database_ca_parameter, metric_namespace
from constructs.published_files import publish_recipes
from constructs.role_document import database_document
from constructs.self_healing_host import SelfHealingHost

from fleet import catalogue
from images.bundle import Bundle
from settings import Environment
from stacks.environment_stack import EnvironmentStack
from stacks.network import NetworkStack
from stacks.storage import StorageStack


class DatabaseStack(EnvironmentStack):
    """PostgreSQL on a host of its own."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        network: NetworkStack,
        storage: StorageStack,
        bundle: Bundle,
    ) -> None:
        super().__init__(scope, "database", environment=environment, description="the database host")
        facts = catalogue.load()[environment.database.instance_type]
        host = SelfHealingHost(
            self,
            "Host",
            environment=environment,
            role="database",
            instance_type=facts.name,
            subnet=network.host_subnets[environment.network.zone],
            security_group=network.security_groups.database,
            state=storage.database,
            backups=storage.backups,
            images=publish_recipes(
                self, ["database"], environment=environment, architecture=facts.architecture
            ),
            secrets={"database": storage.secrets.database},
            bundle=bundle,
            document=database_document(memory_mib=int(facts.memory_gib * 1024)),
        )
        host.role.allow_write_parameter(database_ca_parameter(environment))
        host.role.allow_publish_metrics(metric_namespace(environment))
        BackupAlarms(self, "BackupAlarms", environment=environment)
        HostCommands(
            self,
            "Commands",
            environment=environment,
            role="database",
            commands=[BACKUP, RESTORE, PROGRESS],
        )
        CfnOutput(self, "DatabaseGroup", value=host.group.ref)
