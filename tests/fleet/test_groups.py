"""The Auto Scaling groups: read, judged and changed by calls that AWS's own models check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from fleet.groups import AwsError, Group, Groups, Launches, Member, Version, judge

GROUP = "openqa-test-fleet-small"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Aws:
    """Auto Scaling and EC2 whose requests and answers must be as AWS's models say."""

    def __init__(self) -> None:
        self.clients = {
            name: boto3.client(
                name, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
            )
            for name in ("autoscaling", "ec2")
        }
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()
        self.groups = Groups(self.clients.__getitem__, clock=lambda: 1000.0)


@pytest.fixture
def aws() -> Iterator[Aws]:
    made = Aws()
    yield made
    for stub in made.stubs.values():
        stub.assert_no_pending_responses()


def instance(id: str, state: str = "InService", *, version: str = "1", **changes: Any) -> dict[str, Any]:
    return {
        "InstanceId": id,
        "AvailabilityZone": "us-east-1a",
        "LifecycleState": state,
        "HealthStatus": "Healthy",
        "ProtectedFromScaleIn": True,
        "InstanceType": "c8i.xlarge",
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": version},
        **changes,
    }


def described(*instances: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "AutoScalingGroupName": GROUP,
        "MinSize": 0,
        "MaxSize": 5,
        "DesiredCapacity": len(instances),
        "DefaultCooldown": 300,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": NOW,
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "2"},
        "SuspendedProcesses": [{"ProcessName": "AZRebalance", "SuspensionReason": "User suspended"}],
        "Instances": list(instances),
        "VPCZoneIdentifier": "subnet-1,subnet-2",
        **changes,
    }


def reservation(*ids: str) -> dict[str, Any]:
    return {"Instances": [{"InstanceId": id, "LaunchTime": NOW} for id in ids]}


def test_reads_groups_and_when_their_instances_were_launched(aws: Aws) -> None:
    asked = {"AutoScalingGroupNames": [GROUP]}
    aws.stubs["autoscaling"].add_response(
        "describe_auto_scaling_groups",
        {"AutoScalingGroups": [described(instance("i-1"), instance("i-2", "Pending:Wait", version="2"))]},
        asked,
    )
    filters = {"Filters": [{"Name": "instance-id", "Values": ["i-1", "i-2"]}]}
    aws.stubs["ec2"].add_response("describe_instances", {"Reservations": [reservation("i-1")]}, filters)
    at, groups = aws.groups.read([GROUP])
    assert at == 1000.0
    assert groups[GROUP] == Group(
        name=GROUP,
        min=0,
        max=5,
        desired=2,
        version=Version(template="lt-1", number="2"),
        members=(
            Member(
                id="i-1",
                state="InService",
                healthy=True,
                type="c8i.xlarge",
                version=Version(template="lt-1", number="1"),
                launched=NOW.timestamp(),
            ),
            Member(
                id="i-2",
                state="Pending:Wait",
                healthy=True,
                type="c8i.xlarge",
                version=Version(template="lt-1", number="2"),
            ),
        ),
        subnets=frozenset({"subnet-1", "subnet-2"}),
    )


def test_reads_page_after_page(aws: Aws) -> None:
    names = [f"group-{n}" for n in range(80)]
    stub = aws.stubs["autoscaling"]
    pages = ((names[:50], None, "more"), (names[:50], "more", None), (names[50:], None, None))
    for number, (asked, token, following) in enumerate(pages):
        group = described(AutoScalingGroupName=f"found-{number}")
        answer = {"AutoScalingGroups": [group]} | ({"NextToken": following} if following else {})
        stub.add_response(
            "describe_auto_scaling_groups",
            answer,
            {"AutoScalingGroupNames": asked} | ({"NextToken": token} if token else {}),
        )
    _, groups = aws.groups.read(names)
    assert sorted(groups) == ["found-0", "found-1", "found-2"]


def test_without_fleets_nothing_is_asked(aws: Aws) -> None:
    assert aws.groups.read([])[1] == {}


