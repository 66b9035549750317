"""The network of hosts whose guests talk to each other: an Open vSwitch bridge with tap devices."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import ClassVar

from userdata.host import switch
from userdata.host.aws import wait
from userdata.host.commands import run
from userdata.host.document import Document, required
from userdata.host.errors import HostError
from userdata.host.host import Host

# The user that openQA's worker runs as, both on the host and in containers.
USER = "_openqa-worker"
# Longer than Open vSwitch and the switch service take to restart.
CHECK_SECONDS = 90
OVS_SECONDS = 60
# The first worker's devices, for as many network cards as in openQA's own set-up: if a job has several
# NETWORKS, os-autoinst adds 64 for each further card (backend/qemu.pm). A host has at most 60 workers.
CARDS = (0, 64, 128)


@dataclass(frozen=True)
class TapNetwork:
    """The bridge as guests and host see it.

    Attributes:
        bridge: its name.
        address: the host's address on it, and the network shared by guests and host alone.
    """

    bridge: ClassVar[str] = "br0"
    address: IPv4Interface

    @property
    def rewrite(self) -> IPv4Address:
        """How the host knows guests: this address, with 16 bits that :mod:`userdata.host.switch` sets."""
        _, upper = self.address.network.subnets()
        return upper.network_address

    @property
    def mac(self) -> str:
        """The bridge's hardware address: the same on all hosts, like their address."""
        return f"02:00:{self.address.ip.packed.hex(':')}"


def network_of(document: Document) -> TapNetwork:
    """Returns the network of a tap host.

    Raises:
        HostError: the document is that of another kind of host.
    """
    return TapNetwork(required(required(document.worker, "worker").tap_address, "tap_address"))


def devices(workers: int) -> tuple[str, ...]:
    """Returns a host's tap devices: worker N has ``tapN-1`` for a guest's first card (see :data:`CARDS`)."""
    return tuple(f"tap{first + number}" for first in CARDS for number in range(workers))


def settings(network: TapNetwork, *, kernel_datapath: bool, mesh: bool) -> dict[str, str]:
    """Returns what the workers of a tap host need in ``workers.ini``, which overrides a job's own settings.

    Args:
        network: the host's network.
        kernel_datapath: whether Open vSwitch forwards in the kernel.
        mesh: whether clusters may span hosts.
    """
    return {
        **({} if mesh else {"PARALLEL_ONE_HOST_ONLY": "1"}),
        "QEMU_HOST_IP": str(network.address.ip),
        # With virtio's checksum offload, TCP through the userspace datapath hangs.
        **({} if kernel_datapath else {"NICMODEL": "e1000"}),
    }


def commands(
    network: TapNetwork, *, workers: int, kernel_datapath: bool, existing: Iterable[str]
) -> list[list[str]]:
    """Returns the commands that set up the network; running them again changes nothing.

    Args:
        network: what to set up.
        workers: the worker instances of the host.
        kernel_datapath: whether Open vSwitch forwards in the kernel.
        existing: the names of the existing network interfaces.
    """
    taps = devices(workers)
    there = set(existing)
    bridge = network.bridge
    ovs = [
        *("ovs-vsctl", f"--timeout={OVS_SECONDS}", "--", "--may-exist", "add-br", bridge),
        *("--", "set", "bridge", bridge, f"datapath_type={'system' if kernel_datapath else 'netdev'}"),
        # After a restart, Open vSwitch forwards nothing until it has all rules again.
        *(f'other_config:hwaddr="{network.mac}"', "fail_mode=secure"),
    ]
    for tap in taps:
        # Without a mode it would be a trunk, and a guest would see all VLANs until it gets its own.
        ovs += ["--", "--may-exist", "add-port", bridge, tap]
        ovs += ["--", "set", "port", tap, "vlan_mode=dot1q-tunnel"]
    return [
        *(
            ["ip", "tuntap", "add", "dev", tap, "mode", "tap", "user", USER]
            for tap in taps
            if tap not in there
        ),
        *(["ip", "link", "set", "dev", tap, "up"] for tap in taps),
        ovs,
        ["ip", "address", "replace", str(network.address), "dev", bridge],
        ["ip", "link", "set", "dev", bridge, "up"],
        ["sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"],
    ]


