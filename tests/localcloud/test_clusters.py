"""Parallel jobs across hosts (GRE) and in containers (VDE): one deployment with a fleet of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa
from settings import ENVIRONMENTS

ROOT = Path(__file__).parents[2]
NAME = "test-clusters"
SAMPLE = ROOT / "userdata/content/sample"
MESH_GROUP, VDE_GROUP = "openqa-clusters-fleet-mesh", "openqa-clusters-fleet-vde"
# A pair never fits on one host of the mesh; two of them fit on the VDE host at a time.
FLEETS = """\
[[fleets]]
name = "mesh"
architecture = "x86_64"
classes = ["qemu_x86_64", "tap"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
network = "tap"
tap_topology = "mesh"
workers_per_host = 1
min = 2
max = 2
volume_gib = 8
cache_gib = 2

[[fleets]]
name = "vde"
architecture = "x86_64"
classes = ["qemu_x86_64", "vde"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
network = "vde"
workers_per_host = 4
min = 1
max = 1
volume_gib = 8
cache_gib = 2
"""
JOB_SECONDS = 900
HOST_SECONDS = 900


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    directory = tmp_path_factory.mktemp("environments")
    common, _, _ = (ENVIRONMENTS / "local.toml").read_text().partition("[[fleets]]")
    (directory / "clusters.toml").write_text(common + FLEETS)
    program = [sys.executable, "-m", "localcloud"]
    ports = ["--api-port=0", "--web-port=0", "--no-smoke", f"--environments={directory}"]
    try:
        subprocess.run([*program, "deploy", "clusters", f"--name={NAME}", *ports], cwd=ROOT, check=True)
        found = cloud.find(NAME)
        assert found is not None
        yield found
    finally:
        subprocess.run([*program, "down", f"--name={NAME}"], cwd=ROOT, check=True)


@pytest.fixture
def openqa(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> OpenQa:
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return deployment.connect(environment="clusters", region=cloud.REGION, url=running.url)


def schedule(openqa: OpenQa, file: str, build: str) -> list[int]:
    """Schedules a cluster and returns its jobs."""
    settings = json.loads((SAMPLE / file).read_text()) | {"BUILD": build}
    return sorted(openqa.request("POST", "jobs", data=settings)["ids"].values())


def finished(openqa: OpenQa, jobs: list[int]) -> list[dict[str, Any]]:
    """Waits until all jobs are done, and returns them."""
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        found: list[dict[str, Any]] = [openqa.request("GET", f"jobs/{job}")["job"] for job in jobs]
        if all(job["state"] == "done" for job in found):
            return found
        assert time.monotonic() < deadline, [(job["id"], job["state"]) for job in found]
        time.sleep(2)


def results(jobs: list[dict[str, Any]]) -> dict[str, str]:
    return {f"{job['id']} {job['test']}": job["result"] for job in jobs}


def all_passed(jobs: list[dict[str, Any]]) -> bool:
    return {job["result"] for job in jobs} == {"passed"}


def hosts_of(openqa: OpenQa, jobs: list[dict[str, Any]]) -> set[str]:
    """The hosts that ran the jobs."""
    workers = {worker["id"]: worker["host"] for worker in openqa.request("GET", "workers")["workers"]}
    return {workers[job["assigned_worker_id"]] for job in jobs}


def until(what: str, check: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(3)


def inside(running: RunningCloud, instance: str, *command: str) -> str:
    """Runs a command inside an instance, and returns what it printed."""
    leader = running.leader(instance)
    assert leader is not None
    return subprocess.run(
        ["nsenter", f"--target={leader}", "--all", *command],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def members(group: str) -> list[str]:
    """The instances of a group that are in service."""
    answer = boto3.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    return sorted(
        member["InstanceId"]
        for member in answer["AutoScalingGroups"][0]["Instances"]
        if member["LifecycleState"] == "InService"
    )


def address(instance: str) -> str:
    (reservation,) = boto3.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    found: str = reservation["Instances"][0]["PrivateIpAddress"]
    return found


def mesh_hosts() -> dict[str, str]:
    """The mesh's hosts: addresses by instance."""
    return {instance: address(instance) for instance in members(MESH_GROUP)}


def tunnels(running: RunningCloud, instance: str) -> set[str]:
    """Where the tunnels of a host lead."""
    find = ("ovs-vsctl", "--format=json", "--columns=options", "find", "interface", "type=gre")
    listed = json.loads(inside(running, instance, *find))
    return {dict(options[1])["remote_ip"] for (options,) in listed["data"]}


def meshed(running: RunningCloud, hosts: Mapping[str, str]) -> bool:
    """Whether each host has a tunnel to each other one, and to nothing else."""
    everyone = set(hosts.values())
    return all(tunnels(running, instance) == everyone - {address} for instance, address in hosts.items())


def mesh(running: RunningCloud) -> dict[str, str]:
    """Waits for both hosts of the mesh and their tunnels: addresses by instance."""
    until("two hosts", lambda: len(mesh_hosts()) == 2, seconds=HOST_SECONDS)
    hosts = mesh_hosts()
    until("the mesh", lambda: meshed(running, hosts), seconds=60)
    return hosts


# Sees a probe arrive at the host's interface, or says after 5 s that none did.
SEE = """
import socket, sys, time
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
link.bind(("ens5", 0x0800))
link.settimeout(1)
print("ready", flush=True)
end = time.monotonic() + 5
while time.monotonic() < end:
    try:
        packet = link.recv(65535)
    except TimeoutError:
        continue
    if packet[9] == 47 and packet.endswith(b"probe"):
        sys.exit("seen")
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_RAW, 47).sendto(b"\\0\\0\\x65\\x58probe", (sys.argv[1], 0))
"""


FRAME = bytes.fromhex("ffffffffffff52540012000188b5") + b"probe"
# A broadcast from a guest, as it leaves through all tunnels.
FLOOD = ("ovs-ofctl", "packet-out", "br0", f"in_port=tap0 packet={FRAME.hex()} actions=normal")


def arrives(running: RunningCloud, source: str, command: Sequence[str], target: str) -> bool:
    """Whether a probe that one instance's command sends by GRE arrives at another."""
    leader = running.leader(target)
    assert leader is not None
    see = ["nsenter", f"--target={leader}", "--all", "python3", "-c", SEE]
    with subprocess.Popen(see, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "ready\n"
        inside(running, source, *command)
        _, said = watcher.communicate(timeout=60)
    assert said.strip() in ("", "seen")
    return bool(said)


@pytest.mark.mesh
def test_only_hosts_of_the_mesh_reach_each_other_by_gre(running: RunningCloud, openqa: OpenQa) -> None:
    hosts = mesh(running)
    until("the host beside it", lambda: len(members(VDE_GROUP)) == 1, seconds=HOST_SECONDS)
    one, other = hosts
    (stranger,) = members(VDE_GROUP)
    assert arrives(running, one, FLOOD, other)
    assert not arrives(running, stranger, ("python3", "-c", SEND, hosts[other]), other)
    assert not arrives(running, one, ("python3", "-c", SEND, address(stranger)), stranger)


def passes_split(openqa: OpenQa, build: str) -> None:
    """A pair passes, and its jobs ran on two hosts."""
    jobs = finished(openqa, schedule(openqa, "pair.json", build))
    assert all_passed(jobs), results(jobs)
    assert len(hosts_of(openqa, jobs)) == 2


@pytest.mark.mesh
def test_a_pair_is_split_over_two_hosts_and_again_when_one_is_replaced(
    running: RunningCloud, openqa: OpenQa
) -> None:
    before = mesh(running)
    passes_split(openqa, "before")

    gone, stays = sorted(before)
    boto3.client("ec2").terminate_instances(InstanceIds=[gone])
    until("the host to go", lambda: gone not in mesh_hosts(), seconds=HOST_SECONDS)
    after = mesh(running)
    assert stays in after
    passes_split(openqa, "after")


@pytest.mark.vde
def test_a_pair_talks_over_vde(openqa: OpenQa) -> None:
    jobs = finished(openqa, schedule(openqa, "pair-vde.json", "pair"))
    assert len(jobs) == 2
    assert all_passed(jobs), results(jobs)


@pytest.mark.vde
def test_two_builds_over_vde_do_not_meet(openqa: OpenQa) -> None:
    scheduled = schedule(openqa, "pair-vde.json", "first") + schedule(openqa, "pair-vde.json", "second")
    jobs = finished(openqa, scheduled)
    assert len(jobs) == 4
    assert all_passed(jobs), results(jobs)
    assert max(job["t_started"] for job in jobs) < min(job["t_finished"] for job in jobs)
