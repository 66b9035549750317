"""Parallel jobs on one host (tap), across hosts (GRE) and in containers (VDE): a fleet of each kind."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.localcloud.deployed import Deployment, deployed, until
from tests.localcloud.probe import OPEN, REFUSED, SILENCE, probe

# A pair never fits on one host of the mesh; two of them fit on the others at a time.
FLEETS = """\
[[fleets]]
name = "taps"
architecture = "x86_64"
classes = ["qemu_x86_64", "tap"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
network = "tap"
workers_per_host = 4
min = 1
max = 1
volume_gib = 8
cache_gib = 2

[[fleets]]
name = "mesh"
architecture = "x86_64"
classes = ["qemu_x86_64", "tap2"]
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
# Not the default, so that what hosts and guests have can only be what the file says: openSUSE's.
TAPS = {'profile = "sample"': 'profile = "sample"\ntap_address = "10.0.2.2/15"'}
ACROSS = {"WORKER_CLASS": "qemu_x86_64,tap2"}


@pytest.fixture(scope="module")
def clusters() -> Iterator[Deployment]:
    with deployed("clusters", TAPS, fleets=FLEETS) as made:
        yield made


def hosts_of(made: Deployment, jobs: list[dict[str, Any]]) -> set[str]:
    """The hosts that ran the jobs."""
    workers = {worker["id"]: worker["host"] for worker in made.openqa.request("GET", "workers")["workers"]}
    return {workers[job["assigned_worker_id"]] for job in jobs}


def address(made: Deployment, instance: str) -> str:
    (reservation,) = made.cloud.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    found: str = reservation["Instances"][0]["PrivateIpAddress"]
    return found


def tunnels(made: Deployment, instance: str) -> set[str]:
    """Where the tunnels of a host lead."""
    find = ("ovs-vsctl", "--format=json", "--columns=options", "find", "interface", "type=gre")
    listed = json.loads(made.run(instance, *find).stdout)
    return {dict(options[1])["remote_ip"] for (options,) in listed["data"]}


def meshed(made: Deployment, hosts: Mapping[str, str]) -> bool:
    """Whether each host has a tunnel to each other one, and to nothing else."""
    everyone = set(hosts.values())
    return all(tunnels(made, instance) == everyone - {address} for instance, address in hosts.items())


def mesh(made: Deployment) -> dict[str, str]:
    """Waits for both hosts of the mesh and their tunnels: addresses by instance."""
    hosts = {instance: address(made, instance) for instance in made.serving("fleet-mesh", count=2)}
    until("the mesh", lambda: meshed(made, hosts) or None, seconds=60)
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


def arrives(made: Deployment, source: str, command: Sequence[str], target: str) -> bool:
    """Whether a probe that one instance's command sends by GRE arrives at another."""
    leader = made.cloud.leader(target)
    assert leader is not None
    see = ["nsenter", f"--target={leader}", "--all", "python3", "-c", SEE]
    with subprocess.Popen(see, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "ready\n"
        made.run(source, *command)
        _, said = watcher.communicate(timeout=60)
    assert said.strip() in ("", "seen")
    return bool(said)


@pytest.mark.mesh
def test_only_hosts_of_the_mesh_reach_each_other_by_gre(clusters: Deployment) -> None:
    hosts = mesh(clusters)
    one, other = hosts
    (stranger,) = clusters.serving("fleet-vde")
    there = address(clusters, stranger)
    # Open vSwitch drops what it sends into a new tunnel before it knows the other side's hardware address.
    until("a broadcast arrives", lambda: arrives(clusters, one, FLOOD, other) or None, seconds=60)
    assert not arrives(clusters, stranger, ("python3", "-c", SEND, hosts[other]), other)
    assert not arrives(clusters, one, ("python3", "-c", SEND, there), stranger)


# Open vSwitch forgets its rules, and what is part of it starts anew with it. Tunnels it makes by itself.
ANEW = ("systemctl", "restart", "ovs-vswitchd", "openqa-tap", "os-autoinst-openvswitch")


@pytest.mark.mesh
def test_an_open_vswitch_that_starts_anew_has_all_rules_before_it_forwards(clusters: Deployment) -> None:
    host = min(mesh(clusters))
    # So that nobody puts right afterwards what was missing.
    clusters.run(host, "systemctl", "stop", "openqa-mesh")
    try:
        assert clusters.run(host, "ovs-vsctl", "get-fail-mode", "br0").stdout == "secure\n"
        clusters.run(host, *ANEW)
        flows = clusters.run(host, "ovs-ofctl", "dump-flows", "br0").stdout.splitlines()
    finally:
        clusters.run(host, "systemctl", "start", "openqa-mesh")
    # The guards, and what a guest's three devices have for ARP and IP.
    assert [sum(f"priority={number}," in flow for flow in flows) for number in (300, 100)] == [4, 6]


@pytest.mark.mesh
def test_no_ways_to_workers_without_containers_but_developer_mode(clusters: Deployment) -> None:
    one, other = mesh(clusters)
    (tap,), (vde,), (webui,) = (clusters.serving(group) for group in ("fleet-taps", "fleet-vde", "webui"))
    ports = (22, 5991, 6640, 9530, 20013)
    ways = {(source, other, port): SILENCE for source in (one, vde) for port in ports}
    # No job runs: a host that lets the web UI come refuses it.
    ways |= {
        (webui, host, port): REFUSED if port == 20013 else SILENCE for host in (other, tap) for port in ports
    }
    addresses = {host: address(clusters, host) for host in (other, tap)}
    with ThreadPoolExecutor(len(ways)) as pool:
        done = pool.map(
            lambda way: clusters.run(way[0], *probe(addresses[way[1]], way[2]), check=False).returncode, ways
        )
    assert dict(zip(ways, done, strict=True)) == ways


def passes_split(made: Deployment, build: str) -> None:
    """A pair passes, and its jobs ran on two hosts."""
    jobs = made.passed(made.schedule(build, file="pair.json", **ACROSS))
    assert len(hosts_of(made, jobs)) == 2


@pytest.mark.mesh
def test_a_pair_is_split_over_two_hosts_and_again_when_one_is_replaced(clusters: Deployment) -> None:
    before = mesh(clusters)
    passes_split(clusters, "before")

    gone, stays = sorted(before)
    clusters.cloud.client("ec2").terminate_instances(InstanceIds=[gone])
    until("the host to go", lambda: gone not in clusters.instances("fleet-mesh") or None)
    after = mesh(clusters)
    assert stays in after
    passes_split(clusters, "after")


def two_builds(made: Deployment, file: str) -> tuple[list[int], list[int]]:
    """Two builds of a pair, with the same addresses."""
    return made.schedule("first", file=file), made.schedule("second", file=file)


def do_not_meet(made: Deployment, first: list[int], second: list[int]) -> None:
    """Both builds run at the same time and pass."""
    done = made.passed(first + second)
    assert len(done) == 4
    assert max(job["t_started"] for job in done) < min(job["t_finished"] for job in done)


SWITCH = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect("/run/openqa-on-aws/vde/vde.mgmt")
def answer():
    said = b""
    while not said.endswith(b"vde$ "):
        said += connection.recv(65536)
    return said.decode()
answer()
connection.sendall(b"port/print\\n")
print(answer())
"""


def vlans(made: Deployment, instance: str) -> dict[int, int]:
    """The VLAN of each port of a host's VDE switch into which something is plugged."""
    said = made.run(instance, "python3", "-c", SWITCH).stdout
    found = re.findall(r"^Port (\d+) untagged_vlan=(\d+) ACTIVE", said, re.MULTILINE)
    return {int(port): int(vlan) for port, vlan in found}


def separated(made: Deployment, instance: str, *builds: list[int]) -> list[set[int]] | None:
    """The VLANs of each build's guests, once all of them are plugged in."""
    there = vlans(made, instance)
    # os-autoinst (backend/qemu.pm) makes a guest's port of its worker's id.
    ports = [[2 * made.job(job)["assigned_worker_id"] + 2 for job in build] for build in builds]
    if not all(port in there for build in ports for port in build):
        return None
    return [{there[port] for port in build} for build in ports]


@pytest.mark.vde
def test_two_builds_over_vde(clusters: Deployment) -> None:
    (host,) = clusters.serving("fleet-vde")
    first, second = two_builds(clusters, "pair-vde.json")
    jobs = first + second
    until("all jobs run", lambda: all(clusters.job(job)["state"] == "running" for job in jobs) or None)
    one, other = until("all guests are plugged in", lambda: separated(clusters, host, first, second))
    assert (len(one), len(other)) == (1, 1)
    assert one != other
    assert 0 not in one | other

    # Nothing of it takes privileges, nor a device or a bridge of the host's.
    for container in ("openqa-vde-switch", "openqa-worker-1"):
        shown = "{{.HostConfig.Privileged}} {{.HostConfig.Devices}} {{.State.Pid}}"
        told = clusters.run(host, "podman", "inspect", "--format", shown, container).stdout.split()
        assert told[:2] == ["false", "[]"]
        status = clusters.run(host, "grep", "-E", "^(Cap|NoNewPrivs)", f"/proc/{told[2]}/status").stdout
        assert status.count("\t0000000000000000\n") == 5, status
        assert "NoNewPrivs:\t1\n" in status
    links = json.loads(clusters.run(host, "ip", "-json", "-details", "link", "show").stdout)
    assert "ens5" in {link["ifname"] for link in links}
    assert "br0" not in {link["ifname"] for link in links}
    assert not [link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") == "tun"]

    do_not_meet(clusters, first, second)


@pytest.mark.tap
def test_hosts_have_the_address_that_tests_expect(clusters: Deployment) -> None:
    (host,) = clusters.serving("fleet-taps")
    (bridge,) = json.loads(clusters.run(host, "ip", "-json", "-4", "address", "show", "dev", "br0").stdout)
    assert [(had["local"], had["prefixlen"]) for had in bridge["addr_info"]] == [("10.0.2.2", 15)]


@pytest.mark.tap
def test_a_guest_on_the_user_network_of_a_tap_host_reaches_its_own_worker_alone(clusters: Deployment) -> None:
    """The sample fetches something from its worker. Whoever is in a unit connects as its guests do."""
    (host,) = clusters.serving("fleet-taps")
    (job,) = clusters.schedule("user", WORKER_CLASS="qemu_x86_64,tap")

    def started() -> int | None:
        number = clusters.job(job).get("assigned_worker_id")
        if number is None:
            return None
        worker = clusters.openqa.request("GET", f"workers/{number}")["worker"]
        return int(worker["instance"])

    own = until("the job has a worker", started)
    way = probe("127.0.0.1", 5990 + own)
    until("its screen", lambda: clusters.run(host, *way, check=False).returncode == OPEN or None)
    said = {}
    for number in range(1, 5):
        unit = f"/sys/fs/cgroup/openqa.slice/openqa-worker.slice/openqa-worker-plain@{number}.service"
        enter = f'echo $$ >{unit}/cgroup.procs && exec "$@"'
        said[number] = clusters.run(host, "sh", "-c", enter, "sh", *way, check=False).returncode
    assert said == {number: OPEN if number == own else REFUSED for number in range(1, 5)}
    clusters.passed([job])


@pytest.mark.tap
def test_two_builds_over_tap(clusters: Deployment) -> None:
    do_not_meet(clusters, *two_builds(clusters, "pair.json"))


@pytest.mark.tap
def test_a_cluster_of_three(clusters: Deployment) -> None:
    third = {
        "TEST:second": "tap-second-client",
        "MODULES:second": "boot,isolation,client",
        "GUEST_NUMBER:second": "3",
        "_PARALLEL:second": "server",
    }
    jobs = clusters.passed(clusters.schedule("three", file="pair.json", **third))
    assert len(jobs) == 3
    assert len(hosts_of(clusters, jobs)) == 1
