"""The mesh: GRE tunnels between the bridges of a fleet's tap hosts, so that clusters may span hosts.

Every host has a tunnel to every other. Nothing that came through a tunnel leaves through another one (Open
vSwitch's protected ports), so there are no loops and no spanning tree. Clusters keep their VLANs on the way.
Each host has the same address and hardware address on its bridge; :func:`guards` keep these apart.

Tunnels end where Open vSwitch forwards. In the kernel that is the host's own address. In userspace it must
be an address that only Open vSwitch has: a second bridge has one that is the same on every host and never
leaves it, and the kernel translates between that and the host's own.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Any

from userdata.host import tap
from userdata.host.aws import call
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.tap import OVS_SECONDS, TapNetwork

log = logging.getLogger(__name__)

PAUSE_SECONDS = 10.0
# The MTU of EC2's interfaces inside a VPC (user guide, "Network MTU"): guests keep their 1500 bytes, to
# which GRE adds 42 with a VLAN tag.
MTU = 9001
# In userspace: Open vSwitch's end and the kernel's. 192.0.0.0/29 is for the inside of hosts (RFC 7335).
BRIDGE, OUTWARD = "mesh0", "mesh-out"
OUR_END, KERNELS_END = IPv4Address("192.0.0.2"), IPv4Address("192.0.0.1")

_PREFIX = "gre-"
_VSCTL = ("ovs-vsctl", f"--timeout={OVS_SECONDS}")


def port(peer: IPv4Address) -> str:
    """Returns the name of the tunnel to another host: at most 15 characters, and as unique as the address."""
    return f"{_PREFIX}{int(peer):08x}"


def changes(*, wanted: Iterable[IPv4Address], ports: Iterable[str]) -> list[str]:
    """Returns one command that leaves the wanted tunnels and no others; empty if nothing is to change.

    Args:
        wanted: the other hosts' addresses.
        ports: the names of the bridge's ports.
    """
    peers = {port(peer): peer for peer in sorted(wanted)}
    present = {name for name in ports if name.startswith(_PREFIX)}
    command: list[str] = []
    for name in sorted(present - peers.keys()):
        command += ["--", "--if-exists", "del-port", TapNetwork.bridge, name]
    for name, peer in peers.items():
        if name not in present:
            command += ["--", "--may-exist", "add-port", TapNetwork.bridge, name]
            command += ["--", "set", "interface", name, "type=gre", f"options:remote_ip={peer}"]
            command += ["--", "set", "port", name, "protected=true"]
    return [*_VSCTL, *command] if command else []


def guards(network: TapNetwork, *, endpoint: IPv4Address) -> tuple[str, ...]:
    """Returns the bridge's OpenFlow rules for what comes through tunnels: guests only reach their own host.

    A guest's requests to the host already end on its own bridge (:func:`userdata.host.switch.flows`). These
    rules, ahead of all others, drop requests from elsewhere, and whatever claims to be a host.

    Args:
        network: the hosts' network, the same on all.
        endpoint: where tunnels to this host end.
    """
    tunnelled = f"table=0,priority=300,tun_dst={endpoint}"
    return (
        f"{tunnelled},arp,arp_tpa={network.address.ip},actions=drop",
        f"{tunnelled},arp,arp_spa={network.address.ip},actions=drop",
        f"{tunnelled},dl_dst={network.mac},actions=drop",
        f"{tunnelled},dl_src={network.mac},actions=drop",
    )


def endpoint(*, own: IPv4Address, kernel_datapath: bool) -> IPv4Address:
    """Returns the address at which Open vSwitch receives what other hosts send to this host."""
    return own if kernel_datapath else OUR_END


def carrier_commands() -> list[list[str]]:
    """Returns the commands that connect the userspace datapath; running them again changes nothing."""
    return [
        [
            *(*_VSCTL, "--", "--may-exist", "add-br", BRIDGE),
            *("--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"),
            *("--", "--may-exist", "add-port", BRIDGE, OUTWARD),
            *("--", "set", "interface", OUTWARD, "type=internal", f"mtu_request={MTU}"),
            *("--", "set", "interface", BRIDGE, f"mtu_request={MTU}"),
        ],
        ["ip", "address", "replace", f"{KERNELS_END}/32", "dev", OUTWARD],
        ["ip", "link", "set", "dev", OUTWARD, "up"],
        ["ip", "address", "replace", f"{OUR_END}/30", "dev", BRIDGE, "noprefixroute"],
        ["ip", "link", "set", "dev", BRIDGE, "up"],
        # The address is Open vSwitch's: for the kernel it lies behind the other port.
        ["ip", "route", "flush", "table", "local", "exact", f"{OUR_END}/32"],
        ["ip", "route", "replace", f"{OUR_END}/32", "dev", OUTWARD],
        ["sysctl", "--quiet", "--write", f"net.ipv4.conf.{OUTWARD}.accept_local=1"],
    ]


def peers(ec2: Any, *, group: str, own: IPv4Address) -> frozenset[IPv4Address]:
    """Returns the addresses of the group's other hosts, from their launch until they are gone.

    Args:
        ec2: EC2's client.
        group: the Auto Scaling group, whose name all its instances have as a tag that only AWS can set.
        own: this host's address.

    Raises:
        HostError: EC2 refused, or does not list this host in the group: such an answer is no reason to end
            tunnels.
    """

    def addresses() -> frozenset[IPv4Address]:
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": "tag:aws:autoscaling:groupName", "Values": [group]},
                {"Name": "instance-state-name", "Values": ["pending", "running"]},
            ]
        )
        return frozenset(
            IPv4Address(instance["PrivateIpAddress"])
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
            if "PrivateIpAddress" in instance
        )

    found = call(f"the hosts of {group}", addresses)
    if own not in found:
        raise HostError(f"the hosts of {group}: EC2 does not list this one, {own}")
    return found - {own}


def set_up(host: Host) -> None:
    """Sets up what tunnels need, then the tunnels to the existing hosts.

    Raises:
        HostError: a command failed, or EC2 refused.
    """
    outward = tap.uplink(run(["ip", "-json", "route", "show", "default"]))
    run(["ip", "link", "set", "dev", outward, "mtu", str(MTU)])
    kernel = tap.has_kernel_datapath()
    if not kernel:
        for command in carrier_commands():
            run(command)
        _join(host, outward)
    own, network = IPv4Address(host.address), tap.network_of(host.document)
    rules = guards(network, endpoint=endpoint(own=own, kernel_datapath=kernel))
    run(["ovs-ofctl", "add-flows", network.bridge, "-"], stdin="\n".join(rules) + "\n")
    _update(host, host.client("ec2"))


def follow(host: Host, *, rounds: Iterable[object], sleep: Callable[[float], None] = time.sleep) -> None:
    """Keeps the tunnels in line with the group. An error is logged, and tunnels stay until the next round.

    Args:
        host: this host.
        rounds: one item per round; if endless, this does not return.
        sleep: waits; takes seconds.
    """
    ec2 = host.client("ec2")
    for _ in rounds:
        try:
            _update(host, ec2)
        except HostError as error:
            log.warning("%s", error)
        sleep(PAUSE_SECONDS)


def _update(host: Host, ec2: Any) -> None:
    ports = run([*_VSCTL, "list-ports", TapNetwork.bridge]).split()
    others = peers(ec2, group=host.document.group, own=IPv4Address(host.address))
    command = changes(wanted=others, ports=ports)
    if command:
        run(command)


def _join(host: Host, outward: str) -> None:
    """Makes Open vSwitch's end and the kernel's know each other, and the kernel translate."""
    ours, kernels = (
        json.loads(run(["ip", "-json", "link", "show", "dev", device]))[0]["address"]
        for device in (BRIDGE, OUTWARD)
    )
    run(["ip", "neighbour", "replace", str(OUR_END), "lladdr", ours, "dev", OUTWARD, "nud", "permanent"])
    rules = (f'in_port=LOCAL,actions=output:"{OUTWARD}"', f'in_port="{OUTWARD}",actions=LOCAL')
    run(["ovs-ofctl", "replace-flows", BRIDGE, "-"], stdin="\n".join(rules) + "\n")
    run(["ovs-appctl", "tnl/neigh/set", BRIDGE, str(KERNELS_END), kernels])
    run(["ovs-appctl", "ovs/route/add", "0.0.0.0/0", BRIDGE, str(KERNELS_END), f"src={OUR_END}"])
    nft = host.layout.bundle / "userdata/roles/mesh/mesh.nft"
    run(["nft", "--define", f"uplink={outward}", "--file", str(nft)])
