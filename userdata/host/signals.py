"""What the host tells the Auto Scaling group and CloudFormation about itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from userdata.host import aws, failure
from userdata.host.document import Document
from userdata.host.errors import HostError

log = logging.getLogger(__name__)
ATTEMPTS = 6
# How long a working host may be ahead of its group, which does not wait for it right from the launch.
AHEAD_SECONDS, AHEAD_PAUSE = 60, 5


class Signals:
    """The signals of one instance.

    Args:
        document: the host document.
        instance: the instance's ID.
        client: makes a client for a service's name.
        attempts: how often to try while AWS does not answer.
        sleep: waits between attempts; takes seconds.
    """

    def __init__(
        self,
        document: Document,
        instance: str,
        client: Callable[[str], Any],
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._document = document
        self._instance = instance
        self._client = client
        self._attempts = attempts
        self._sleep = sleep

    def works(self) -> None:
        """Signals that the host works: the launch goes on, and so does a stack's update.

        Raises:
            HostError: AWS did not accept it.
        """
        for _ in range(AHEAD_SECONDS // AHEAD_PAUSE):
            if self.complete(self._document.launch_hook, "CONTINUE"):
                break
            self._sleep(AHEAD_PAUSE)
        self._signal("SUCCESS")

    def holds(self) -> None:
        """Signals that the host needs longer than usual and must not be given up: the launch waits for it.

        A stack's update goes on without it: CloudFormation waits for an hour at most, and would then roll
        back to an openQA from before an upgrade that cannot be undone.

        Raises:
            HostError: AWS did not accept it.
        """
        self.heartbeat(self._document.launch_hook)
        self._signal("SUCCESS")

    def fails(self, reason: str) -> None:
        """Signals in every way there is that the host failed; goes on if one of them fails.

        Args:
            reason: why, for operators.
        """
        tellers: tuple[Callable[[], object], ...] = (
            # First, as the others may end the host; tried only once, as they matter more.
            lambda: self._send(failure.event(self._document, instance=self._instance, reason=reason)),
            lambda: self._signal("FAILURE"),
            self.unhealthy,
            # Last, because the group then ends the instance at once.
            lambda: self.complete(self._document.launch_hook, "ABANDON"),
        )
        for tell in tellers:
            try:
                tell()
            except HostError as error:
                log.warning("%s", error)

    def complete(self, hook: str, result: str) -> bool:
        """Completes a lifecycle hook with ``CONTINUE`` or ``ABANDON``.

        Returns:
            Whether the group waited for it.

        Raises:
            HostError: AWS did not accept it.
        """
        return self._call(
            f"lifecycle hook {hook}",
            "autoscaling",
            "complete_lifecycle_action",
            AutoScalingGroupName=self._document.group,
            LifecycleHookName=hook,
            LifecycleActionResult=result,
            InstanceId=self._instance,
        )

    def heartbeat(self, hook: str) -> None:
        """Restarts a lifecycle hook's timer.

        Raises:
            HostError: AWS did not accept it.
        """
        self._call(
            f"lifecycle hook {hook}",
            "autoscaling",
            "record_lifecycle_action_heartbeat",
            AutoScalingGroupName=self._document.group,
            LifecycleHookName=hook,
            InstanceId=self._instance,
        )

    def unhealthy(self) -> None:
        """Asks the group to replace this host, which drains first if it is in service.

        Raises:
            HostError: AWS did not accept it.
        """
        self._call(
            f"group {self._document.group}",
            "autoscaling",
            "set_instance_health",
            InstanceId=self._instance,
            HealthStatus="Unhealthy",
            ShouldRespectGracePeriod=False,
        )

    def _send(self, event: dict[str, str]) -> None:
        """Sends an event; the only retries are those of AWS's client."""
        answer = aws.call("event", self._client("events").put_events, Entries=[event])
        if answer["FailedEntryCount"]:
            raise HostError(f"event: {answer['Entries'][0].get('ErrorMessage')}")

    def _signal(self, status: str) -> None:
        if self._document.resource is None:
            return
        self._call(
            f"stack {self._document.stack}",
            "cloudformation",
            "signal_resource",
            StackName=self._document.stack,
            LogicalResourceId=self._document.resource,
            UniqueId=self._instance,
            Status=status,
        )

    def _call(self, what: str, service: str, action: str, **arguments: Any) -> bool:
        """Calls AWS until it answers; returns whether what the call is about existed."""
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(min(2.0**attempt, 15.0))
            try:
                getattr(self._client(service), action)(**arguments)
                return True
            except ClientError as error:
                reason = str(error)
                if error.response["Error"]["Code"] == "ValidationError":
                    # Nothing waits for it: a host replaced outside a stack's update, a hook that timed out.
                    log.warning("%s: %s: %s", what, action, reason)
                    return False
            except BotoCoreError as error:
                reason = str(error)
        raise HostError(f"{what}: {action} failed: {reason}")
