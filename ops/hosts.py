"""Has a host run one of its own commands, through the Systems Manager documents of its stack."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ops.deployment import DeploymentError, asking_aws_to, client, stack_outputs
from settings import Environment

POLL_SECONDS = 2.0
# How often to check that a silent host still exists: Systems Manager would wait for it for days.
LOOK_SECONDS = 30.0
_ENDED = ("Success", "Failed", "TimedOut", "Cancelled")
# The prefix of the host's own output.
_SPEAKER = re.compile(r"^openqa-on-aws: ")


@dataclass(frozen=True)
class Answer:
    """What became of a command.

    Attributes:
        status: Systems Manager's detailed status.
        output: what it wrote to standard output.
        error: what it wrote to standard error.
    """

    status: str
    output: str
    error: str

    @property
    def done(self) -> bool:
        """Whether it succeeded."""
        return self.status == "Success"

    @property
    def reason(self) -> str:
        """Why it failed: the last line of its output, or the status."""
        lines = [line for line in (self.error or self.output).splitlines() if line.strip()]
        return _SPEAKER.sub("", lines[-1]) if lines else f"it ended as {self.status}, without any output"


class StatefulHost:
    """The database's or the web UI's host.

    Args:
        environment: whose.
        part: ``database`` or ``webui``.

    Raises:
        DeploymentError: from every method: AWS refuses or does not answer, or there is no host.
    """

    def __init__(self, environment: Environment, part: str) -> None:
        if part == "database" and environment.database.engine == "rds":
            raise DeploymentError(
                f"{environment.name}'s database is RDS, which takes its own backups and restores one as a "
                "new server: aws rds restore-db-instance-to-point-in-time"
            )
        self.part = part
        self._environment = environment
        self._outputs = stack_outputs(environment, part)
        self._ssm = client(environment, "ssm")
        self._looked = time.monotonic()

    def instance(self) -> str | None:
        """The id of the instance in service; None: there is none."""
        group = self._outputs[{"database": "DatabaseGroup", "webui": "WebUiGroup"}[self.part]]
        scaling = client(self._environment, "autoscaling")
        with asking_aws_to(f"read the group {group}"):
            answer = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        found = [
            str(instance["InstanceId"])
            for group in answer["AutoScalingGroups"]
            for instance in group["Instances"]
            if instance["LifecycleState"] == "InService"
        ]
        return found[0] if found else None

    def run(
        self, command: str, parameters: Mapping[str, str] | None = None, *, wait_seconds: float = 0
    ) -> None:
        """Has the host run a command, and prints its output as it proceeds.

        Args:
            command: the command's name, such as ``restore``.
            parameters: the document's parameters; empty ones are left out.
            wait_seconds: how long to wait for a host in service.

        Raises:
            DeploymentError: the command failed; the text is the host's own.
        """
        instance = self._await_instance(wait_seconds)
        name, shown = uuid.uuid4().hex, 0
        started = self._send(instance, command, {"Run": name, **(parameters or {})})
        while (answer := self._answer(instance, started)) is None:
            shown += self._print_progress(instance, name, shown)
            time.sleep(POLL_SECONDS)
        # Systems Manager keeps only the beginning of long output. With any other status the host may be gone.
        if answer.status in ("Success", "Failed"):
            with suppress(DeploymentError):
                shown += self._print_progress(instance, name, shown)
        for line in answer.output.splitlines()[shown:]:
            print(_SPEAKER.sub("", line), flush=True)
        if not answer.done:
            raise DeploymentError(f"{command} on the {self.part} host {instance}: {answer.reason}")

    def _await_instance(self, seconds: float) -> str:
        end = time.monotonic() + seconds
        while (found := self.instance()) is None:
            if time.monotonic() >= end:
                waited = f" after {seconds:.0f} s" if seconds else ""
                raise DeploymentError(f"{self._environment.name} has no {self.part} host in service{waited}")
            time.sleep(POLL_SECONDS)
        return found

    def _print_progress(self, instance: str, name: str, shown: int) -> int:
        """Prints the new lines of a command's progress; returns how many."""
        asked = self._send(instance, "progress", {"Run": name, "After": str(shown)})
        while (answer := self._answer(instance, asked)) is None:
            time.sleep(POLL_SECONDS / 4)
        lines = answer.output.splitlines()
        for line in lines:
            print(line, flush=True)
        return len(lines)

    def _send(self, instance: str, command: str, parameters: Mapping[str, str]) -> str:
        document = self._outputs[f"{command.capitalize()}Command"]
        hint = "no agent there is known to Systems Manager: the environment needs session_manager = true"
        with asking_aws_to(f"run {command} on {instance}", hints={"InvalidInstanceId": hint}):
            answer = self._ssm.send_command(
                DocumentName=document,
                # By its documentation CloudFormation makes a new version the default; it was seen not to.
                DocumentVersion="$LATEST",
                InstanceIds=[instance],
                Parameters={name: [value] for name, value in parameters.items() if value},
            )
        return str(answer["Command"]["CommandId"])

    def _answer(self, instance: str, command: str) -> Answer | None:
        """A command's outcome; None while it runs."""
        with asking_aws_to(f"follow the command on {instance}, where it goes on"):
            try:
                found = self._ssm.get_command_invocation(CommandId=command, InstanceId=instance)
            except self._ssm.exceptions.InvocationDoesNotExist:
                # It takes a moment to appear.
                return None
        if found["Status"] not in _ENDED:
            self._look_after(instance)
            return None
        return Answer(found["StatusDetails"], found["StandardOutputContent"], found["StandardErrorContent"])

    def _look_after(self, instance: str) -> None:
        """Checks now and then that the host is neither gone nor going, so as not to wait for it in vain."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if self.instance() != instance:
            raise DeploymentError(
                f"the {self.part} host {instance} is no longer in service and will not finish the command"
            )
