"""Secrets that are entered or made anew, and which hosts start anew with them."""

from __future__ import annotations

import io
import json
import sys
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

import settings
from ops import __main__ as main
from ops import secrets
from ops.deployment import DeploymentError
from settings import Environment
from settings.messages import Schedule
from userdata.host import secrets as on_hosts

CLIENT = json.dumps({"key": "client", "secret": "as % it # comes"})


class Aws:
    """Secrets Manager that takes notes, Auto Scaling with some hosts, and hosts that do as they are told."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.restarted: list[str] = []
        self.hosts: list[str] = []
        self.refuses = ""

    def put_secret_value(self, *, SecretId: str, SecretString: str) -> None:  # noqa: N803
        if self.refuses:
            raise ClientError({"Error": {"Code": self.refuses, "Message": "no"}}, "PutSecretValue")
        self.values[SecretId] = SecretString

    def describe_auto_scaling_groups(self, *, AutoScalingGroupNames: list[str]) -> Any:  # noqa: N803
        if self.refuses:
            raise ClientError({"Error": {"Code": self.refuses, "Message": "no"}}, "DescribeAutoScalingGroups")
        assert AutoScalingGroupNames, "AWS would list all groups of the account"
        assert all(name.startswith("openqa-") and "-fleet-" in name for name in AutoScalingGroupNames)
        return {"AutoScalingGroups": [{"Instances": [{"InstanceId": id} for id in self.hosts]}]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    made = Aws()

    class Host:
        def __init__(self, _: Environment, part: str) -> None:
            self.part = part

        def run(self, command: str) -> None:
            assert command == "restart"
            made.restarted.append(self.part)

    monkeypatch.setattr(secrets, "stack_outputs", lambda *_: {})
    monkeypatch.setattr(secrets, "client", lambda *_: made)
    monkeypatch.setattr(secrets, "StatefulHost", Host)
    return made


def run(monkeypatch: pytest.MonkeyPatch, *words: str, text: str = "", environment: str = "dev") -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main.main([f"--env={environment}", "secrets", *words])


def test_what_is_entered_is_in_use_afterwards(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "enter", "sign-in", text=f"{CLIENT}\n") == 0
    assert aws.values == {"openqa/dev/sign-in": CLIENT}
    assert aws.restarted == ["webui"]


@pytest.mark.parametrize(
    "value", [{"ca": "", "password": "openSUSE's"}, {"ca": "PEM", "certificate": "PEM", "key": "PEM"}]
)
def test_a_broker_knows_its_client_by_either(
    aws: Aws, value: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings.load("dev")
    schedule = Schedule.model_construct(broker="")
    monkeypatch.setattr(settings, "load", lambda *_: asked.model_copy(update={"schedule": schedule}))
    assert run(monkeypatch, "enter", "broker", text=json.dumps(value)) == 0
    assert json.loads(aws.values["openqa/dev/broker"]) == value
    for wrong in (
        *("", "[]", '{"password": 1}', '{"ca": "PEM"}', '{"certificate": "PEM"}', '{"key": "PEM"}'),
        '{"password": "", "cert": "PEM"}',
    ):
        assert run(monkeypatch, "enter", "broker", text=wrong) == 1
    assert aws.restarted == ["webui"]


@pytest.mark.parametrize(
    ("environment", "name", "text", "reason"),
    [
        ("dev", "sign-in", "", 'standard input, for the secret sign_in: not a JSON object with "key" and'),
        ("dev", "sign-in", '{"key": "a\\nb", "secret": "c"}', "must be one line of text each"),
        (
            "local",
            "sign-in",
            CLIENT,
            'local has no secret sign-in, which exists only with sign_in.method = "OAuth2"',
        ),
        (
            "fedora",
            "broker",
            "{}",
            'fedora has no secret broker, which exists only with [schedule] and program = "rules"',
        ),
    ],
)
def test_what_no_host_could_use_is_not_entered(
    aws: Aws,
    environment: str,
    name: str,
    text: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "enter", name, text=text, environment=environment) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert reason in said
    assert (aws.values, aws.restarted) == ({}, [])


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_secret_is_text(
    aws: Aws, errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = io.TextIOWrapper(io.BytesIO(b'{"key": "a", "secret": "\xff"}'), encoding="utf-8", errors=errors)
    monkeypatch.setattr(sys, "stdin", given)
    assert main.main(["--env=dev", "secrets", "enter", "sign-in"]) == 1
    assert capsys.readouterr().err == "standard input is not text in UTF-8\n"
    assert aws.values == {}


@pytest.mark.parametrize(
    ("name", "restarted"),
    [("database", ["database", "webui"]), ("api-key", ["webui"]), ("worker-key", ["webui"])],
)
def test_generated_ones_are_made_anew_as_hosts_accept_them(
    aws: Aws,
    name: str,
    restarted: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = set()
    for _ in range(2):
        aws.restarted.clear()
        assert run(monkeypatch, "renew", name) == 0
        (value,) = aws.values.values()
        on_hosts.password(value) if name == "database" else on_hosts.api_key(name, value)
        values.add(value)
        assert aws.restarted == restarted
    assert len(values) == 2
    said = capsys.readouterr()
    assert said.out.startswith(f"openqa/dev/{name} has its new value; ")
    assert not [value for value in values if value in said.out + said.err]


def test_a_key_of_workers_is_not_taken_from_hosts_that_have_it(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.hosts = ["i-1", "i-2"]
    assert run(monkeypatch, "renew", "worker-key") == 1
    assert "would refuse i-1, i-2, which have the old worker-key" in capsys.readouterr().err
    assert (aws.values, aws.restarted) == ({}, [])
    assert run(monkeypatch, "renew", "api-key") == 0


def test_rds_is_told_another_password_by_hand(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings.load("dev")
    database = asked.database.model_copy(update={"engine": "rds"})
    monkeypatch.setattr(settings, "load", lambda *_: asked.model_copy(update={"database": database}))
    assert run(monkeypatch, "renew", "database") == 1
    assert "by hand: docs/backups.md" in capsys.readouterr().err
    assert (aws.values, aws.restarted) == ({}, [])
    assert run(monkeypatch, "renew", "api-key") == 0


def test_no_secret_of_another_account_is_written(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(secrets, "stack_outputs", Mock(side_effect=DeploymentError("another account")))
    assert run(monkeypatch, "renew", "api-key") == 1
    assert capsys.readouterr().err == "another account\n"
    assert (aws.values, aws.restarted) == ({}, [])


def test_nothing_starts_anew_where_aws_refuses(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.refuses = "AccessDeniedException"
    assert run(monkeypatch, "renew", "api-key") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("cannot write the secret openqa/dev/api-key: ")
    assert aws.restarted == []


def test_a_key_of_workers_stays_where_their_hosts_are_not_known(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.refuses = "AccessDenied"
    assert run(monkeypatch, "renew", "worker-key") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("cannot read the groups openqa-dev-fleet-nested: ")
    assert (aws.values, aws.restarted) == ({}, [])
