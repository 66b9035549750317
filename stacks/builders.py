"""The builders of disk images."""

from __future__ import annotations

from constructs import Construct
from constructs.disk_images import DiskImageAlarms
from constructs.image_builder import ImageBuilder
from constructs.machine_image import machine_image
from constructs.published_files import publish_bundle

from images.bundle import Bundle
from settings import Environment
from stacks.environment_stack import EnvironmentStack
from stacks.network import NetworkStack


class BuildersStack(EnvironmentStack):
    """A builder for each architecture that the environment names, and the alarms about them."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        network: NetworkStack,
        security_group: str,
        bucket: str,
        bundle: Bundle,
    ) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            environment: the settings.
            network: the network's stack.
            security_group: the id of the builders' group.
            bucket: the name of the bucket of disk images.
            bundle: what instances run.
        """
        super().__init__(
            scope, "builders", environment=environment, description="the builders of disk images"
        )
        published = publish_bundle(self, bundle)
        for builder in environment.builders:
            name = f"Builder{builder.architecture.replace('_', '').title()}"
            ImageBuilder(
                self,
                name,
                environment=environment,
                builder=builder,
                subnets=[network.host_subnets[zone] for zone in environment.network.availability_zones],
                security_group=security_group,
                machine_image=machine_image(
                    self, image=environment.image_of(builder), architecture=builder.architecture
                ),
                bucket=bucket,
                bundle=published,
            )
        DiskImageAlarms(self, "Alarms", environment=environment)
