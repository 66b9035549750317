"""Scheduled actions: when they come, and what they do to a group."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws.autoscaling.schedule import following
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import open_server

NOW = datetime(2026, 2, 27, 3, 30, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("recurrence", "expected"),
    [
        ("* * * * *", "2026-02-27T03:31"),
        ("30 3 * * *", "2026-02-28T03:30"),
        ("*/20 * * * *", "2026-02-27T03:40"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("15 4,6 1-3 * *", "2026-03-01T04:15"),
        ("0 12 * * 0", "2026-03-01T12:00"),
        ("0 12 * * 7", "2026-03-01T12:00"),
        ("0 12 10 * 6", "2026-02-28T12:00"),
        ("5 3 * 1 *", "2027-01-01T03:05"),
    ],
)
def test_when_it_comes_next(recurrence: str, expected: str) -> None:
    assert following(recurrence, NOW) == datetime.fromisoformat(f"{expected}+00:00")


@pytest.mark.parametrize(
    "recurrence", ["", "* * * *", "60 * * * *", "0 0 30 2 *", "x * * * *", "5-1 * * * *"]
)
def test_what_is_no_recurrence(recurrence: str) -> None:
    with pytest.raises(ValueError, match=r"never comes|five fields|within|invalid literal"):
        following(recurrence, NOW)


@pytest.fixture
def server() -> Iterator[Server]:
    made, _ = open_server()
    yield made
    made.stop()


def group(server: Server) -> Any:
    ec2, client = server.client("ec2"), server.client("autoscaling")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.0.0/24")["Subnet"]["SubnetId"]
    image = ec2.register_image(Name="image", RootDeviceName="/dev/xvda")["ImageId"]
    ec2.create_launch_template(LaunchTemplateName="template", LaunchTemplateData={"ImageId": image})
    client.create_auto_scaling_group(
        AutoScalingGroupName="builders",
        MinSize=0,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "template"},
    )
    return client


def put(client: Any, **more: Any) -> None:
    client.put_scheduled_update_group_action(
        AutoScalingGroupName="builders", ScheduledActionName="nightly", **{"Recurrence": "30 3 * * *", **more}
    )


def test_an_action_sets_the_size_when_its_time_comes(server: Server) -> None:
    client = group(server)
    put(client, DesiredCapacity=1, TimeZone="Etc/UTC")
    (action,) = client.describe_scheduled_actions(AutoScalingGroupName="builders")[
        "ScheduledUpdateGroupActions"
    ]
    assert (action["DesiredCapacity"], action["Recurrence"]) == (1, "30 3 * * *")

    def desired(at: datetime) -> int:
        server.autoscaling.step(at)
        found = client.describe_auto_scaling_groups()["AutoScalingGroups"][0]
        return int(found["DesiredCapacity"])

    time = action["StartTime"]
    assert desired(time - timedelta(seconds=1)) == 0
    assert desired(time) == 1
    # Once it was set back, not before the next day.
    client.set_desired_capacity(AutoScalingGroupName="builders", DesiredCapacity=0)
    assert desired(time + timedelta(hours=23)) == 0
    assert desired(time + timedelta(days=1)) == 1
    client.set_desired_capacity(AutoScalingGroupName="builders", DesiredCapacity=0)
    client.delete_scheduled_action(AutoScalingGroupName="builders", ScheduledActionName="nightly")
    assert desired(time + timedelta(days=2)) == 0


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"DesiredCapacity": 1, "Recurrence": "never"},
        {"DesiredCapacity": 1, "TimeZone": "Europe/Berlin"},
        {"DesiredCapacity": 1, "StartTime": NOW},
    ],
)
def test_what_is_refused(server: Server, more: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="ValidationError"):
        put(group(server), **more)
