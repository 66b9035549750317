"""Leases of host names as hosts take them: with their roles, an Auto Scaling group, and many at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from botocore.exceptions import ClientError
from constructs.host_names import HostNames
from constructs.host_role import HostRole

import settings
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import ACCOUNT, REGION, FakeRuntime, open_server
from tests.localcloud.lab import wait_until
from tests.userdata import machine
from userdata.host import names
from userdata.host.host import Host

FLEET = "standard"
GROUP = "openqa-test-fleet-standard"
IMAGE = "ami-12345678"


def template(directory: Path) -> str:
    """A group whose hosts may lease names, with the product's own table and role."""
    app = cdk.App(outdir=str(directory), analytics_reporting=False)
    stack = cdk.Stack(
        app,
        "names",
        env=cdk.Environment(account=ACCOUNT, region=REGION),
        synthesizer=cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
    )
    vpc = ec2.CfnVPC(stack, "Vpc", cidr_block="10.99.0.0/16").ref
    subnet = ec2.CfnSubnet(
        stack, "Subnet", vpc_id=vpc, cidr_block="10.99.0.0/20", availability_zone=f"{REGION}a"
    ).ref
    table = HostNames(stack, "HostNames")
    role = HostRole(stack, "Role", environment=settings.load("local"), description="a test's hosts")
    role.allow_own_group(GROUP)
    role.allow_lease_names(table.arn, fleet=FLEET)
    launch = ec2.CfnLaunchTemplate(
        stack,
        "Launch",
        launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
            image_id=IMAGE,
            instance_type="t3.small",
            iam_instance_profile=ec2.CfnLaunchTemplate.IamInstanceProfileProperty(arn=role.profile_arn),
        ),
    )
    autoscaling.CfnAutoScalingGroup(
        stack,
        "Group",
        auto_scaling_group_name=GROUP,
        min_size="0",
        max_size="50",
        vpc_zone_identifier=[subnet],
        launch_template=autoscaling.CfnAutoScalingGroup.LaunchTemplateSpecificationProperty(
            launch_template_id=launch.ref, version=launch.attr_latest_version_number
        ),
    )
    cdk.CfnOutput(stack, "Table", value=table.table)
    return json.dumps(app.synth().get_stack_by_name("names").template)


class Fleet:
    """A group of hosts that come and go."""

    def __init__(self, server: Server, endpoint: str, directory: Path, table: str) -> None:
        self._server = server
        self._endpoint = endpoint
        self._directory = directory
        self._table = table
        self._autoscaling = server.client("autoscaling")

    def members(self) -> list[str]:
        described = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        return [instance["InstanceId"] for instance in described["AutoScalingGroups"][0]["Instances"]]

    def grow(self, more: int) -> list[Host]:
        """Launches hosts that have no name yet."""
        before = set(self.members())
        size = len(before) + more
        self._autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=size)
        wait_until(lambda: len(self.members()) == size)
        return [self._host(instance) for instance in self.members() if instance not in before]

    def end(self, *hosts: Host) -> None:
        """Ends hosts and waits until the group has forgotten them."""
        for host in hosts:
            self._autoscaling.terminate_instance_in_auto_scaling_group(
                InstanceId=host.instance, ShouldDecrementDesiredCapacity=True
            )
        wait_until(lambda: not {host.instance for host in hosts} & set(self.members()))

    def client(self, service: str, instance: str) -> Any:
        """A client as the instance has it, with its role's credentials."""
        credentials = self._server.cloud.credentials(instance)
        assert credentials is not None
        return boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.token,
        )

    def _host(self, instance: str) -> Host:
        document = machine.read("worker")
        document["worker"]["names"] = self._table
        made = machine.host(self._directory / instance, document, instance=instance)
        clients = {service: self.client(service, instance) for service in ("autoscaling", "dynamodb")}
        return Host(**{**vars(made), "client": clients.__getitem__})


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> str:
    return template(tmp_path_factory.mktemp("cdk.out"))


