"""The web UI host and its public side."""

from __future__ import annotations

from aws_cdk import CfnOutput
from constructs import Construct
from constructs.content_alarms import ContentAlarms
from constructs.controller_alarms import ControllerAlarms
from constructs.front_door import FrontDoor
from constructs.host_commands import CONTENT, PROGRESS, RECONCILE, RESTART, SCHEDULE, HostCommands
from constructs.host_document import disk_images_document, webui_document
from constructs.minion_alarms import MinionAlarms
from constructs.published_files import PublishedFile, publish_bundle, publish_recipe, publish_recipes
from constructs.schedule_alarms import ScheduleAlarms
from constructs.schedule_document import schedule_document
from constructs.self_healing_host import SelfHealingHost

from fleet import catalogue
from images.bundle import Bundle
from settings import Environment
from settings.naming import database_ca_parameter
from stacks.environment_stack import EnvironmentStack
from stacks.network import NetworkStack
from stacks.storage import StorageStack


class WebUiStack(EnvironmentStack):
    """openQA's web UI behind a load balancer."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        network: NetworkStack,
        storage: StorageStack,
        hosted_zone_id: str | None,
        database: str | None,
        bundle: Bundle,
    ) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            environment: the settings.
            network: the network's stack.
            storage: the storage's stack.
            hosted_zone_id: the id of the domain's hosted zone; None: there is no domain.
            database: the name of RDS's server; None: the database is a host of ours.
            bundle: what instances run.
        """
        super().__init__(scope, "webui", environment=environment, description="the web UI host")
        architecture = catalogue.load()[environment.webui.instance_type].architecture
        files = publish_recipes(
            self, ["webui", "proxy", "sample"], environment=environment, architecture=architecture
        )
        consumer: dict[str, PublishedFile | None] = {}
        fedora = environment.schedule is not None and environment.schedule.program == "fedora_openqa"
        if fedora:
            # In no AMI: it is built from git, for those who want it.
            consumer["consumer"] = publish_recipe(
                self, "consumer", environment=environment, architecture=architecture
            )
        secrets = storage.secrets
        door = FrontDoor(
            self,
            "FrontDoor",
            environment=environment,
            vpc=network.vpc,
            subnets=[network.public_subnets[zone] for zone in environment.network.availability_zones],
            security_group=network.security_groups.load_balancer,
            logs=storage.logs,
            hosted_zone_id=hosted_zone_id,
        )
        host = SelfHealingHost(
            self,
            "Host",
            environment=environment,
            role="webui",
            host=environment.webui,
            subnet=network.host_subnets[environment.network.zone],
            security_group=network.security_groups.webui,
            state=storage.webui,
            backups=storage.backups,
            images={name: files[name] for name in ("webui", "proxy")} | consumer,
            secrets={
                "database": secrets.database,
                "api_key": secrets.api_key,
                "worker_key": secrets.worker_key,
                "sign_in": secrets.sign_in,
                **({"broker": secrets.broker} if secrets.broker else {}),
            },
            bundle=publish_bundle(self, bundle),
            document={
                **webui_document(
                    environment,
                    architecture=architecture,
                    url=door.url,
                    sample=files["sample"],
                    database=database,
                ),
                **disk_images_document(environment, storage.disk_images),
                **schedule_document(environment),
            },
            target_groups=[door.target_group],
        )
        if database is None:
            host.role.allow_read_parameter(database_ca_parameter(environment))
        host.role.allow_control_fleets(
            subnets=[network.host_subnets[zone] for zone in environment.network.availability_zones]
        )
        if storage.disk_images is not None:
            host.role.allow_read_images(storage.disk_images)
        ControllerAlarms(self, "Controller", environment=environment)
        ContentAlarms(self, "Content", environment=environment)
        MinionAlarms(self, "Minion", environment=environment)
        ScheduleAlarms(self, "Schedule", environment=environment)
        if sample := files["sample"]:
            host.role.allow_read_files([sample])
        HostCommands(
            self,
            "Commands",
            environment=environment,
            role="webui",
            commands=[CONTENT, RECONCILE, RESTART, PROGRESS, *([SCHEDULE] if fedora else [])],
        )
        CfnOutput(self, "Url", value=door.url)
        CfnOutput(self, "ApiKeySecretArn", value=secrets.api_key)
        CfnOutput(self, "WebUiGroup", value=host.group.ref)
