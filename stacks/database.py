"""The database: a host of ours, RDS, or both during the move from one to the other."""

from __future__ import annotations

from aws_cdk import CfnOutput
from constructs import Construct
from constructs.database_alarms import DatabaseAlarms
from constructs.host_commands import BACKUP, PROGRESS, RESTART, RESTORE, HostCommands
from constructs.host_document import database_document
from constructs.managed_database import ManagedDatabase
from constructs.published_files import publish_bundle, publish_recipes
from constructs.retained_state import RetainedState
from constructs.self_healing_host import SelfHealingHost

from fleet import catalogue
from images.bundle import Bundle
from settings import Environment, StatefulHost
from settings.naming import database_ca_parameter
from stacks.environment_stack import EnvironmentStack
from stacks.network import NetworkStack
from stacks.storage import StorageStack


class DatabaseStack(EnvironmentStack):
    """PostgreSQL.

    Attributes:
        endpoint: the name of RDS's server, if openQA uses it; None: openQA uses our host.
    """

    endpoint: str | None

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        network: NetworkStack,
        storage: StorageStack,
        bundle: Bundle,
    ) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            environment: the settings.
            network: the network's stack.
            storage: the storage's stack.
            bundle: what instances run.
        """
        asked = environment.database
        super().__init__(
            scope,
            "database",
            environment=environment,
            description="the database" if asked.rds else "the database host",
            holds_state=asked.rds is not None,
        )
        self.endpoint = None
        if asked.rds:
            managed = ManagedDatabase(
                self,
                "Managed",
                environment=environment,
                settings=asked.rds,
                subnets=[network.private_subnets[zone] for zone in environment.network.availability_zones],
                security_group=network.security_groups.database,
                password=storage.secrets.database,
            )
            # A web UI that goes back to our host still imports it while this stack is deployed.
            endpoint = self.export_value(managed.endpoint)
            self.endpoint = endpoint if asked.engine == "rds" else None
            CfnOutput(self, "DatabaseEndpoint", value=managed.endpoint)
        if asked.engine == "container" and asked.host and storage.database:
            self._add_host(environment, asked.host, storage.database, network, storage, bundle)

    def _add_host(
        self,
        environment: Environment,
        asked: StatefulHost,
        state: RetainedState,
        network: NetworkStack,
        storage: StorageStack,
        bundle: Bundle,
    ) -> None:
        facts = catalogue.load()[asked.instance_type]
        host = SelfHealingHost(
            self,
            "Host",
            environment=environment,
            role="database",
            host=asked,
            subnet=network.host_subnets[environment.network.zone],
            security_group=network.security_groups.database,
            state=state,
            backups=storage.backups,
            images=publish_recipes(
                self, ["database"], environment=environment, architecture=facts.architecture
            ),
            secrets={"database": storage.secrets.database},
            bundle=publish_bundle(self, bundle),
            document=database_document(memory_mib=int(facts.memory_gib * 1024)),
        )
        host.role.allow_write_parameter(database_ca_parameter(environment))
        host.role.allow_publish_metrics()
        DatabaseAlarms(self, "Alarms", environment=environment)
        HostCommands(
            self,
            "Commands",
            environment=environment,
            role="database",
            commands=[BACKUP, RESTORE, RESTART, PROGRESS],
        )
        CfnOutput(self, "DatabaseGroup", value=host.group.ref)
