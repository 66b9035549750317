"""The worker fleets."""

from __future__ import annotations

from constructs import Construct
from constructs.host_names import HostNames
from constructs.machine_image import machine_image
from constructs.published_files import PublishedFile, publish_bundle, publish_recipes
from constructs.worker_fleet import WorkerFleet

from images.bundle import Bundle
from settings import Architecture, Environment
from stacks.environment_stack import EnvironmentStack
from stacks.network import NetworkStack
from stacks.storage import StorageStack


class WorkersStack(EnvironmentStack):
    """All worker fleets."""

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
        super().__init__(scope, "workers", environment=environment, description="the worker fleets")
        published = publish_bundle(self, bundle)
        machine_images: dict[Architecture, str] = {}
        container_images: dict[Architecture, PublishedFile | None] = {}
        for architecture in dict.fromkeys(fleet.architecture for fleet in environment.fleets):
            machine_images[architecture] = machine_image(
                self, image=environment.image.of(architecture), architecture=architecture
            )
            files = publish_recipes(self, ["worker"], environment=environment, architecture=architecture)
            container_images[architecture] = files["worker"]
        names = HostNames(self, "HostNames")
        zones = environment.network.availability_zones
        nearest_first = sorted(zones, key=lambda zone: zone != environment.network.zone)
        for fleet in environment.fleets:
            name = fleet.name.title().replace("-", "")
            WorkerFleet(
                self,
                f"Fleet{name}",
                environment=environment,
                fleet=fleet,
                vpc=network.vpc,
                subnets=[network.host_subnets[zone] for zone in nearest_first],
                security_group=network.security_groups.worker,
                machine_image=machine_images[fleet.architecture],
                container_image=container_images[fleet.architecture],
                api_key=storage.secrets.worker_key,
                names=names,
                bundle=published,
            )