@pytest.mark.parametrize(
    ("suspended", "evens_out"), [([], True), (["Launch"], True), (["AZRebalance"], False)]
)
def test_a_group_that_evens_out_its_zones(aws: Aws, suspended: list[str], evens_out: bool) -> None:
    processes = [{"ProcessName": name, "SuspensionReason": "User suspended"} for name in suspended]
    answer = {"AutoScalingGroups": [described(SuspendedProcesses=processes)]}
    aws.stubs["autoscaling"].add_response("describe_auto_scaling_groups", answer)
    assert aws.groups.read([GROUP])[1][GROUP].evens_out is evens_out


def test_the_version_of_a_mixed_group(aws: Aws) -> None:
    specification = {"LaunchTemplateId": "lt-1", "Version": "7"}
    policy = {"LaunchTemplate": {"LaunchTemplateSpecification": specification}}
    mixed = {key: value for key, value in described().items() if key != "LaunchTemplate"}
    answer = {"AutoScalingGroups": [mixed | {"MixedInstancesPolicy": policy}]}
    aws.stubs["autoscaling"].add_response("describe_auto_scaling_groups", answer)
    assert aws.groups.read([GROUP])[1][GROUP].version == Version(template="lt-1", number="7")


def test_what_names_no_version_has_none_that_is_old(aws: Aws) -> None:
    latest = {"LaunchTemplateId": "lt-1", "Version": "$Latest"}
    attached = {key: value for key, value in instance("i-2").items() if key != "LaunchTemplate"}
    answer = {"AutoScalingGroups": [described(instance("i-1", version="$Latest"), attached)]}
    aws.stubs["autoscaling"].add_response("describe_auto_scaling_groups", answer)
    answer = {"AutoScalingGroups": [described(LaunchTemplate=latest)]}
    aws.stubs["autoscaling"].add_response("describe_auto_scaling_groups", answer)
    aws.stubs["ec2"].add_response("describe_instances", {"Reservations": []})
    found = aws.groups.read([GROUP])[1][GROUP]
    assert [(member.version, found.outdated(member)) for member in found.members] == [(None, False)] * 2
    assert aws.groups.read([GROUP])[1][GROUP].version is None


@pytest.mark.parametrize("service", ["autoscaling", "ec2"])
def test_an_aws_that_refuses_is_one_error(aws: Aws, service: str) -> None:
    if service == "ec2":
        aws.stubs["autoscaling"].add_response(
            "describe_auto_scaling_groups", {"AutoScalingGroups": [described(instance("i-1"))]}
        )
        aws.stubs["ec2"].add_client_error("describe_instances", "RequestLimitExceeded")
    else:
        aws.stubs["autoscaling"].add_client_error("describe_auto_scaling_groups", "Throttling")
    with pytest.raises(AwsError):
        aws.groups.read([GROUP])


