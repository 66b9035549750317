"""The embedded AWS for tests, and a runtime that boots nothing: it only reports, at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from localcloud.aws.ports import Instance, Interface, VolumeAttachment
from localcloud.aws.server import Server, start

REGION = "us-east-1"
ACCOUNT = "123456789012"


def open_server() -> tuple[Server, str]:
    """The embedded AWS on a free port, and its URL."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return (
        start(socket=listening, region=REGION, account=ACCOUNT),
        f"http://localhost:{listening.getsockname()[1]}",
    )


class FakeRuntime:
    """Plays the machines: each comes up as ``outcome`` says, and goes when it is told to.

    Args:
        server: The embedded AWS.
        outcome: What an instance does once it runs; by default it completes its hook and signals success.
    """

    def __init__(
        self, server: Server, outcome: Callable[[FakeRuntime, Instance], None] | None = None
    ) -> None:
        self.server = server
        self.cloud = server.cloud
        self.outcome = outcome or FakeRuntime.succeed
        self.drained: list[str] = []
        self._done: set[str] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeRuntime:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self.server.world.touch()
        self._thread.join()

    def _run(self) -> None:
        version = -1
        while not self._stopped:
            version = self.cloud.wait(version, 0.2)
            for instance in self.cloud.instances():
                self._look(instance)

    def _look(self, instance: Instance) -> None:
        attachments: list[VolumeAttachment | Interface] = [*instance.volumes, *instance.interfaces]
        for attachment in attachments:
            if attachment.state == "attaching":
                self.cloud.attached(attachment.id)
            elif attachment.state == "detaching":
                self.cloud.detached(attachment.id)
        if instance.state == "pending":
            self.cloud.set_state(instance.id, "running")
        elif instance.state == "shutting-down":
            self.cloud.set_state(instance.id, "terminated")
        elif instance.state == "stopping":
            self.cloud.set_state(instance.id, "stopped")
        elif instance.state == "running" and instance.id not in self._done:
            self._done.add(instance.id)
            self.outcome(self, instance)
        elif instance.target_lifecycle_state == "Terminated" and instance.id not in self.drained:
            self.drained.append(instance.id)
            self.complete(instance, "drain", "CONTINUE")

    def complete(self, instance: Instance, hook: str, result: str) -> None:
        """Complete a lifecycle action, if the instance waits for it."""
        client: Any = self.server.client("autoscaling")
        try:
            client.complete_lifecycle_action(
                AutoScalingGroupName=instance.group,
                LifecycleHookName=hook,
                InstanceId=instance.id,
                LifecycleActionResult=result,
            )
        except client.exceptions.ClientError as error:
            if "No active Lifecycle Action" not in str(error):
                raise

    def signal(self, instance: Instance, status: str) -> None:
        """Signal CloudFormation, if it waits for that."""
        client: Any = self.server.client("cloudformation")
        try:
            client.signal_resource(
                StackName=instance.tags["aws:cloudformation:stack-name"],
                LogicalResourceId=instance.tags["aws:cloudformation:logical-id"],
                UniqueId=instance.id,
                Status=status,
            )
        except client.exceptions.ClientError as error:
            if "cannot be signaled" not in str(error):
                raise

    def succeed(self, instance: Instance) -> None:
        """The host came up."""
        self.complete(instance, "ready", "CONTINUE")
        self.signal(instance, "SUCCESS")

    def fail(self, instance: Instance) -> None:
        """The host did not come up, and powered itself off."""
        self.signal(instance, "FAILURE")
        self.complete(instance, "ready", "ABANDON")
        self.cloud.set_state(instance.id, "stopped")
