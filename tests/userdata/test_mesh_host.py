"""The mesh: what is decided, what is asked of EC2, and what happens when it does not answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from tests.userdata import machine
from userdata.host import __main__ as main
from userdata.host import mesh, tap
from userdata.host.errors import HostError
from userdata.host.switch import flows
from userdata.host.tap import TapNetwork

NETWORK = TapNetwork(IPv4Interface("10.0.2.2/15"))
OWN, OTHER, THIRD = (IPv4Address(f"10.99.1.{last}") for last in (40, 41, 42))
ADDRESSES = st.frozensets(st.ip_addresses(v=4), max_size=8)


class Ec2:
    """Answers DescribeInstances page by page, or refuses."""

    def __init__(self, *pages: Iterable[str | None], refuses: bool = False) -> None:
        self.pages = pages
        self.refuses = refuses
        self.filters: list[Mapping[str, Any]] = []

    def get_paginator(self, operation: str) -> Ec2:
        assert operation == "describe_instances"
        return self

    def paginate(self, *, Filters: list[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803
        if self.refuses:
            raise ClientError({"Error": {"Code": "UnauthorizedOperation"}}, "DescribeInstances")
        self.filters = Filters
        return [
            {
                "Reservations": [
                    {"Instances": [{"PrivateIpAddress": address} if address else {}]} for address in page
                ]
            }
            for page in self.pages
        ]


def applied(command: list[str], ports: Iterable[str]) -> dict[str, str | None]:
    """What the bridge has after a command: the other end of each port, where the command said it."""
    have: dict[str, str | None] = dict.fromkeys(ports)
    for at, word in enumerate(command):
        if word == "del-port":
            del have[command[at + 2]]
        elif word == "add-port":
            have[command[at + 2]] = ""
        elif word.startswith("options:remote_ip="):
            have[command[at - 2]] = word.partition("=")[2]
    return have


@given(wanted=ADDRESSES, present=ADDRESSES)
def test_tunnels_become_what_is_wanted_and_stay_so(
    wanted: frozenset[IPv4Address], present: frozenset[IPv4Address]
) -> None:
    ports = ["tap0", "br0", *map(mesh.port, present)]
    after = applied(mesh.changes(wanted=wanted, ports=ports), ports)
    assert after.keys() == {"tap0", "br0", *map(mesh.port, wanted)}
    assert {at for at in after.values() if at} == {str(peer) for peer in wanted - present}
    assert mesh.changes(wanted=wanted, ports=after) == []


@given(ADDRESSES)
def test_names_of_tunnels_are_short_and_unique(peers: frozenset[IPv4Address]) -> None:
    names = {mesh.port(peer) for peer in peers}
    assert len(names) == len(peers)
    assert all(len(name) <= 15 for name in names)


def test_nothing_goes_from_one_tunnel_into_another() -> None:
    assert mesh.changes(wanted=[OTHER], ports=["tap0", "gre-0a63012a"]) == [
        *("ovs-vsctl", "--timeout=60"),
        *("--", "--if-exists", "del-port", "br0", "gre-0a63012a"),
        *("--", "--may-exist", "add-port", "br0", "gre-0a630129"),
        *("--", "set", "interface", "gre-0a630129", "type=gre", "options:remote_ip=10.99.1.41"),
        *("--", "set", "port", "gre-0a630129", "protected=true"),
    ]


def test_the_hosts_own_address_is_never_reached_through_a_tunnel() -> None:
    own = mesh.endpoint(own=OWN, kernel_datapath=True)
    assert mesh.guards(NETWORK, endpoint=own) == (
        "table=0,priority=300,tun_dst=10.99.1.40,arp,arp_tpa=10.0.2.2,actions=drop",
        "table=0,priority=300,tun_dst=10.99.1.40,arp,arp_spa=10.0.2.2,actions=drop",
        "table=0,priority=300,tun_dst=10.99.1.40,dl_dst=02:00:0a:00:02:02,actions=drop",
        "table=0,priority=300,tun_dst=10.99.1.40,dl_src=02:00:0a:00:02:02,actions=drop",
    )
    rules = flows(taps=["tap0"], address=NETWORK.address.ip, rewrite=NETWORK.rewrite, mac=NETWORK.mac)
    assert not any("priority=300" in rule for rule in rules)
    assert mesh.endpoint(own=OWN, kernel_datapath=False) == mesh.OUR_END


def test_the_groups_other_hosts_are_peers() -> None:
    ec2 = Ec2([str(OTHER), None], [str(OWN)])
    assert mesh.peers(ec2, group="openqa-test-fleet-mesh", own=OWN) == {OTHER}
    assert ec2.filters == [
        {"Name": "tag:aws:autoscaling:groupName", "Values": ["openqa-test-fleet-mesh"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]


@pytest.mark.parametrize(
    ("ec2", "reason"),
    [
        (Ec2([]), "EC2 does not list this one, 10.99.1.40"),
        (Ec2([str(OTHER)]), "EC2 does not list this one"),
        (Ec2(refuses=True), "the hosts of group: .*UnauthorizedOperation"),
    ],
)
def test_a_doubtful_answer_is_no_answer(ec2: Ec2, reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        mesh.peers(ec2, group="group", own=OWN)


@pytest.fixture
def bridge(programs: machine.Programs) -> machine.Programs:
    """A bridge with a tap and a tunnel to a host that is gone."""
    programs.answers |= {
        "ovs-vsctl --timeout=60 list-ports br0": "tap0\ngre-0a63012a\n",
        "ip -json route show default": json.dumps([{"dst": "default", "dev": "ens5"}]),
        "ip -json link show dev mesh0": json.dumps([{"address": "02:00:00:00:00:02"}]),
        "ip -json link show dev mesh-out": json.dumps([{"address": "02:00:00:00:00:01"}]),
    }
    return programs


def changed(programs: machine.Programs) -> list[str]:
    return [" ".join(call) for call in programs.calls if "del-port" in call or "add-port" in call]


def test_tunnels_follow_the_group_and_outlive_its_silence(tmp_path: Path, bridge: machine.Programs) -> None:
    ec2 = Ec2(refuses=True)
    host = dataclasses.replace(machine.host(tmp_path, "worker-mesh"), client=lambda _: ec2)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        assert changed(bridge) == []
        slept.append(seconds)
        ec2.refuses, ec2.pages = False, ([str(OWN), str(OTHER)],)

    mesh.follow(host, rounds=range(1), sleep=sleep)
    mesh.follow(host, rounds=range(1), sleep=slept.append)
    assert slept == [mesh.PAUSE_SECONDS] * 2
    assert len(changed(bridge)) == 1
    assert "del-port br0 gre-0a63012a" in changed(bridge)[0]
    assert "options:remote_ip=10.99.1.41" in changed(bridge)[0]


@pytest.mark.parametrize("kernel", [True, False])
def test_what_the_tunnels_need_depends_on_the_datapath(
    tmp_path: Path, bridge: machine.Programs, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    ec2 = Ec2([str(OWN), str(OTHER)])
    host = dataclasses.replace(machine.host(tmp_path, "worker-mesh"), client=lambda _: ec2)
    monkeypatch.setattr(tap, "has_kernel_datapath", lambda: kernel)
    monkeypatch.setattr(main, "this_host", lambda *_: host)
    bridge.answers["ip -json link show"] = "[]"
    bridge.answers = dict(sorted(bridge.answers.items(), key=lambda item: -len(item[0])))
    assert main.main(["tap"], host.layout) == 0
    calls = [" ".join(call) for call in bridge.calls]
    assert "ip link set dev ens5 mtu 9001" in calls
    assert len(changed(bridge)) == 3 - kernel
    rules = [text for call, text in zip(bridge.calls, bridge.stdins, strict=True) if call[1] == "add-flows"]
    assert rules == ["\n".join(mesh.guards(NETWORK, endpoint=OWN if kernel else mesh.OUR_END)) + "\n"]
    userspace = {
        "ovs-appctl ovs/route/add 0.0.0.0/0 mesh0 192.0.0.1 src=192.0.0.2",
        "ovs-appctl tnl/neigh/set mesh0 192.0.0.1 02:00:00:00:00:01",
        "ip neighbour replace 192.0.0.2 lladdr 02:00:00:00:00:02 dev mesh-out nud permanent",
    }
    assert userspace.isdisjoint(calls) if kernel else userspace <= set(calls)
    assert any("mesh.nft" in call for call in calls) is not kernel


def test_a_host_alone_in_no_mesh_asks_for_nothing(
    tmp_path: Path, bridge: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "worker-tap")
    monkeypatch.setattr(main, "this_host", lambda *_: host)
    bridge.answers["ip -json link show"] = "[]"
    assert main.main(["tap"], host.layout) == 0
    assert not any("9001" in word or "gre" in word for call in bridge.calls for word in call)


def test_a_mesh_that_nobody_follows_is_a_broken_network(tmp_path: Path, programs: machine.Programs) -> None:
    programs.answers |= {
        "ovs-vsctl list-ports": "\n".join(tap.devices(3)),
        "ip -json address": json.dumps(
            [{"ifname": "br0", "addr_info": [{"local": "10.0.2.2", "prefixlen": 15}]}]
        ),
        "ovs-ofctl dump-flows": "arp,arp_tpa=10.0.2.2",
    }
    meshed, alone = machine.read("worker-mesh"), machine.read("worker-mesh")
    alone["worker"]["tap_topology"] = "host"
    tap.check(machine.host(tmp_path / "mesh", meshed))
    asked = ("systemctl", "is-active", "openqa-mesh.service")
    assert programs.calls.count(asked) == 1
    tap.check(machine.host(tmp_path / "tap", alone))
    assert programs.calls.count(asked) == 1