def test_an_aws_that_cannot_be_reached_is_the_same_error() -> None:
    def refuse(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://autoscaling")

    groups = Groups(lambda service: SimpleNamespace(set_desired_capacity=refuse))
    with pytest.raises(AwsError, match="set the desired capacity of group: Could not connect"):
        groups.set_desired("group", 1)


def test_changes(aws: Aws) -> None:
    stub = aws.stubs["autoscaling"]
    stub.add_response(
        "terminate_instance_in_auto_scaling_group",
        {},
        {"InstanceId": "i-1", "ShouldDecrementDesiredCapacity": True},
    )
    stub.add_response(
        "set_desired_capacity",
        {},
        {"AutoScalingGroupName": GROUP, "DesiredCapacity": 3, "HonorCooldown": False},
    )
    aws.groups.terminate("i-1", decrement=True)
    aws.groups.set_desired(GROUP, 3)
    stub.add_response(
        "suspend_processes", {}, {"AutoScalingGroupName": GROUP, "ScalingProcesses": ["AZRebalance"]}
    )
    aws.groups.keep_uneven(GROUP)
    stub.add_response(
        "update_auto_scaling_group",
        {},
        {"AutoScalingGroupName": GROUP, "VPCZoneIdentifier": "subnet-1,subnet-2"},
    )
    aws.groups.use_subnets(GROUP, ["subnet-1", "subnet-2"])


def activity(
    status: str, minute: int, *, message: str = "none", id: str = "i-1", seconds: int = 100, **changes: Any
) -> dict[str, Any]:
    started = NOW + timedelta(minutes=minute)
    return {
        "ActivityId": str(minute),
        "AutoScalingGroupName": GROUP,
        "Description": f"Launching a new EC2 instance: {id}",
        "Cause": "a difference between desired and actual capacity",
        "StartTime": started,
        "EndTime": started + timedelta(seconds=seconds),
        "StatusCode": status,
        "StatusMessage": message,
        **changes,
    }


# As Auto Scaling words them.
ABANDONED = (
    "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token 1 was abandoned: "
    "Heartbeat Timeout"
)
SPOT = "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity."
TAKEN_BACK = (
    "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: "
    "Server.SpotInstanceTermination: Spot instance termination"
)
NO_METAL = "We currently do not have sufficient m5.metal capacity in the Availability Zone you requested"
QUOTA = (
    "You have requested more vCPU capacity than your current vCPU limit of 384 allows for the instance "
    "bucket that the specified instance type belongs to. Launching EC2 instance failed."
)
NO_ADDRESS = (
    "There are not enough free addresses in subnet 'subnet-0a1b' to satisfy the requested number of "
    "instances. Launching EC2 instance failed."
)
NOT_OFFERED = (
    "Your requested instance type (a1.metal) is not supported in your requested Availability Zone "
    "(us-east-1d). Please retry your request by not specifying an Availability Zone or choosing us-east-1a, "
    "us-east-1b. Launching EC2 instance failed."
)
NOT_OFFERED_OF_MIXED = f"Could not launch On-Demand Instances. Unsupported - {NOT_OFFERED}"
QUOTA_OF_MIXED = f"Could not launch On-Demand Instances. VcpuLimitExceeded - {QUOTA}"


def began(minute: int) -> float:
    return (NOW + timedelta(minutes=minute)).timestamp()


def minutes(*numbers: int, seconds: int = 100) -> list[float]:
    return [(NOW + timedelta(minutes=n, seconds=seconds)).timestamp() for n in numbers]


def test_a_zone_without_capacity_does_not_count_once_another_one_gives_a_host() -> None:
    failed = activity("Failed", 2, message=NO_METAL)
    given = activity("MidLifecycleAction", 3)
    del given["EndTime"]
    assert judge([given, failed]) == Launches()
    assert judge([activity("Failed", 4, message=NO_METAL), given, failed]).no_capacity_at == began(4)
    trying = given | {"Description": "Launching a new EC2 instance"}
    assert judge([trying, failed]).no_capacity_at == began(2), "it has no host yet"
    assert judge([given, trying, failed]) == Launches()


@pytest.mark.parametrize(
    ("state", "gone"), [("running", False), ("shutting-down", True), ("terminated", True)]
)
def test_an_instance_that_ec2_has_ended(aws: Aws, state: str, gone: bool) -> None:
    answer = {"AutoScalingGroups": [described(instance("i-1"))]}
    aws.stubs["autoscaling"].add_response("describe_auto_scaling_groups", answer)
    facts = {"InstanceId": "i-1", "LaunchTime": NOW, "State": {"Name": state}}
    aws.stubs["ec2"].add_response("describe_instances", {"Reservations": [{"Instances": [facts]}]})
    assert [member.gone for member in aws.groups.read([GROUP])[1][GROUP].members] == [gone]


def test_failures_count_since_the_last_host_that_came_up() -> None:
    found = judge(
        [
            activity("InProgress", 9),
            activity("Cancelled", 7, message=ABANDONED),
            activity("Failed", 6, message="Invalid IamInstanceProfile. Launching EC2 instance failed."),
            activity("Successful", 5, Description="Terminating EC2 instance: i-0"),
            activity("Cancelled", 4, message="Terminated by a user request."),
            activity("Cancelled", 3, message=ABANDONED),
            activity("Successful", 2),
            activity("Cancelled", 1, message=ABANDONED),
        ]
    )
    assert found == Launches(failures=3, last_failure=minutes(7)[0], boot_seconds=100.0)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Invalid IamInstanceProfile.", Launches(failures=1, last_failure=minutes(1)[0])),
        (NO_METAL, Launches(no_capacity_at=began(1))),
    ],
    ids=["failure", "no capacity"],
)
def test_a_launch_that_failed_before_there_was_a_host_counts(message: str, expected: Launches) -> None:
    description = f"Launching a new EC2 instance.  Status Reason: {message}"
    failed = activity("Failed", 1, message=message, Description=description)
    assert judge([failed], excused={"i-1"}) == expected


