"""A cloud for tests: what is in it, and how tests look at its machines."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import cache, root
from localcloud import cloud
from localcloud.cloud import RunningCloud

SERVER = f"""#!/bin/sh
cat >/root/server.py <<'END'
{Path(__file__).with_name("echo_server.py").read_text()}END
systemd-run --unit=server python3 /root/server.py
echo "user data was here as $(id -un)" >/dev/console
"""


def remove_what_killed_runs_left() -> None:
    """Removes clouds that are named after a process of the tests that no longer exists."""
    for folder in (cloud.STATES, cache.root() / "clouds"):
        for left in folder.glob("test-*-*"):
            pid = left.name.rpartition("-")[2]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                cloud.stop(left.name)


@contextmanager
def passing_cloud(name: str, *, internet: bool = False) -> Iterator[RunningCloud]:
    """A cloud that is gone at the end, or with this process if that ends first."""
    with cloud.starting(name, api_port=0, web_port=0, internet=internet) as running:
        yield running
    cloud.stop(name)


def wait_until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Waits until a condition holds and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return value


def outside(cloud: RunningCloud, *words: str) -> list[str]:
    """The command line that runs a command, in the same process, at the addresses outside the VPC."""
    inner = shlex.join(["exec", "ip", "netns", "exec", "outside", *words])
    return ["nsenter", f"--target={cloud.pid}", "--mount", "--net", "sh", "-c", inner]


def device(volume: str) -> str:
    """Where a volume is in a machine."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


@dataclass(frozen=True)
class Lab:
    """A running cloud and what the tests made in it."""

    cloud: RunningCloud
    image: str
    subnets: tuple[str, str]
    groups: dict[str, str]

    def aws(self, service: str) -> Any:
        return self.cloud.client(service)

    def launch(self, group: str, *, user_data: str = "", **more: Any) -> str:
        arguments = {
            "ImageId": self.image,
            "InstanceType": "t3.small",
            "SubnetId": self.subnets[0],
            "SecurityGroupIds": [self.groups[group]],
            "UserData": user_data,
            "MetadataOptions": {"HttpTokens": "required"},
        }
        launched = self.aws("ec2").run_instances(MinCount=1, MaxCount=1, **{**arguments, **more})
        return str(launched["Instances"][0]["InstanceId"])

    def describe(self, instance: str) -> Any:
        return self.aws("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]

    def address(self, instance: str) -> str:
        return str(self.describe(instance)["PrivateIpAddress"])

    def state(self, instance: str) -> str:
        return str(self.describe(instance)["State"]["Name"])

    def wait_for_state(self, instance: str, state: str) -> None:
        wait_until(lambda: self.state(instance) == state)

    def wait_for_boot(self, instance: str) -> None:
        self.wait_for(instance, "test -e /run/cloud-init/result.json")

    def wait_for(self, instance: str, script: str, *, succeeds: bool = True) -> None:
        """Waits until a shell script succeeds in an instance, or until it fails."""
        wait_until(lambda: (self.run(instance, script).returncode == 0) is succeeds)

    def run(self, instance: str, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell script in an instance, as root."""
        leader = self.cloud.leader(instance)
        if leader is None:
            return subprocess.CompletedProcess(script, 255, "", "it does not run")
        return _run(["nsenter", f"--target={leader}", "--all", "--wd=/", "sh", "-c", script])

    def output(self, instance: str, script: str) -> str:
        """What a shell script prints in an instance; it must succeed."""
        done = self.run(instance, script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def outside(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell script at an address outside the VPC."""
        return _run(outside(self.cloud, "sh", "-c", script))


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def make_lab(running: RunningCloud) -> Lab:
    """Makes a VPC with two subnets, a role, and the groups ``client``, ``server`` and ``balancer``."""
    ec2 = running.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for cidr, zone in (("10.99.1.0/24", "us-east-1a"), ("10.99.2.0/24", "us-east-1b"))
    ]
    groups = {
        name: ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name in ("client", "server", "balancer")
    }
    for source in ("client", "balancer"):
        allow(running, groups["server"], 8080, {"UserIdGroupPairs": [{"GroupId": groups[source]}]})
    allow(running, groups["balancer"], 443, {"IpRanges": [{"CidrIp": "127.0.0.0/8"}]})
    _make_role(running)
    image = running.add_image(root.BASE.make())
    return Lab(cloud=running, image=image, subnets=(subnets[0], subnets[1]), groups=groups)


def allow(running: RunningCloud, group: str, port: int, source: dict[str, Any]) -> None:
    """Lets TCP from a source into a security group."""
    permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **source}
    running.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])


def _make_role(running: RunningCloud) -> None:
    iam = running.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="lab", AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="lab")
    iam.add_role_to_instance_profile(InstanceProfileName="lab", RoleName="lab")
