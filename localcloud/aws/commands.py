"""Systems Manager's Run Command: documents checked as AWS checks them, and run by the runtime."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ssm.models import ssm_backends
from moto.ssm.responses import SimpleSystemManagerResponse

from localcloud.aws import ec2
from localcloud.aws.ports import Command
from localcloud.aws.service import Refusal
from localcloud.aws.world import World

# As the API's reference says of GetCommandInvocation, in characters.
STDOUT, STDERR = 24000, 8000
_PLUGIN = "aws:runShellScript"
_DELIVERY = timedelta(hours=1)  # unless the call says otherwise
_TIMEOUT_SECONDS = "3600"  # of the plugin, unless the document says otherwise
_REFERENCE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(kw_only=True)
class _Invocation:
    """A command on one instance."""

    command: Command
    document: str
    requested: datetime
    expires: datetime
    status: str = "Pending"
    details: str = "Pending"
    code: int = -1
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    comment: str = ""

    def shown(self) -> dict[str, Any]:
        """What both calls that ask about it return."""
        return {
            "CommandId": self.command.id,
            "InstanceId": self.command.instance,
            "Comment": self.comment,
            "DocumentName": self.document,
            "Status": self.status,
            "StatusDetails": self.details,
        }


class RunCommand:
    """The commands that were sent, each to one instance.

    Args:
        world: The embedded AWS.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: dict[str, _Invocation] = {}

    # -- the API

    def send_command(self, p: dict[str, Any]) -> dict[str, Any]:
        """Accept a command."""
        known = {"Comment", "DocumentName", "DocumentVersion", "InstanceIds", "Parameters"}
        if unknown := p.keys() - known:
            raise Refusal("InvalidAction", f"The local cloud does not support {', '.join(sorted(unknown))}.")
        if len(p.get("InstanceIds", [])) != 1:
            raise Refusal("InvalidAction", "The local cloud sends a command to one instance at a time.")
        instance = str(p["InstanceIds"][0])
        found = ec2.backend(self._world.account, self._world.region).get_instance_by_id(instance)
        if found is None or found.state != "running":
            raise Refusal("InvalidInstanceId", f"Instances [{instance}] not in a valid state for account")
        content = self._document(p["DocumentName"], p.get("DocumentVersion"))
        script, seconds = fill(content, p.get("Parameters", {}))
        now = self._world.clock()
        command = Command(id=str(uuid.uuid4()), instance=instance, script=script, seconds=seconds)
        self._sent[command.id] = _Invocation(
            command=command,
            document=p["DocumentName"],
            requested=now,
            expires=now + _DELIVERY,
            comment=p.get("Comment", ""),
        )
        return {
            "Command": {
                "CommandId": command.id,
                "Comment": p.get("Comment", ""),
                "DocumentName": p["DocumentName"],
                "InstanceIds": [instance],
                "Parameters": p.get("Parameters", {}),
                "RequestedDateTime": now,
                "Status": "Pending",
                "StatusDetails": "Pending",
            }
        }

    def get_command_invocation(self, p: dict[str, Any]) -> dict[str, Any]:
        """Describe a command on an instance; its output shows only once it has ended, as on AWS."""
        found = self._find(p["CommandId"])
        if found is None:
            raise Refusal("InvalidCommandId", "")
        if found.command.instance != p["InstanceId"] or p.get("PluginName", _PLUGIN) != _PLUGIN:
            raise Refusal("InvocationDoesNotExist", "")
        return {
            **found.shown(),
            "PluginName": _PLUGIN,
            "ResponseCode": found.code,
            "ExecutionElapsedTime": f"PT{found.seconds:.3f}S",
            "StandardOutputContent": found.stdout[:STDOUT],
            "StandardErrorContent": found.stderr[:STDERR],
        }

    def list_command_invocations(self, p: dict[str, Any]) -> dict[str, Any]:
        """List commands, by command or instance."""
        listed = [found for found in map(self._find, list(self._sent)) if found is not None]
        return {
            "CommandInvocations": [
                {**found.shown(), "RequestedDateTime": found.requested}
                for found in listed
                if p.get("CommandId") in (None, found.command.id)
                and p.get("InstanceId") in (None, found.command.instance)
            ]
        }

    # -- the runtime

    def waiting(self) -> tuple[Command, ...]:
        """The commands that are to be run."""
        found = map(self._find, list(self._sent))
        return tuple(sent.command for sent in found if sent is not None and sent.status == "Pending")

    def started(self, command: str) -> None:
        """A command runs now."""
        sent = self._sent[command]
        sent.status = sent.details = "InProgress"

    def ended(self, command: str, *, code: int | None, stdout: str, stderr: str, seconds: float) -> None:
        """A command has ended; without a code if it ran out of time."""
        sent = self._sent[command]
        sent.stdout, sent.stderr, sent.seconds = stdout, stderr, seconds
        sent.code = -1 if code is None else code
        if code is None:
            sent.status, sent.details = "TimedOut", "ExecutionTimedOut"
        else:
            sent.status = sent.details = "Failed" if code else "Success"

    def _find(self, command: str) -> _Invocation | None:
        found = self._sent.get(command)
        if found and found.status == "Pending" and self._world.clock() > found.expires:
            found.status, found.details = "TimedOut", "DeliveryTimedOut"
        return found

    def _document(self, name: str, version: str | None) -> dict[str, Any]:
        backend = ssm_backends[self._world.account][self._world.region]
        documents = backend._documents.get(name)
        if documents is None:
            raise Refusal("InvalidDocument", f"Document with name {name} does not exist.")
        document = documents.find(version)
        if document.document_type != "Command":
            raise Refusal("InvalidDocument", f"Document {name} is not a Command document.")
        return dict(document.content_json)


