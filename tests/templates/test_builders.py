"""Builders of disk images: their groups, what they may do, and what the web UI's host is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import settings
from settings import Builder
from tests.templates.synthesis import Json, Synthesized, document, synthesize
from userdata.host.disk_images import build
from userdata.host.document import parse

ARCHITECTURES = ["x86_64", "aarch64"]


@pytest.fixture
def fedora(synthesized: Callable[[str], Synthesized]) -> Synthesized:
    """The environment with builders."""
    return synthesized("fedora")


def launch(made: Synthesized, architecture: str) -> Json:
    (found,) = [
        properties["LaunchTemplateData"]
        for properties in made.properties("AWS::EC2::LaunchTemplate", "builders")
        if document(properties["LaunchTemplateData"])["builder"]["architecture"] == architecture
    ]
    data: Json = found
    return data


def statements(made: Synthesized, part: str) -> list[Json]:
    return [
        statement
        for role in made.properties("AWS::IAM::Role", part)
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def test_no_builder_no_stack(local: Synthesized) -> None:
    assert "builders" not in local.templates
    assert "DiskImagesBucket" not in local.templates["storage"]["Outputs"]


def test_a_group_is_empty_until_its_time(fedora: Synthesized) -> None:
    groups = fedora.properties("AWS::AutoScaling::AutoScalingGroup", "builders")
    assert [group["AutoScalingGroupName"] for group in groups] == [
        f"openqa-fedora-builder-{architecture}" for architecture in ARCHITECTURES
    ]
    for group in groups:
        assert (group["MinSize"], group["MaxSize"]) == ("0", "1")
        assert "NewInstancesProtectedFromScaleIn" not in group
        assert (
            group["MixedInstancesPolicy"]["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"]
            == 100
        )
    actions = fedora.properties("AWS::AutoScaling::ScheduledAction")
    assert [(action["DesiredCapacity"], action["Recurrence"], action["TimeZone"]) for action in actions] == [
        (1, "30 3 * * *", "Etc/UTC")
    ] * 2
    assert not any({"MinSize", "MaxSize"} & set(action) for action in actions)


def test_metal_gets_the_time_that_it_takes(fedora: Synthesized) -> None:
    ready = {
        group["AutoScalingGroupName"].rpartition("-")[2]: hook["HeartbeatTimeout"]
        for group in fedora.properties("AWS::AutoScaling::AutoScalingGroup", "builders")
        for hook in group["LifecycleHookSpecificationList"]
        if hook["LifecycleHookName"] == "ready"
    }
    assert ready["aarch64"] >= ready["x86_64"] + 1200


def test_a_host_is_told_what_to_build(fedora: Synthesized) -> None:
    for architecture in ARCHITECTURES:
        data = launch(fedora, architecture)
        told = document(data)
        parsed = parse(told).builder
        assert parsed is not None
        assert (parsed.program, parsed.kvm, parsed.prefix) == ("createhdds", True, f"{architecture}/")
        assert parsed.git == "https://forge.fedoraproject.org/quality/createhdds"
        assert (told["images"], told["secrets"]) == ({}, {})
    assert launch(fedora, "x86_64")["CpuOptions"] == {"NestedVirtualization": "enabled"}
    assert "CpuOptions" not in launch(fedora, "aarch64")


def test_createhdds_runs_on_fedora_where_all_else_is_debian(almalinux: Synthesized) -> None:
    systems = {
        part: {
            (document(launch["LaunchTemplateData"])["os"], _root_device(launch["LaunchTemplateData"]))
            for launch in almalinux.properties("AWS::EC2::LaunchTemplate", part)
        }
        for part in ("webui", "workers", "builders")
    }
    debian, fedora = ("debian", "/dev/xvda"), ("fedora", "/dev/sda1")
    assert systems == {"webui": {debian}, "workers": {debian}, "builders": {fedora}}
    assert launch(almalinux, "x86_64")["ImageId"] == "ami-00000000000000000"


def _root_device(data: Json) -> str:
    (volume,) = data["BlockDeviceMappings"]
    return str(volume["DeviceName"])


def test_a_builder_writes_below_its_prefix_and_deletes_nothing(fedora: Synthesized) -> None:
    found = statements(fedora, "builders")
    actions = {action for statement in found for action in statement["Action"]}
    assert not [action for action in actions if "Delete" in action]
    puts = [statement["Resource"] for statement in found if "s3:PutObject" in statement["Action"]]
    assert [resource[0]["Fn::Join"][1][-1] for resource in puts] == [f"/{name}/*" for name in ARCHITECTURES]
    sizes = [s["Resource"] for s in found if "autoscaling:SetDesiredCapacity" in s["Action"]]
    assert [resource[0].rpartition("/")[2] for resource in sizes] == [
        f"openqa-fedora-builder-{architecture}" for architecture in ARCHITECTURES
    ]


def test_the_webui_reads_images_and_nothing_more(fedora: Synthesized) -> None:
    (data,) = [
        properties["LaunchTemplateData"]
        for properties in fedora.properties("AWS::EC2::LaunchTemplate", "webui")
    ]
    told = parse(document(data)).disk_images
    assert told is not None
    assert told.architectures == tuple(ARCHITECTURES)
    of_images = [
        statement
        for statement in statements(fedora, "webui")
        if "DiskImages" in str(statement["Resource"]) and "s3:ListBucket" not in statement["Action"]
    ]
    assert [statement["Action"] for statement in of_images] == [["s3:GetObject"]]


def test_nobody_reaches_a_builder(fedora: Synthesized) -> None:
    (group,) = [
        properties
        for properties in fedora.properties("AWS::EC2::SecurityGroup")
        if "Builders" in properties["GroupDescription"]
    ]
    assert group["SecurityGroupIngress"] == []


def test_images_outlive_the_pause_between_copies(fedora: Synthesized) -> None:
    (bucket,) = [
        resource["Properties"]
        for name, resource in fedora.resources("AWS::S3::Bucket").items()
        if "DiskImages" in name
    ]
    rules = bucket["LifecycleConfiguration"]["Rules"]
    (days,) = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    assert days == 3 * build.RENEW.days


def test_alarms(fedora: Synthesized) -> None:
    found = {
        (alarm["MetricName"], alarm["Dimensions"][0]["Value"]): (
            alarm["Threshold"],
            alarm["TreatMissingData"],
            alarm["Period"],
        )
        for alarm in fedora.properties("AWS::CloudWatch::Alarm", "builders")
    }
    assert found == {
        (metric, architecture): expected
        for architecture in ARCHITECTURES
        for metric, expected in (
            ("ImagesFailed", (0, "ignore", 3600)),
            # Silence rings soon.
            ("ImagesAgeSeconds", (8 * 86400, "breaching", 900)),
        )
    }


def test_one_type_by_hand(tmp_path: Path) -> None:
    builder = Builder(
        architecture="x86_64", instance_types=("t3.medium",), virtualization="none", program="sample"
    )
    environment = settings.load("local").model_copy(update={"builders": (builder,)})
    made = synthesize(environment, tmp_path, check=False)
    (group,) = made.properties("AWS::AutoScaling::AutoScalingGroup", "builders")
    assert "LaunchTemplate" in group
    assert not made.resources("AWS::AutoScaling::ScheduledAction")
    assert document(launch(made, "x86_64"))["builder"]["kvm"] is False
