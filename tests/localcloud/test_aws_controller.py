"""The fleet controller's calls against the embedded AWS, whose machines only report."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fleet.controller import Controller, read_facts
from fleet.groups import Groups
from fleet.openqa_api import ListedJob, ListedWorker, Queue
from fleet.rules import DEFAULT_RULES
from localcloud.aws.ports import Instance
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import FakeRuntime, open_server

GROUP = "openqa-test-fleet-small"
NEAR, FAR = "us-east-1a", "us-east-1b"
FACTS = {
    "group": GROUP,
    "classes": ["qemu_x86_64"],
    "workers": {"t3.medium": 1},
    "prices": {"t3.medium": 0.05},
    "boot_seconds": 4,
    "one_host": False,
    "warm": [],
}
JOB = ListedJob(id=1, scheduled=True, priority=50, classes=frozenset({"qemu_x86_64"}), kind=("base",))


@dataclass
class OpenQa:
    """openQA: a queue, and a worker on each host."""

    jobs: list[ListedJob] = field(default_factory=list)
    hosts: dict[str, int | None] = field(default_factory=dict)  # with the job there

    def read(self) -> Queue:
        workers = tuple(
            ListedWorker(id=number, instance=instance, number=1, connected=True, job=job)
            for number, (instance, job) in enumerate(self.hosts.items(), start=1)
        )
        return Queue(at=time.time(), jobs=tuple(self.jobs), workers=workers)

    def finished(self) -> Sequence[ListedJob]:
        return ()


@dataclass
class Cloud:
    """The embedded AWS with a fleet, and a controller that has it."""

    server: Server
    openqa: OpenQa
    controller: Controller
    fails: bool = False

    def come_up(self, runtime: FakeRuntime, instance: Instance) -> None:
        if self.fails:
            threading.Timer(2.0, self.give_up, (runtime, instance)).start()
        else:
            runtime.complete(instance, "ready", "CONTINUE")

    def give_up(self, runtime: FakeRuntime, instance: Instance) -> None:
        with contextlib.suppress(ClientError):  # it was called off before
            runtime.complete(instance, "ready", "ABANDON")

    def group(self) -> dict[str, Any]:
        client = self.server.client("autoscaling")
        answer = client.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        found: dict[str, Any] = answer["AutoScalingGroups"][0]
        return found

    def turn(self, done: Callable[[dict[str, Any]], bool], *, seconds: float = 30) -> dict[str, Any]:
        """Lets the controller do rounds until the group is as it shall be."""
        deadline = time.monotonic() + seconds
        while not done(group := self.group()):
            assert time.monotonic() < deadline, group
            # What changes slowly is read in every round: the test has no minutes.
            self.controller._done_at.clear()
            self.controller.round()
            time.sleep(0.2)
        return group


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    server, _ = open_server()
    ec2, autoscaling, ssm = (server.client(name) for name in ("ec2", "autoscaling", "ssm"))
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=zone)
        for number, zone in enumerate((NEAR, FAR))
    ]
    near, far = (answer["Subnet"]["SubnetId"] for answer in subnets)
    image = ec2.register_image(Name="image", RootDeviceName="/dev/xvda")["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName="small", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.medium"}
    )
    facts = json.dumps(FACTS | {"subnets": [near, far]})
    ssm.put_parameter(Name="/openqa/test/fleets/small", Value=facts, Type="String")
    openqa = OpenQa()
    controller = Controller(
        openqa=openqa,
        groups=Groups(server.client),
        read_facts=lambda: read_facts(ssm, "test"),
        held=lambda: True,
        tell=lambda closings: None,
        closed={},
    )
    made = Cloud(server, openqa, controller)
    with FakeRuntime(server, lambda runtime, instance: made.come_up(runtime, instance)):
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=GROUP,
            MinSize=0,
            MaxSize=3,
            VPCZoneIdentifier=near,
            LaunchTemplate={"LaunchTemplateName": "small", "Version": "1"},
            NewInstancesProtectedFromScaleIn=True,
            LifecycleHookSpecificationList=[
                {
                    "LifecycleHookName": name,
                    "LifecycleTransition": f"autoscaling:EC2_INSTANCE_{transition}",
                    "HeartbeatTimeout": 900,
                    "DefaultResult": result,
                }
                for name, transition, result in (
                    ("ready", "LAUNCHING", "ABANDON"),
                    ("drain", "TERMINATING", "CONTINUE"),
                )
            ],
        )
        yield made
    server.stop()


def in_service(group: dict[str, Any]) -> list[str]:
    return [found["InstanceId"] for found in group["Instances"] if found["LifecycleState"] == "InService"]


def test_from_no_host_for_a_job_and_back_without_it(cloud: Cloud) -> None:
    cloud.openqa.jobs = [JOB]
    first = in_service(cloud.turn(lambda group: bool(in_service(group))))[0]
    # It takes the job; what was launched to spare goes, and it stays.
    cloud.openqa.hosts[first] = JOB.id
    cloud.openqa.jobs = [replace(JOB, scheduled=False, worker=1)]

    def all_known(group: dict[str, Any]) -> None:
        for instance in in_service(group):
            cloud.openqa.hosts.setdefault(instance, None)

    def only_the_first(group: dict[str, Any]) -> bool:
        all_known(group)
        return [found["InstanceId"] for found in group["Instances"]] == [first] and (
            group["DesiredCapacity"] == 1
        )

    cloud.turn(only_the_first)
    cloud.openqa.jobs = []
    cloud.openqa.hosts = dict.fromkeys(cloud.openqa.hosts)
    group = cloud.turn(lambda group: not group["Instances"])
    assert group["DesiredCapacity"] == 0


def test_hosts_of_an_old_launch_template_are_replaced(cloud: Cloud) -> None:
    client = cloud.server.client("autoscaling")
    client.update_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=1)
    (old,) = in_service(cloud.turn(lambda group: bool(in_service(group))))
    cloud.openqa.hosts[old] = None
    ec2 = cloud.server.client("ec2")
    ec2.create_launch_template_version(
        LaunchTemplateName="small", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.large"}
    )
    client.update_auto_scaling_group(
        AutoScalingGroupName=GROUP, LaunchTemplate={"LaunchTemplateName": "small", "Version": "2"}
    )
    group = cloud.turn(
        lambda group: bool(in_service(group)) and old not in [i["InstanceId"] for i in group["Instances"]]
    )
    assert {found["LaunchTemplate"]["Version"] for found in group["Instances"]} == {"2"}
    assert group["DesiredCapacity"] == 1


def test_where_the_web_uis_zone_has_no_host_another_gives_one(cloud: Cloud) -> None:
    cloud.server.world.short_zones.add(NEAR)
    cloud.openqa.jobs = [JOB]
    group = cloud.turn(lambda group: bool(in_service(group)))
    assert {found["AvailabilityZone"] for found in group["Instances"]} == {FAR}
    # Ten minutes later the zone is asked again; hosts elsewhere stay.
    cloud.server.world.short_zones.clear()
    there = in_service(group)
    cloud.controller._memory.short.clear()
    group = cloud.turn(lambda group: group["AvailabilityZones"] == [NEAR])
    assert set(there) <= {found["InstanceId"] for found in group["Instances"]}


def test_where_the_web_uis_zone_does_not_offer_the_type_another_gives_a_host(cloud: Cloud) -> None:
    ec2, autoscaling, ssm = (cloud.server.client(name) for name in ("ec2", "autoscaling", "ssm"))
    name = "/openqa/test/fleets/small"
    facts = json.loads(ssm.get_parameter(Name=name)["Parameter"]["Value"])
    vpc = ec2.describe_subnets(SubnetIds=facts["subnets"])["Subnets"][0]["VpcId"]
    # AWS's oldest zone there offers few types, and none of this generation.
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.9.0/24", AvailabilityZone="us-east-1e")
    facts["subnets"][0] = made["Subnet"]["SubnetId"]
    ssm.put_parameter(Name=name, Value=json.dumps(facts), Overwrite=True)
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, VPCZoneIdentifier=facts["subnets"][0])
    cloud.openqa.jobs = [JOB]
    group = cloud.turn(lambda group: bool(in_service(group)))
    assert {found["AvailabilityZone"] for found in group["Instances"]} == {FAR}


def test_a_fleet_whose_hosts_do_not_come_up_rests(cloud: Cloud) -> None:
    cloud.fails = True
    cloud.openqa.jobs = [JOB]

    def failed() -> int:
        answer = cloud.server.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=GROUP)
        return sum(activity["StatusCode"] == "Cancelled" for activity in answer["Activities"])

    cloud.turn(lambda group: failed() >= DEFAULT_RULES.breaker_failures and not group["Instances"])
    for _ in range(3):
        cloud.controller._done_at.clear()
        done = cloud.controller.round()
    assert done is not None
    assert done.decision is not None
    assert "did not come up" in done.decision.held["small"]
    assert cloud.group()["DesiredCapacity"] == 0