def fill(content: dict[str, Any], given: dict[str, list[str]]) -> tuple[str, int]:
    """Put parameters into a Command document of one shell script.

    Args:
        content: The document, of schema 2.2.
        given: The parameters as the API takes them.

    Returns:
        The script, and for how many seconds it may run.

    Raises:
        Refusal: The document or a parameter is invalid.
    """
    declared = content.get("parameters", {})
    if unknown := given.keys() - declared.keys():
        raise Refusal("InvalidParameters", f"Parameters [{', '.join(sorted(unknown))}] are not declared.")
    values = {}
    for name, declaration in declared.items():
        if declaration["type"] != "String":
            raise Refusal("InvalidDocument", f"The local cloud takes no {declaration['type']} parameters.")
        if name not in given and "default" not in declaration:
            raise Refusal("InvalidParameters", f"Parameter {name} is required.")
        value = given[name] if name in given else [declaration["default"]]
        if len(value) != 1:
            raise Refusal("InvalidParameters", f"Parameter {name} takes one value.")
        if not re.search(declaration.get("allowedPattern", ""), value[0]):
            raise Refusal("InvalidParameters", f"Parameter {name} does not match its allowedPattern.")
        if value[0] not in declaration.get("allowedValues", value):
            raise Refusal("InvalidParameters", f"Parameter {name} is not one of its allowedValues.")
        values[name] = value[0]
    steps = content.get("mainSteps", [])
    if content.get("schemaVersion") != "2.2" or [step["action"] for step in steps] != [_PLUGIN]:
        raise Refusal("InvalidDocument", f"The local cloud runs documents of schema 2.2 with one {_PLUGIN}.")
    inputs = steps[0]["inputs"]
    if undeclared := set(_REFERENCE.findall(json.dumps(inputs))) - declared.keys():
        raise Refusal("InvalidDocument", f"Parameters {sorted(undeclared)} are not declared.")
    lines = [_REFERENCE.sub(lambda match: values[match[1]], line) for line in inputs["runCommand"]]
    return "\n".join(lines), int(inputs.get("timeoutSeconds", _TIMEOUT_SECONDS))


def install(run_command: RunCommand) -> None:
    """Put this Run Command in the place of moto's, whose commands all succeed at once."""
    for name in ("send_command", "get_command_invocation", "list_command_invocations"):
        setattr(SimpleSystemManagerResponse, name, _responder(getattr(run_command, name)))


def _responder(method: Any) -> Any:
    def respond(self: SimpleSystemManagerResponse) -> ActionResult:
        return ActionResult(method(json.loads(self.body or "{}")))

    return respond
