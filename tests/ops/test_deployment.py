"""What operators' commands know of a deployment, and how they ask its openQA."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any, Literal

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto import mock_aws

from ops import deployment, schedule, smoke
from ops.__main__ import main
from ops.deployment import DeploymentError, OpenQa, stack_outputs
from settings import load

TEMPLATE = '{"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}, "Outputs": {"Url": {"Value": "https://x"}}}'


def test_an_output_that_is_not_there_yet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("cloudformation", region_name="us-east-1").create_stack(
            StackName="openqa-local-webui", TemplateBody=TEMPLATE
        )
        outputs = stack_outputs(load("local"), "webui")
    assert outputs["Url"] == "https://x"
    with pytest.raises(DeploymentError, match="openqa-local-webui has no output ApiKeySecretArn"):
        outputs["ApiKeySecretArn"]


@contextmanager
def answering(
    status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, list[str]]]:
    """Plays a server with one answer: its address, and the methods with which it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.command)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


COMMANDS = (
    ["backups", "list"],
    ["backups", "verify"],
    ["backups", "now"],
    ["content"],
    ["disk-images", "build"],
    ["disk-images", "list"],
    ["reconcile"],
    ["restart", "webui"],
    ["restore", "--to=latest"],
    ["schedule", "iso", "DISTRI=a", "VERSION=1", "FLAVOR=b", "ARCH=c"],
    ["secrets", "renew", "api-key"],
    ["smoke"],
    ["status"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("deployed", [True, False])
def test_credentials_of_another_account_do_nothing_there(
    *, deployed: bool, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    account = load("fedora").account
    with mock_aws():
        cloudformation = boto3.client("cloudformation", region_name="us-east-1")
        for part in ("storage", "database", "webui", "builders") if deployed else ():
            cloudformation.create_stack(StackName=f"openqa-fedora-{part}", TemplateBody=TEMPLATE)
        assert main(["--env=fedora", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    if deployed:
        assert f"belong to account 123456789012, but fedora is in account {account}: nothing was done" in said
    else:
        assert said.startswith("cannot read the stack openqa-fedora-")
        assert f"in account {account}, us-east-1: " in said
        assert said.endswith("deploy it first, or check that the shell's credentials belong to that account")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html><body>Sign in first</body></html>",
        b"no page at all",
        b'<DescribeStacksResponse xmlns="x"><DescribeStacksResult/></DescribeStacksResponse>',
    ],
)
def test_what_is_no_answer_of_awss_is_told(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")

    with answering(200, answer) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert main(["--env=local", "smoke"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "cannot read the stack openqa-local-webui in account 123456789012, us-east-1: "
        "the answer is not from AWS, but from a proxy, say"
    )


CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("autoscaling", "set_desired_capacity", {"AutoScalingGroupName": "group", "DesiredCapacity": 1}),
    ("s3", "get_object", {"Bucket": "bucket", "Key": "key"}),
    ("s3", "list_objects_v2", {"Bucket": "bucket"}),
    ("secretsmanager", "get_secret_value", {"SecretId": "secret"}),
    ("ssm", "send_command", {"DocumentName": "document", "InstanceIds": ["i-1"]}),
)
PAGE = b"<!DOCTYPE html>\n<html><meta charset=utf-8><br></html>"
CUT = {"x-amzn-requestid": "1", "content-length": "100"}


@pytest.mark.parametrize(("service", "method", "arguments"), CALLS, ids=[call[1] for call in CALLS])
@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (200, PAGE, {}, "the answer is not from AWS, but from a proxy, say|Internal Server Error"),
        (200, b"<html></html>", {}, "the answer is not from AWS, but from a proxy, say"),
        (200, b"[1]", {}, "the answer is not from AWS, but from a proxy, say|Internal Server Error"),
        (403, PAGE, {}, "the answer is not from AWS, but from a proxy, say"),
        (502, PAGE, {}, r"\(502\).*Bad Gateway"),
        (502, b"no upstream", {}, r"\(502\).*Bad Gateway"),
        (200, b"<a>", CUT, "the answer was cut off|Connection broken"),
    ],
)
def test_calls_fail_in_botocores_way_whatever_answers(
    status: int,
    body: bytes,
    headers: dict[str, str],
    said: str,
    service: str,
    method: str,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_MAX_ATTEMPTS"):
        monkeypatch.setenv(name, "1")
    with answering(status, body, headers) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises((BotoCoreError, ClientError), match=said):
            answer = getattr(deployment.client(load("local"), service), method)(**arguments)
            answer["Body"].read()


def test_an_answer_with_its_id_in_the_text_is_awss(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with answering(200, b"<R><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></R>") as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        _, method, arguments = CALLS[0]
        getattr(deployment.client(load("local"), "autoscaling"), method)(**arguments)


def test_an_api_key_of_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    environment = load("local")
    with mock_aws():
        manager = boto3.client("secretsmanager", region_name=environment.region)
        arn = manager.create_secret(Name="bytes", SecretBinary=b"a key")["ARN"]
        monkeypatch.setattr(deployment, "stack_outputs", lambda *_: {"ApiKeySecretArn": arn, "Url": ""})
        with pytest.raises(DeploymentError, match="the API key of local is not text: its secret holds bytes"):
            deployment.connect(environment)


@pytest.mark.parametrize("words", [["backups", "list"], ["disk-images", "list"], ["restore", "--to=latest"]])
def test_an_endpoint_that_is_no_address_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "foo")
    assert main(["--env=local", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "cannot use AWS's cloudformation with the shell's settings: Invalid endpoint: foo"


@pytest.mark.parametrize(("method", "times"), [("GET", 4), ("POST", 1)])
def test_only_questions_are_repeated(
    method: Literal["GET", "POST"], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openqa_client.client.time.sleep", lambda seconds: None)
    # A proxy that gave up on openQA.
    with answering(504, b"") as (url, asked), pytest.raises(DeploymentError, match="504") as raised:
        OpenQa(url=url, key="k", secret="s").request(method, "isos")
    assert ("check whether it was done" in str(raised.value)) == (method == "POST")
    assert asked == [method] * times


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b"<html>\n<head><title>503 Service Temporarily Unavailable</title></head>\n</html>",
            "it answered 503;",
        ),
        (b"", "it answered 503;"),
        (b'{"error":\n"no such group"}', 'it answered 503: {"error": "no such group"};'),
        (b"x" * 5000, f"it answered 503: {'x' * 500};"),
    ],
)
def test_a_page_of_html_is_no_reason(body: bytes, said: str) -> None:
    with answering(503, body) as (url, _), pytest.raises(DeploymentError) as raised:
        OpenQa(url=url, key="k", secret="s").request("POST", "jobs")
    assert f"POST jobs failed: {said} before you try again" in str(raised.value)


def test_who_is_not_let_in_is_told_so_before_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A security group answers nothing; nor does a listener whose queue is full."""
    monkeypatch.setattr(deployment, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        openqa = OpenQa(url=f"http://127.0.0.1:{address[1]}", key="k", secret="s")
        with socket.create_connection(address), pytest.raises(DeploymentError) as raised:
            openqa.request("POST", "jobs")
    assert str(raised.value).endswith(
        "POST jobs failed: no connection within 0.1 s; only the ranges in trusted are let in"
    )


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["smoke"], b'{"status": "queued"}'),
        (["smoke"], b'{"id": "5f0c"}'),
        (["smoke"], b'{"id": 7}'),
        (["smoke"], b"[7]"),
        (["schedule", "iso", "DISTRI=a", "VERSION=1", "FLAVOR=b", "ARCH=c"], b"[7]"),
        (["schedule", "iso", "DISTRI=a", "VERSION=1", "FLAVOR=b", "ARCH=c"], b'{"ids": [7]}'),
    ],
)
def test_another_service_at_the_address_is_told(
    words: list[str], body: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(200, body) as (url, _):
        for command in (smoke, schedule):
            monkeypatch.setattr(command, "connect", lambda *_, **__: OpenQa(url=url, key="k", secret="s"))
        assert main(["--env=local", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{url} does not answer as openQA does (")
