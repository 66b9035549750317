"""How a deployment is, as ``status`` tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

import settings
from fleet.groups import AwsError, Group
from ops import __main__ as main
from ops import deployment, status
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
        asked = arguments["params"]
        return {"jobs": [{}] * min(self.jobs[asked["state"]], asked["limit"])}


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
    for name, state in (
        ("openqa-dev-Quiet", "OK"),
        ("openqa-dev-New", "INSUFFICIENT_DATA"),
        ("openqa-developers-Other", "ALARM"),
    ):
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


def test_one_host_in_service_is_enough(deployed: Deployed) -> None:
    deployed.groups["openqa-dev-webui"] = group(member("i-2"), member("i-3", "Terminating:Wait"))
    assert run() == 0


def test_a_fleet_may_have_no_host(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.groups["openqa-dev-fleet-nested"] = group(desired=0)
    assert run() == 0
    assert "fleet nested: 0 hosts, 0 wanted" in capsys.readouterr().out.splitlines()


def test_times_are_in_utc_wherever_the_operator_is(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ring("openqa-dev-ContentFailed", "ALARM")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "UTC+9")
        time.tzset()
        run()
    time.tzset()
    (said,) = re.findall(r"ContentFailed  since ([0-9: -]+) UTC", capsys.readouterr().out)
    since = datetime.strptime(said, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - since) < timedelta(hours=1)


def test_alarms_that_cannot_be_read_are_told(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stubber(boto3.client("cloudwatch", region_name="us-east-1")) as stubbed:
        stubbed.add_client_error("describe_alarms", "AccessDenied", "not authorized")
        genuine = deployment.client

        def client(environment: settings.Environment, service: str) -> Any:
            return stubbed.client if service == "cloudwatch" else genuine(environment, service)

        monkeypatch.setattr(status, "client", client)
        assert run() == 1
    said = capsys.readouterr().err
    assert said.startswith("cannot read the alarms")
    assert said.count("\n") == 1


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


def test_a_group_that_a_fleet_left_behind_is_told(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    scaling = boto3.client("autoscaling", region_name="us-east-1")
    scaling.create_launch_configuration(
        LaunchConfigurationName="any", ImageId="ami-12345678", InstanceType="c8i.xlarge"
    )
    for environment in ("dev", "developers"):
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=f"openqa-{environment}-fleet-gone",
            LaunchConfigurationName="any",
            MinSize=0,
            MaxSize=1,
            AvailabilityZones=["us-east-1a"],
            Tags=[{"Key": "openqa:environment", "Value": environment, "PropagateAtLaunch": True}],
        )
    deployed.groups["openqa-dev-fleet-gone"] = group(member("i-5"))
    assert run() == 1
    said = capsys.readouterr().out.splitlines()
    place = said.index("openqa-dev-fleet-gone: 1 host, 1 wanted")
    assert said[place + 1].startswith("  i-5  ")
    assert said[-1] == "Not well: nothing in the environment file has the group openqa-dev-fleet-gone."


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