def test_a_launch_that_failed_without_a_word_is_a_failure() -> None:
    silent = activity("Failed", 1)
    del silent["StatusMessage"]
    assert judge([silent]).failures == 1


def test_a_launch_that_the_controller_called_off_is_no_failure() -> None:
    told = activity("Cancelled", 1, message=ABANDONED)
    assert judge([told], excused={"i-1"}) == Launches()
    # As it is shown once there is a reason.
    told["Description"] += f". Status Reason: {ABANDONED}"
    assert judge([told], excused={"i-1"}) == Launches()
    assert judge([told], excused={"i-12"}).failures == 1


def test_a_launch_that_goes_on_tells_nothing_yet() -> None:
    unfinished = activity("MidLifecycleAction", 1)
    del unfinished["EndTime"]
    assert judge([unfinished]) == Launches()


@pytest.mark.parametrize(
    "message",
    [SPOT, TAKEN_BACK, NO_METAL, QUOTA, QUOTA_OF_MIXED, NO_ADDRESS, NOT_OFFERED, NOT_OFFERED_OF_MIXED],
)
def test_no_capacity_is_no_failure_of_the_host(message: str) -> None:
    found = judge([activity("Failed", 3, message=message), activity("Failed", 2, message=message)])
    assert found == Launches(no_capacity_at=began(3))


def test_capacity_that_came_back() -> None:
    found = judge([activity("Successful", 3), activity("Failed", 2, message=NO_METAL)])
    assert found == Launches(boot_seconds=100.0)


def test_launches_tell_how_long_hosts_take() -> None:
    assert judge([activity("Successful", n, seconds=60 * n) for n in (5, 4, 3)]).boot_seconds == 240.0


def test_what_hosts_took_long_ago_tells_nothing() -> None:
    quick = [activity("Successful", 10, seconds=60) for _ in range(4)]
    slow = [activity("Successful", 5, seconds=90) for _ in range(9)]
    assert judge(quick + slow).boot_seconds == 75.0


def test_a_host_that_was_told_to_go_is_no_failed_launch(aws: Aws) -> None:
    stub = aws.stubs["autoscaling"]
    stub.add_response("terminate_instance_in_auto_scaling_group", {})
    stub.add_response(
        "describe_scaling_activities", {"Activities": [activity("Cancelled", 1, message=ABANDONED)]}
    )
    aws.groups.terminate("i-1", decrement=True)
    assert aws.groups.launches(GROUP) == Launches()


def test_a_host_that_is_told_to_go_again_and_again_pushes_no_other_out_of_memory() -> None:
    activities = {"Activities": [activity("Cancelled", 1, message=ABANDONED)]}
    client = SimpleNamespace(
        terminate_instance_in_auto_scaling_group=lambda **_: None,
        describe_scaling_activities=lambda **_: activities,
    )
    groups = Groups(lambda service: client)
    for id in ("i-1", *["i-2"] * 1000):
        groups.terminate(id, decrement=True)
    assert groups.launches(GROUP) == Launches()


@pytest.mark.parametrize(("version", "failures"), [("1", 0), ("2", 1)])
def test_what_an_old_template_launched_tells_nothing_of_the_new_one(
    aws: Aws, version: str, failures: int
) -> None:
    stub = aws.stubs["autoscaling"]
    boots = described(instance("i-1", "Pending:Wait", version=version))
    stub.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [boots]})
    aws.stubs["ec2"].add_response("describe_instances", {"Reservations": [reservation("i-1")]})
    stub.add_response(
        "describe_scaling_activities", {"Activities": [activity("Cancelled", 1, message=ABANDONED)]}
    )
    aws.groups.read([GROUP])
    assert aws.groups.launches(GROUP).failures == failures


def test_launches_are_asked_for_by_group(aws: Aws) -> None:
    aws.stubs["autoscaling"].add_response(
        "describe_scaling_activities",
        {"Activities": [activity("Successful", 1)]},
        {"AutoScalingGroupName": GROUP, "MaxRecords": 100},
    )
    assert aws.groups.launches(GROUP) == Launches(boot_seconds=100.0)
