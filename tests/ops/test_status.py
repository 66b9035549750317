"""How a deployment is, as ``status`` tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from moto import mock_aws

import settings
from fleet.groups import AwsError, Group
from ops import __main__ as main
from ops import status
from ops.deployment import DeploymentError
from tests.fleet.moments import NOW, OLD, group, member

URL = "https://openqa.example.org"


class Deployed:
    """What there is of environment ``dev``: Auto Scaling groups, openQA, CloudWatch's alarms (of moto)."""

    url = URL

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {
            "openqa-dev-database": group(member("i-1")),
            "openqa-dev-webui": group(member("i-2")),
        }
        self.workers = ["idle", "running", "dead"]
        self.jobs = {"scheduled": 3, "running": 1}
        self.fails: Exception | None = None

    def read(self, names: Sequence[str]) -> tuple[float, Mapping[str, Group]]:
        return NOW, {name: found for name, found in self.groups.items() if name in names}

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        if self.fails:
            raise self.fails
        if path == "workers":
            return {"workers": [{"status": state} for state in self.workers]}
        return {"jobs": [{}] * self.jobs[arguments["params"]["state"]]}


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    made = Deployed()
    monkeypatch.setattr(status, "stack_outputs", lambda *_: {})
    monkeypatch.setattr(status, "Groups", lambda _: made)
    monkeypatch.setattr(status, "connect", lambda *_, **__: made)
    with mock_aws():
        yield made


def run() -> int:
    return main.main(["--env=dev", "status"])


def ring(name: str, state: str) -> None:
    cloudwatch = boto3.client("cloudwatch", region_name="us-east-1")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription="what it means",
        MetricName="any",
        Namespace="any",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Statistic="Sum",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")


def test_a_deployment_that_is_well(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.groups["openqa-dev-fleet-nested"] = group(
        member("i-3", "Pending:Wait", launched=None, version=OLD), member("i-4", healthy=False), desired=1
    )
    for name, state in (("openqa-dev-Quiet", "OK"), ("openqa-developers-Other", "ALARM")):
        ring(name, state)
    assert run() == 0
    assert capsys.readouterr().out.splitlines() == [
        "database: 1 host, 1 wanted",
        "  i-1  c8i.xlarge  InService  since 2027-01-15 07:43 UTC",
        "webui: 1 host, 1 wanted",
        "  i-2  c8i.xlarge  InService  since 2027-01-15 07:43 UTC",
        "fleet nested: 2 hosts, 1 wanted",
        "  i-3  c8i.xlarge  Pending:Wait  of an older launch template",
        "  i-4  c8i.xlarge  InService  since 2027-01-15 07:43 UTC  unhealthy",
        f"openQA at {URL}: 3 jobs scheduled, 1 job running",
        "  2 workers online, 1 busy",
        "alarms: none ringing",
        "All is well.",
    ]


def test_all_that_is_wrong_is_told(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    del deployed.groups["openqa-dev-database"]
    deployed.groups["openqa-dev-webui"] = group(member("i-2", "Pending:Wait"))
    deployed.fails = DeploymentError("openQA does not answer")
    ring("openqa-dev-ContentFailed", "ALARM")
    assert run() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "database: not deployed"
    assert "openQA: no answer" in said
    (rings,) = (line for line in said if line.startswith("  openqa-dev-ContentFailed  since"))
    assert rings.endswith("what it means")
    assert said[-1] == (
        "Not well: no database host is in service; no webui host is in service; openQA does not answer; "
        "openqa-dev-ContentFailed rings."
    )


def test_another_service_at_the_address_is_no_openqa(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployed, "request", lambda *_, **__: {"name": "another"})
    assert run() == 1
    assert f"{URL} does not answer as openQA does" in capsys.readouterr().out


def test_many_jobs_are_not_all_listed(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.jobs["scheduled"] = 500
    assert run() == 0
    assert "500 jobs or more scheduled" in capsys.readouterr().out


def test_rds_has_no_host_and_builders_have(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings.load("almalinux")
    database = Mock(host=None)
    monkeypatch.setattr(settings, "load", lambda *_: asked.model_copy(update={"database": database}))
    deployed.groups = {"openqa-almalinux-webui": group(member("i-2"))}
    assert main.main(["--env=almalinux", "status"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("webui: ")
    assert "\nbuilder x86_64: not deployed\n" in said


def test_a_stack_that_is_not_deployed_is_told(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "stack_outputs", Mock(side_effect=DeploymentError("not deployed")))
    assert run() == 1
    assert capsys.readouterr() == ("", "not deployed\n")


def test_groups_that_cannot_be_read_are_told(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(names: Sequence[str]) -> None:
        raise AwsError("describe_auto_scaling_groups: denied")

    monkeypatch.setattr(deployed, "read", refuse)
    assert run() == 1
    assert capsys.readouterr().err.splitlines() == ["describe_auto_scaling_groups: denied"]
