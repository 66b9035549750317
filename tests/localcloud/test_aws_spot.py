"""Spot instances that EC2 takes back: announced on the operator's side only, and done two minutes later."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from localcloud.aws import ec2
from localcloud.aws.ports import INTERRUPT
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import ACCOUNT, REGION, FakeRuntime, open_server


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[Server, str]]:
    server, url = open_server()
    with FakeRuntime(server, lambda *_: None):
        yield server, url
    server.stop()


def launch(server: Server, **more: Any) -> str:
    client = server.client("ec2")
    vpc = client.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.7.0.0/24")["Subnet"]["SubnetId"]
    image = client.register_image(Name=f"image-{subnet}", RootDeviceName="/dev/xvda")["ImageId"]
    answer = client.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet, **more)
    instance = str(answer["Instances"][0]["InstanceId"])
    deadline = time.monotonic() + 20
    while seen(server, instance).state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return instance


def ask(url: str, query: str, *, host: str | None = None) -> int:
    headers = {"Host": host} if host else {}
    request = urllib.request.Request(f"{url}{INTERRUPT}?{query}", method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}


def seen(server: Server, instance: str) -> Any:
    return next(found for found in server.cloud.instances() if found.id == instance)


def test_taken_back_two_minutes_after_it_is_announced(aws: tuple[Server, str]) -> None:
    server, url = aws
    instance, other = launch(server, **SPOT), launch(server, **SPOT)
    assert ask(url, f"instance={instance}") == 200
    at = seen(server, instance).interruption
    assert abs(at - server.world.clock() - ec2.INTERRUPTION) < timedelta(seconds=20)
    assert ask(url, f"instance={instance}") == 200
    assert seen(server, instance).interruption == at
    backend = ec2.backend(ACCOUNT, REGION)
    with server.world.changed:
        assert not backend.step(at - timedelta(seconds=1))
        assert backend.step(at)
    assert backend.get_instance(instance).state in ("shutting-down", "terminated")
    assert backend.get_instance(other).state == "running"


def test_a_recommendation_ends_nothing(aws: tuple[Server, str]) -> None:
    server, url = aws
    instance = launch(server, **SPOT)
    assert ask(url, f"instance={instance}&rebalance=true") == 200
    assert seen(server, instance).rebalance is not None
    assert seen(server, instance).interruption is None


def test_only_spot_instances_and_only_from_outside(aws: tuple[Server, str]) -> None:
    server, url = aws
    instance, plain = launch(server, **SPOT), launch(server)
    assert ask(url, f"instance={plain}") == 400
    assert ask(url, "instance=i-none") == 400
    assert ask(url, f"instance={instance}", host="ec2.us-east-1.amazonaws.com") >= 400
    assert seen(server, instance).interruption is None
