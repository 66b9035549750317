"""Ending a disposable environment's hosts and emptying its buckets, against moto's AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from ops import remove
from ops.__main__ import main
from tests.unit.test_settings import write

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
CONSENT = "--yes-delete-results-and-backups"
ZONE = {"Type": "AWS::Route53::HostedZone", "Properties": {"Name": "example.org."}}
VALIDATION = {"Name": "_1.openqa.example.org.", "Type": "CNAME", "TTL": 300}
VALIDATION |= {"ResourceRecords": [{"Value": "_2.x.acm-validations.aws."}]}
WEBSITE = {"Name": "www.example.org.", "Type": "CNAME", "TTL": 300}
WEBSITE |= {"ResourceRecords": [{"Value": "example.org."}]}


def aws(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with nothing in it; its bucket's pages hold two entries."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    monkeypatch.setattr(remove, "POLL_SECONDS", 0)
    with mock_aws():
        yield


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the file of the environment ``here`` is, of kind dev and moto's account."""
    return write(tmp_path, ("111122223333", ACCOUNT))


def run(directory: Path, *words: str) -> int:
    return main([f"--environments={directory}", "--env=here", "remove", *words])


def stack(part: str, **resources: Any) -> None:
    aws("cloudformation").create_stack(
        StackName=f"openqa-here-{part}", TemplateBody=json.dumps({"Resources": resources})
    )


def bucket(name: str) -> Any:
    return {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}


def buckets() -> list[str]:
    """The storage stack's two buckets: with old versions and delete markers, and without versions."""
    stack("storage", Backups=bucket("backups"), Logs=bucket("access-logs"))
    s3 = aws("s3")
    s3.put_bucket_versioning(Bucket="backups", VersioningConfiguration={"Status": "Enabled"})
    for key in ("a", "b", "with space/and+plus"):
        for body in (b"old", b"new"):
            s3.put_object(Bucket="backups", Key=key, Body=body)
        s3.put_object(Bucket="access-logs", Key=key, Body=b"log")
    s3.delete_object(Bucket="backups", Key="a")
    return ["backups", "access-logs"]


def left(bucket: str) -> list[str]:
    """The keys of all versions and delete markers."""
    pages = aws("s3").get_paginator("list_object_versions").paginate(Bucket=bucket)
    kinds = ("Versions", "DeleteMarkers")
    return [entry["Key"] for page in pages for kind in kinds for entry in page.get(kind, [])]


def group(name: str, environment: str) -> None:
    """An Auto Scaling group with a host, as the stacks tag them."""
    ec2 = aws("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    data = {"ImageId": image, "InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    aws("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": name},
        MinSize=1,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
        Tags=[{"Key": "openqa:environment", "Value": environment, "PropagateAtLaunch": True}],
    )


def groups() -> list[str]:
    found = aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return [group["AutoScalingGroupName"] for group in found]


def instance(environment: str) -> str:
    """A host without a group."""
    ec2 = aws("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    tags = [{"Key": "openqa:environment", "Value": environment}]
    made = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    return str(made["Instances"][0]["InstanceId"])


def hosts(environment: str) -> list[str]:
    """The states of an environment's hosts."""
    asked = [{"Name": "tag:openqa:environment", "Values": [environment]}]
    found = aws("ec2").describe_instances(Filters=asked)["Reservations"]
    return [instance["State"]["Name"] for entry in found for instance in entry["Instances"]]


def snapshot(group: str) -> str:
    ec2 = aws("ec2")
    volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    tags = [{"Key": "openqa:snapshots", "Value": group}]
    made = ec2.create_snapshot(
        VolumeId=volume, TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}]
    )
    return str(made["SnapshotId"])


