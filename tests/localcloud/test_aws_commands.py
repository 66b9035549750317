"""Run Command as the embedded AWS plays it: what it refuses, and what it shows when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from constructs import host_commands

from localcloud.aws.commands import STDERR, STDOUT, fill
from localcloud.aws.server import Server
from localcloud.aws.service import Refusal
from tests.localcloud.aws_helpers import REGION, FakeRuntime, open_server

RUN = "0123456789abcdef" * 2
RESTORE: Any = host_commands.content(host_commands.RESTORE)


def filled(**parameters: str) -> str:
    script, seconds = fill(RESTORE, {name: [value] for name, value in {"Run": RUN, **parameters}.items()})
    assert seconds == 48 * 3600
    return script.splitlines()[-1]


def test_a_document_filled_in() -> None:
    start = f"exec python3 -m userdata.host --run {RUN} restore"
    assert filled(To="latest") == f"{start} --to latest  "
    moment = "2026-01-31T03:00:00.123456+00:00"
    assert filled(To=moment, Timeline="--timeline=3", Overwrite="--yes-overwrite") == (
        f"{start} --to {moment} --timeline=3 --yes-overwrite"
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"To": "yesterday"},
        {"To": "latest; reboot"},
        {"To": "latest\nreboot"},
        {"To": "$(reboot)"},
        {"To": "latest", "Timeline": "3"},
        {"To": "latest", "Timeline": "--timeline=3 --yes-overwrite"},
        {"To": "latest", "Overwrite": "yes"},
        {"To": "latest", "Run": "../../etc/shadow"},
        {"To": "latest", "Command": "reboot"},
    ],
)
def test_nothing_but_what_the_document_allows(parameters: dict[str, str]) -> None:
    with pytest.raises(Refusal, match="Parameter"):
        filled(**parameters)


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[Server, Any, str]]:
    """The server, its Systems Manager, and an instance that runs."""
    server, url = open_server()
    arguments = {
        "endpoint_url": url,
        "region_name": REGION,
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
    }
    ec2, ssm = boto3.client("ec2", **arguments), boto3.client("ssm", **arguments)
    for name, kind in (("restore", "Command"), ("other", "Automation")):
        ssm.create_document(Name=name, DocumentType=kind, Content=json.dumps(RESTORE))
    with FakeRuntime(server, lambda runtime, instance: None):
        image = ec2.register_image(Name="image")["ImageId"]
        launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.small")
        instance = launched["Instances"][0]["InstanceId"]
        ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})
        yield server, ssm, instance
    server.stop()


def send(ssm: Any, instance: str, **more: Any) -> str:
    arguments = {"DocumentName": "restore", "Parameters": {"Run": [RUN], "To": ["latest"]}, **more}
    return str(ssm.send_command(InstanceIds=[instance], **arguments)["Command"]["CommandId"])


@pytest.mark.parametrize(
    ("code", "instance", "more"),
    [
        ("InvalidInstanceId", "i-0123456789abcdef0", {}),
        ("InvalidDocument", None, {"DocumentName": "none"}),
        ("InvalidDocument", None, {"DocumentName": "other"}),
        ("InvalidParameters", None, {"Parameters": {"Run": [RUN], "To": ["now"]}}),
    ],
)
def test_what_is_refused(
    aws: tuple[Server, Any, str], code: str, instance: str | None, more: dict[str, Any]
) -> None:
    _, ssm, running = aws
    with pytest.raises(ClientError, match=code):
        send(ssm, instance or running, **more)


def test_the_default_stays_when_a_document_changes(aws: tuple[Server, Any, str]) -> None:
    server, ssm, instance = aws

    def content(line: str) -> str:
        step = {**RESTORE["mainSteps"][0], "inputs": {"runCommand": [line]}}
        return json.dumps({**RESTORE, "mainSteps": [step]})

    ssm.create_document(Name="changed", DocumentType="Command", Content=content("old"))
    ssm.update_document(Name="changed", DocumentVersion="$LATEST", Content=content("new"))
    scripts = []
    for more in ({}, {"DocumentVersion": "$LATEST"}):
        sent = send(ssm, instance, DocumentName="changed", **more)
        scripts += [command.script for command in server.cloud.commands()]
        server.cloud.command_started(sent)
    assert scripts == ["old", "new"]


@pytest.mark.parametrize(
    ("code", "status"), [(0, "Success"), (1, "Failed"), (200, "Failed"), (None, "TimedOut")]
)
def test_output_shows_when_a_command_has_ended(
    aws: tuple[Server, Any, str], code: int | None, status: str
) -> None:
    server, ssm, instance = aws
    sent = send(ssm, instance)

    def shown() -> Any:
        return ssm.get_command_invocation(CommandId=sent, InstanceId=instance)

    assert shown()["Status"] == "Pending"
    (command,) = server.cloud.commands()
    assert (command.id, command.instance) == (sent, instance)
    server.cloud.command_started(sent)
    assert (shown()["Status"], shown()["ResponseCode"]) == ("InProgress", -1)
    assert not server.cloud.commands()
    server.cloud.command_ended(sent, code=code, stdout="o" * 30000, stderr="e" * 30000, seconds=1.5)
    answer = shown()
    assert (answer["Status"], answer["ResponseCode"]) == (status, -1 if code is None else code)
    assert len(answer["StandardOutputContent"]) == STDOUT
    assert len(answer["StandardErrorContent"]) == STDERR
    listed = ssm.list_command_invocations(CommandId=sent)["CommandInvocations"]
    assert [entry["Status"] for entry in listed] == [status]


def test_a_command_of_another_instance_does_not_exist(aws: tuple[Server, Any, str]) -> None:
    _, ssm, instance = aws
    with pytest.raises(ClientError, match="InvocationDoesNotExist"):
        ssm.get_command_invocation(CommandId=send(ssm, instance), InstanceId="i-0123456789abcdef0")
    with pytest.raises(ClientError, match="InvalidCommandId"):
        ssm.get_command_invocation(CommandId="0" * 36, InstanceId=instance)