def uplink(routes: str) -> str:
    """Returns the interface of the best default route.

    Args:
        routes: what ``ip -json route show default`` printed.

    Raises:
        HostError: there is none.
    """
    found = sorted(json.loads(routes or "[]"), key=lambda route: int(route.get("metric", 0)))
    if not found:
        raise HostError("tap network: the host has no default route")
    name: str = found[0]["dev"]
    return name


def problems(network: TapNetwork, *, workers: int, ports: str, addresses: str, flows: str) -> list[str]:
    """Returns what is wrong with the network; nothing if it works.

    Args:
        network: what there should be.
        workers: the worker instances of the host.
        ports: what ``ovs-vsctl list-ports BRIDGE`` printed.
        addresses: what ``ip -json address show dev BRIDGE`` printed.
        flows: what ``ovs-ofctl dump-flows BRIDGE`` printed.
    """
    wrong = [f"{tap} is not on the bridge" for tap in devices(workers) if tap not in ports.split()]
    has = {
        f"{entry['local']}/{entry['prefixlen']}"
        for link in json.loads(addresses or "[]")
        for entry in link.get("addr_info", [])
    }
    if str(network.address) not in has:
        wrong.append(f"the bridge does not have the address {network.address}")
    if f"arp_tpa={network.address.ip}" not in flows:
        wrong.append("guests cannot reach the host: the switch's flows are missing")
    return wrong


def has_kernel_datapath() -> bool:
    """Returns whether the kernel has, or can load, Open vSwitch's module."""
    run(["sh", "-c", "modprobe --quiet openvswitch || true"])
    return Path("/sys/module/openvswitch").exists()


def set_up(host: Host) -> None:
    """Sets up bridge, tap devices, forwarding and masquerading.

    Raises:
        HostError: a command failed.
    """
    existing = [link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]))]
    kernel = has_kernel_datapath()
    network = network_of(host.document)
    for command in commands(network, workers=_workers(host), kernel_datapath=kernel, existing=existing):
        run(command)
    outward = uplink(run(["ip", "-json", "route", "show", "default"]))
    rules = host.layout.bundle / "userdata/roles/tap/tap.nft"
    # Fedora's switch service knows guests by 16 bits of their hardware addresses, which a guest may make up.
    guest = switch.GUEST_MASK if host.document.os == "debian" else IPv4Address("255.255.255.255")
    defined = [f"--define={name}={value}" for name, value in (("uplink", outward), ("guest", guest))]
    run(["nft", *defined, "--file", str(rules)])


def check(host: Host) -> None:
    """Checks the network and that the switch answers.

    openQA's worker checks the switch itself, but only if one of its classes is exactly ``tap``
    (lib/OpenQA/Worker.pm); hosts that only have ``tap2`` depend on this.

    Raises:
        HostError: something is wrong; the message lists every problem.
    """
    network = network_of(host.document)
    bridge = network.bridge
    if host.document.worker and host.document.worker.mesh:
        run(["systemctl", "is-active", "openqa-mesh.service"])
    run(["busctl", "--system", "--timeout=20", "call", switch.NAME, switch.PATH, switch.NAME, "show"])
    wrong = problems(
        network,
        workers=_workers(host),
        ports=run(["ovs-vsctl", "list-ports", bridge]),
        addresses=run(["ip", "-json", "address", "show", "dev", bridge]),
        flows=run(["ovs-ofctl", "dump-flows", bridge]),
    )
    if wrong:
        raise HostError(f"tap network: {'; '.join(wrong)}")


def await_working(host: Host) -> None:
    """Waits until :func:`check` passes, for as long as services may take to restart.

    Raises:
        HostError: it still does not pass.
    """
    last = ""

    def works() -> bool | None:
        nonlocal last
        try:
            check(host)
        except HostError as error:
            last = str(error)
            return None
        return True

    try:
        wait("the tap network to work", works, seconds=CHECK_SECONDS, pause=10)
    except HostError as error:
        raise HostError(f"{error}; the last check said: {last}") from error


def _workers(host: Host) -> int:
    worker = required(host.document.worker, "worker")
    return worker.count(host.instance_type)