def snapshots() -> list[str]:
    found = aws("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    return [entry["SnapshotId"] for entry in found if entry.get("Tags")]


def zone() -> str:
    """The zone of the stack ``dns``, with the record of a certificate and another."""
    stack("dns", Zone=ZONE)
    route53 = aws("route53")
    made = str(route53.list_hosted_zones()["HostedZones"][0]["Id"]).rpartition("/")[2]
    changes = [{"Action": "CREATE", "ResourceRecordSet": record} for record in (VALIDATION, WEBSITE)]
    route53.change_resource_record_sets(HostedZoneId=made, ChangeBatch={"Changes": changes})
    return made


def records(zone: str) -> list[str]:
    found = aws("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return [record["Name"] for record in found if record["Type"] == "CNAME"]


@pytest.mark.usefixtures("account")
def test_no_host_is_left_and_none_of_another_environment_is_touched(directory: Path) -> None:
    """Not by name: a fleet may have left the file, and other environments' names may begin alike."""
    group("openqa-here-fleet-renamed", "here")
    group("openqa-here-too-webui", "here-too")
    assert run(directory, CONSENT) == 0
    assert groups() == ["openqa-here-too-webui"]
    assert hosts("here") == ["terminated"]
    assert hosts("here-too") == ["running"]


@pytest.mark.usefixtures("account")
def test_a_host_that_was_detached_from_its_group_goes_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance("here")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("nobody ends it"))
    assert run(directory, CONSENT) == 0
    assert hosts("here") == ["terminated"]


@pytest.mark.usefixtures("account")
def test_buckets_are_empty_after_the_last_host_is_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = buckets()
    first, second = instance("here"), instance("here")
    waited = iter([*[[first, second]] * 4, [second]])

    def found(_: object) -> list[str]:
        hosts = next(waited, [])
        assert not hosts or all(map(left, names))
        return hosts

    monkeypatch.setattr(remove, "_hosts", found)
    assert run(directory, CONSENT) == 0
    assert [left(name) for name in names] == [[], []]
    said = capsys.readouterr().out.splitlines()
    gone = said.index("all hosts are gone")
    assert [line.rpartition(": ")[2] for line in said[gone - 2 : gone]] == [f"{first}, {second}", second]
    assert said.count("backups is empty") == said.count("access-logs is empty") == 1


@pytest.mark.usefixtures("account")
def test_nobody_can_add_to_an_empty_bucket(directory: Path) -> None:
    buckets()
    delivery = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::access-logs/*"}
    policy = {"Version": "2012-10-17", "Statement": [{**delivery, "Principal": "*"}]}
    aws("s3").put_bucket_policy(Bucket="access-logs", Policy=json.dumps(policy))
    assert run(directory, CONSENT) == 0
    (closed,) = json.loads(aws("s3").get_bucket_policy(Bucket="access-logs")["Policy"])["Statement"]
    assert closed == {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::access-logs/*",
    }


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(("mode", "code"), [("GOVERNANCE", 0), ("COMPLIANCE", 1)])
def test_what_nobody_may_delete_is_told(
    mode: str, code: int, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack("storage", Backups=bucket("backups"))
    s3 = aws("s3")
    s3.delete_bucket(Bucket="backups")
    s3.create_bucket(Bucket="backups", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="backups", Key="free", Body=b"")
    until = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": "2999-01-01T00:00:00Z"}
    s3.put_object(Bucket="backups", Key="locked", Body=b"", **until)
    assert run(directory, CONSENT) == code
    assert left("backups") == ["locked"] * code
    said = capsys.readouterr().err
    if code:
        assert said.startswith("backups cannot be emptied: locked, one of 1 that stay: AccessDenied: ")


@pytest.mark.usefixtures("account")
def test_what_would_outlive_the_stacks_goes_too(directory: Path) -> None:
    snapshot("openqa-here-webui")
    other = snapshot("openqa-here-too-webui")
    aws("ssm").put_parameter(Name="/openqa/here/database-ca", Value="PEM", Type="String")
    assert run(directory, CONSENT) == 0
    assert snapshots() == [other]
    with pytest.raises(ClientError, match="ParameterNotFound"):
        aws("ssm").get_parameter(Name="/openqa/here/database-ca")


@pytest.mark.usefixtures("account")
def test_a_zone_goes_only_after_its_delegation(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = zone()
    kept, _ = buckets()
    assert run(directory, CONSENT) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"remove the delegation of here's hosted zone {there} from its parent zone, ")
    assert said.endswith("; nothing was done\n")
    assert len(left(kept)) == 7
    assert len(records(there)) == 2
    assert run(directory, CONSENT, "--delegation-removed") == 0
    assert records(there) == [WEBSITE["Name"]]


@pytest.mark.usefixtures("account")
def test_a_policy_that_somebody_has_must_be_detached_first(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [allowed]}
    stack("webui", Operator={"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}})
    kept, _ = buckets()
    iam = aws("iam")
    (policy,) = iam.list_policies(Scope="Local")["Policies"]
    iam.create_group(GroupName="operators")
    iam.attach_group_policy(GroupName="operators", PolicyArn=policy["Arn"])
    assert run(directory, CONSENT) == 1
    assert capsys.readouterr().err == (
        f"detach the policy {policy['Arn']} from operators, or the stack openqa-here-webui cannot be "
        "deleted; nothing was done\n"
    )
    assert left(kept)
    iam.detach_group_policy(GroupName="operators", PolicyArn=policy["Arn"])
    assert run(directory, CONSENT) == 0


@pytest.mark.usefixtures("account")
def test_without_consent_it_only_shows(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group("openqa-here-webui", "here")
    names, kept = buckets(), snapshot("openqa-here-webui")
    assert run(directory) == 1
    said = capsys.readouterr()
    for line in (
        "groups: openqa-here-webui",
        "content of buckets: backups, access-logs",
        f"snapshots: {kept}",
    ):
        assert f"{line}\n" in said.out
    assert said.err == f"nothing was done: to delete all this for good, pass {CONSENT}\n"
    assert groups() == ["openqa-here-webui"]
    assert all(map(left, names))


@pytest.mark.usefixtures("account")
def test_again_there_is_nothing_to_do(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group("openqa-here-webui", "here")
    buckets()
    snapshot("openqa-here-webui")
    assert run(directory, CONSENT) == 0
    aws("cloudformation").delete_stack(StackName="openqa-here-storage")
    capsys.readouterr()
    assert run(directory, CONSENT) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in said[1:5]] == ["none"] * 4
    assert said[5] == "all hosts are gone"


@pytest.mark.usefixtures("account")
def test_an_environment_that_keeps_its_state_is_removed_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env=production", "remove", CONSENT]) == 1
    assert capsys.readouterr().err == (
        "production is of kind production, which is removed by hand: docs/operating.md, "
        '"Remove a deployment"; nothing was done\n'
    )


@pytest.mark.usefixtures("account")
def test_credentials_of_another_account_remove_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group("openqa-here-webui", "here")
    assert run(write(tmp_path), CONSENT) == 1
    assert capsys.readouterr().err == (
        f"the shell's credentials belong to account {ACCOUNT}, but here is in account 111122223333: "
        "nothing was done\n"
    )
    assert groups() == ["openqa-here-webui"]