@pytest.fixture
def fleet(body: str, tmp_path: Path) -> Iterator[Fleet]:
    server, endpoint = open_server()
    image = server.client("ec2").register_image(Name="image")["ImageId"]
    with FakeRuntime(server):
        cloudformation = server.client("cloudformation")
        cloudformation.create_stack(
            StackName="names", TemplateBody=body.replace(IMAGE, image), Capabilities=["CAPABILITY_IAM"]
        )
        stack = wait_until(
            lambda: next(
                (
                    stack
                    for stack in cloudformation.describe_stacks(StackName="names")["Stacks"]
                    if not stack["StackStatus"].endswith("_IN_PROGRESS")
                ),
                None,
            )
        )
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        yield Fleet(server, endpoint, tmp_path, stack["Outputs"][0]["OutputValue"])
    server.stop()


def test_a_hundred_hosts_one_after_the_other_use_one_name(fleet: Fleet) -> None:
    used = set()
    for number in range(100):
        (host,) = fleet.grow(1)
        used.add(names.take(host))
        # Some say good-bye, others just go.
        if number % 2:
            names.release(host)
        fleet.end(host)
    assert used == {"standard-1"}


def test_hosts_that_are_replaced_while_others_run_use_as_many_names_as_there_are_hosts(fleet: Fleet) -> None:
    hosts = fleet.grow(5)
    used = {names.take(host) for host in hosts}
    for number in range(15):
        gone = hosts.pop(0)
        fleet.end(gone)
        hosts += fleet.grow(1)
        used.add(names.take(hosts[-1]))
        assert len({host.name for host in hosts}) == 5, number
    assert used == {f"standard-{number}" for number in range(1, 6)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_two_hosts_ever_hold_one_name(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    hosts: list[Host] = []
    used: set[str] = set()
    most = 0
    for _ in range(6):
        new = fleet.grow(chance.randint(1, 8))
        with ThreadPoolExecutor(len(new) + 1) as pool:
            # While they take names, all others see to theirs.
            kept = pool.map(names.keep, hosts)
            taken = list(pool.map(names.take, new))
            assert all(kept)
        hosts += new
        assert taken == [host.name for host in new]
        assert len({host.name for host in hosts}) == len(hosts)
        most = max(most, len(hosts))
        used |= set(taken)
        leaving = chance.sample(hosts, chance.randint(0, len(hosts)))
        for host in leaving:
            if chance.random() < 0.5:
                names.release(host)
        fleet.end(*leaving)
        hosts = [host for host in hosts if host not in leaving]
    assert used == {f"standard-{number}" for number in range(1, most + 1)}


def test_a_host_touches_nothing_but_its_fleets_names(fleet: Fleet) -> None:
    (host,) = fleet.grow(1)
    names.take(host)
    worker = host.document.worker
    assert worker is not None
    table = worker.names
    client = host.client("dynamodb")
    other = {"fleet": {"S": "other"}, "number": {"N": "1"}}
    own = {"fleet": {"S": FLEET}, "number": {"N": "7"}}
    query = {"KeyConditionExpression": "fleet = :f", "ExpressionAttributeValues": {":f": {"S": "other"}}}
    refusals: tuple[Callable[[], Any], ...] = (
        lambda: client.put_item(TableName=table, Item=other),
        lambda: client.delete_item(TableName=table, Key=other),
        lambda: client.query(TableName=table, **query),
        lambda: client.get_item(TableName=table, Key=own),
        lambda: client.update_item(TableName=table, Key=own),
        lambda: client.delete_table(TableName=table),
    )
    for refused in refusals:
        with pytest.raises(ClientError) as error:
            refused()
        assert error.value.response["Error"]["Code"] in ("AccessDeniedException", "UnsupportedByLocalCloud")
    with pytest.raises(ClientError, match="Instances of the local cloud cannot use Scan of DynamoDB"):
        client.scan(TableName=table)
    client.put_item(TableName=table, Item=own)
